package prune

import (
	"context"
	"testing"

	"github.com/sluicerun/sluice/internal/flux"
)

// After the end of the context nothing begins, and each deletion still has its results.
func TestNothingBeginsAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := 0
	deletions := []Deletion{{Node: flux.ID{Namespace: "ns", Name: "a"}}, {Node: flux.ID{Namespace: "ns", Name: "b"}}}
	if _, err := Delete(ctx, deletions, Options{
		Begin: func(d Deletion) { t.Errorf("%s began", d.Node) },
		Done:  func(Deletion, []Result) { done++ },
	}); err == nil || done != 2 {
		t.Errorf("%d ended, error %v", done, err)
	}
}
