// Package golden compares output with files kept in the repository. There is
// one flag for all of them: `go test ./internal/report/... -update` writes
// what the code produces now, and the difference is read in the commit.
//
// It is for tests only. What is compared must be the same on every machine:
// times, hashes and folders of a run belong out of it.
package golden

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// context is how many equal lines are shown before the first difference,
// shown how many lines from there on, and width how much of each.
const (
	context = 3
	shown   = 12
	width   = 300
)

// Assert compares got with testdata/<name of the test><suffix>, where the
// name of a subtest makes a folder. The suffix starts with a dot and tells
// editors what the file holds.
func Assert(t testing.TB, suffix string, got []byte) {
	t.Helper()
	File(t, filepath.Join("testdata", filepath.FromSlash(t.Name())+suffix), got)
}

// File compares got with the file at path, which is relative to the package's
// folder. Use it where the file is more than a test's expectation, such as a
// published schema.
func File(t testing.TB, path string, got []byte) {
	t.Helper()
	if err := Compare(path, got, *update); err != nil {
		t.Error(err)
	}
}

// Compare returns an error that shows the first difference between got and
// the file at path. With write set it writes the file, making its folder, and
// returns only what went wrong with that.
func Compare(path string, got []byte, write bool) error {
	if write {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, got, 0o644)
	}
	want, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return fmt.Errorf("golden file %q does not exist; run the test with -update to write it", path)
	}
	if err != nil {
		return err
	}
	if bytes.Equal(want, got) {
		return nil
	}
	return fmt.Errorf("output differs from golden file %q; if that is meant, run the test with -update\n%s",
		path, difference(string(want), string(got)))
}

// difference shows both texts around their first different line.
func difference(want, got string) string {
	w, g := strings.SplitAfter(want, "\n"), strings.SplitAfter(got, "\n")
	first := 0
	for first < len(w) && first < len(g) && w[first] == g[first] {
		first++
	}
	var b strings.Builder
	fmt.Fprintf(&b, "first difference in line %d:\n", first+1)
	for i := max(0, first-context); i < first; i++ {
		fmt.Fprintf(&b, "  %.*q\n", width, w[i])
	}
	for _, side := range []struct {
		mark  string
		lines []string
	}{{"want", w}, {"got ", g}} {
		for i := first; i < min(len(side.lines), first+shown); i++ {
			fmt.Fprintf(&b, "%s %.*q\n", side.mark, width, side.lines[i])
		}
	}
	return b.String()
}
