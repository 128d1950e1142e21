package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// span is a run of facts that are numbered without a gap.
type span struct{ first, last int }

// facts are the numbers of the facts about Flux, section by section. They are
// written out here so that a row cannot leave the list unnoticed. S4.24b is the
// only one with a letter and comes after S4.24. Section 15 has no facts but the
// tests of upstreamTests.
var facts = []struct {
	section int
	spans   []span
}{
	{0, []span{{1, 25}}},
	{1, []span{{1, 21}}},
	{2, []span{{1, 17}, {20, 37}}},
	{3, []span{{1, 27}, {30, 41}, {45, 50}}},
	{4, []span{{1, 7}, {10, 30}, {33, 35}, {40, 43}, {45, 49}}},
	{5, []span{{1, 22}}},
	{6, []span{{1, 7}, {10, 18}, {20, 27}, {30, 32}, {40, 46}}},
	{7, []span{{1, 17}}},
	{8, []span{{1, 9}}},
	{9, []span{{1, 8}}},
	{10, []span{{1, 17}, {20, 30}, {35, 42}}},
	{11, []span{{1, 7}, {10, 18}, {20, 21}, {30, 32}}},
	{12, []span{{1, 8}, {12, 12}, {15, 22}, {25, 31}}},
	{13, []span{{1, 3}}},
	{14, []span{{1, 29}}},
	{16, []span{{1, 10}}},
}

// factIDs lists the ids of all rows in the order of the list.
func factIDs() []string {
	var ids []string
	for _, f := range facts {
		if f.section > 15 {
			ids = append(ids, upstreamTests...)
		}
		for _, s := range f.spans {
			for n := s.first; n <= s.last; n++ {
				id := fmt.Sprintf("S%d.%d", f.section, n)
				ids = append(ids, id)
				if id == "S4.24" {
					ids = append(ids, "S4.24b")
				}
			}
		}
	}
	return ids
}

const conformanceFile = "../testdata/conformance.md"

var (
	// A reference to a test is in backquotes: a package of this module with
	// the name of a test in it, for a table of files with the case, or a script.
	testReference   = regexp.MustCompile("`(internal/[a-z/]+): ((?:Test|Fuzz)[A-Za-z0-9_]+)(?:/([a-z0-9.-]+))?`")
	scriptReference = regexp.MustCompile("`(testdata/script/[a-z0-9-]+\\.txtar)`")
	anyReference    = regexp.MustCompile("`[^`]*(?:: Test|: Fuzz|\\.txtar|_test)[^`]*`")
)

// conformanceRow is a row of the list.
type conformanceRow struct {
	line                       int
	heading                    string
	id, fact, status, evidence string
}

// conformanceRows reads the rows of the tables below the headings of sections.
// What looks like a row and is none fails the test.
func conformanceRows(t *testing.T) []conformanceRow {
	t.Helper()
	text, err := os.ReadFile(conformanceFile)
	if err != nil {
		t.Fatal(err)
	}
	var rows []conformanceRow
	heading := ""
	for i, line := range strings.Split(string(text), "\n") {
		if after, ok := strings.CutPrefix(line, "## "); ok {
			heading = after
		}
		if heading == "" || !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "| ---") || strings.HasPrefix(line, "| Fact ") || strings.HasPrefix(line, "| Flux's test ") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 4 {
			t.Errorf("%s:%d: %d cells, want 4: %s", conformanceFile, i+1, len(cells), line)
			continue
		}
		for j := range cells {
			cells[j] = strings.TrimSpace(cells[j])
		}
		rows = append(rows, conformanceRow{i + 1, heading, cells[0], cells[1], cells[2], cells[3]})
	}
	return rows
}

// TestConformanceListIsComplete: every fact has one row, in order, below the
// heading of its section.
func TestConformanceListIsComplete(t *testing.T) {
	rows, want := conformanceRows(t), factIDs()
	for i := range max(len(rows), len(want)) {
		switch {
		case i >= len(rows):
			t.Fatalf("%s ends before %s", conformanceFile, want[i])
		case i >= len(want):
			t.Fatalf("%s:%d: %s is one too many", conformanceFile, rows[i].line, rows[i].id)
		case rows[i].id != want[i]:
			t.Fatalf("%s:%d: %s, want %s: each fact once, in order", conformanceFile, rows[i].line, rows[i].id, want[i])
		}
		section, _, _ := strings.Cut(strings.TrimPrefix(rows[i].id, "S"), ".")
		if strings.Contains(section, ": Test") {
			section = "15"
		}
		if number, _, _ := strings.Cut(rows[i].heading, "."); number != section {
			t.Errorf("%s:%d: %s is below the heading %q", conformanceFile, rows[i].line, rows[i].id, rows[i].heading)
		}
	}
}

// TestConformanceRowsAreProven: a fact that is claimed to be the same names
// tests that exist, and nothing else; every other one gives a reason.
func TestConformanceRowsAreProven(t *testing.T) {
	tests := map[string]map[string]bool{}
	for _, row := range conformanceRows(t) {
		where := fmt.Sprintf("%s:%d: %s", conformanceFile, row.line, row.id)
		if words := len(strings.Fields(row.fact)); words == 0 || words > 14 {
			t.Errorf("%s: the fact has %d words, want 1 to 14", where, words)
		}
		named, rest := proofs(t, where, row.evidence, tests)
		switch row.status {
		case "same":
			if named == 0 {
				t.Errorf("%s: the same, but no test shows it", where)
			}
			if rest != "" {
				t.Errorf("%s: the same, with a reservation: %s", where, rest)
			}
		case "differs", "n/a", "open":
			if rest == "" {
				t.Errorf("%s: %s without a reason", where, row.status)
			}
			if row.status == "open" && !mayBeOpen(row) {
				t.Errorf("%s: only sources and decryption may be open: do it, or say why not", where)
			}
		default:
			t.Errorf("%s: status %s, want same, differs, n/a or open", where, strconv.Quote(row.status))
		}
	}
}

// proofs counts the tests that a text names and returns what else it says. A test
// that does not exist fails this one, and so does one that is named in another form.
// tests keeps the names that were read, by folder.
func proofs(t *testing.T, where, text string, tests map[string]map[string]bool) (named int, rest string) {
	t.Helper()
	for _, m := range testReference.FindAllStringSubmatch(text, -1) {
		named++
		folder, name, file := m[1], m[2], m[3]
		if tests[folder] == nil {
			tests[folder] = testsIn(t, filepath.Join("..", folder))
		}
		if !tests[folder][name] {
			t.Errorf("%s: %s has no test %s", where, folder, name)
		}
		if file != "" {
			file = filepath.Join("..", folder, "testdata", file+".txtar")
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %v", where, err)
			}
		}
	}
	for _, m := range scriptReference.FindAllStringSubmatch(text, -1) {
		named++
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	if all := len(anyReference.FindAllString(text, -1)); all != named {
		t.Errorf("%s: %d of %d tests are named as they should be: %s", where, named, all, text)
	}
	rest = scriptReference.ReplaceAllString(testReference.ReplaceAllString(text, ""), "")
	return named, strings.Trim(rest, " ,;:.")
}

// mayBeOpen says whether a row is one of sources (section 10) or of decryption
// (section 11 and Flux's tests of it), which are not complete yet.
func mayBeOpen(row conformanceRow) bool {
	return strings.HasPrefix(row.id, "S10.") || strings.HasPrefix(row.id, "S11.") || strings.Contains(row.fact, "(S11.")
}

// testsIn returns the names of the tests and fuzz targets in the files of a folder.
func testsIn(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && (strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz")) {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}
