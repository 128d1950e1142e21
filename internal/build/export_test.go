package build

import (
	"testing"

	"golang.org/x/sync/semaphore"
)

// SetTurns lets so many builds run at once until the test is over, whatever
// the machine has. No build may be running.
func SetTurns(t *testing.T, n int64) {
	t.Helper()
	was := allTurns
	set := func(n int64) { allTurns, turns = n, semaphore.NewWeighted(n) }
	set(n)
	t.Cleanup(func() { set(was) })
}
