package internal_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const (
	reliabilityFile = "../docs/reliability.md"
	notPromised     = "What is not promised"
)

// TestReliabilityPromisesAreHeld: every promise of the page names tests that exist,
// and nothing else. Only the section of what is not promised makes none.
func TestReliabilityPromisesAreHeld(t *testing.T) {
	text, err := os.ReadFile(reliabilityFile)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]map[string]bool{}
	seen := map[string]int{}
	promises := map[string]int{} // by section
	var sections []string
	for i, line := range strings.Split(string(text), "\n") {
		if after, ok := strings.CutPrefix(line, "## "); ok {
			sections = append(sections, after)
		}
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "| ---") || line == "| Promise | Held by |" {
			continue
		}
		where := fmt.Sprintf("%s:%d", reliabilityFile, i+1)
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 2 || len(sections) == 0 {
			t.Errorf("%s: want a promise and its tests, below the heading of a section: %s", where, line)
			continue
		}
		section, promise := sections[len(sections)-1], strings.TrimSpace(cells[0])
		promises[section]++
		if promise == "" {
			t.Errorf("%s: no promise", where)
		}
		if seen[promise]++; seen[promise] > 1 {
			t.Errorf("%s: promised twice: %s", where, promise)
		}
		switch named, rest := proofs(t, where, cells[1], tests); {
		case named == 0:
			t.Errorf("%s: no test holds it: %s", where, promise)
		case rest != "":
			t.Errorf("%s: held by something that is no test: %s", where, rest)
		}
	}
	for _, section := range sections {
		if has := promises[section] > 0; has == (section == notPromised) {
			t.Errorf("%s: the section %q has %d promises", reliabilityFile, section, promises[section])
		}
	}
	if len(sections) < 2 || sections[len(sections)-1] != notPromised {
		t.Errorf("%s: the last section of %q should be %q", reliabilityFile, sections, notPromised)
	}
}
