package upstream

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what Flux says of the cases that fail into testdata")

// compareErrors compares what Flux says of the cases that fail with a file. It
// is there to be read: that a case fails for the reason it was written for,
// and not for another one.
func compareErrors(t *testing.T, file string, failed map[string]error) {
	t.Helper()
	if t.Failed() {
		return
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(strings.Fields(failed[name].Error()), " "))
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("what Flux says is not what %s holds (-update writes it):\n%s", file, b.String())
	}
}
