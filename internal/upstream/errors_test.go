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

var update = flag.Bool("update", false, "write what Flux says of the cases that fail into testdata; all cases must run")

// sayings are what Flux says of the cases that fail, by the name of the case,
// in a file. It is there to be read: that a case fails for the reason it was
// written for, and not for another one.
type sayings struct {
	file      string
	want, got map[string]string
}

func readSayings(t *testing.T, file string) *sayings {
	t.Helper()
	s := &sayings{file: file, want: map[string]string{}, got: map[string]string{}}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, said, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		s.want[name] = said
	}
	return s
}

// compare compares what Flux says of a case, in which top stands for the root of
// the disk.
func (s *sayings) compare(t *testing.T, name, top string, err error) {
	t.Helper()
	said := ""
	if err != nil {
		said = strings.Join(strings.Fields(err.Error()), " ")
		if top != "" {
			said = strings.ReplaceAll(said, top, "")
		}
		s.got[name] = said
	}
	if said != s.want[name] && !*update {
		t.Errorf("Flux says %q, %s has %q (-update writes it)", said, s.file, s.want[name])
	}
}

// finish writes the file if that is wanted. Else each case of the file must be
// one that there is.
func (s *sayings) finish(t *testing.T, names map[string]bool) {
	t.Helper()
	if !*update {
		for _, name := range slices.Sorted(maps.Keys(s.want)) {
			if !names[name] {
				t.Errorf("%s has a case %s, which there is not", s.file, name)
			}
		}
		return
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.got)) {
		fmt.Fprintf(&b, "%s: %s\n", name, s.got[name])
	}
	if err := os.WriteFile(s.file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
