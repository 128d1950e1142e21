package junit

import (
	"bytes"
	"encoding/xml"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/golden"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/report/reporttest"
)

func write(t testing.TB, s report.Summary) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSamples(t *testing.T) {
	for _, s := range reporttest.Samples() {
		t.Run(s.Name, func(t *testing.T) {
			out := write(t, report.Summarize(s.Events...))
			if s.Name == "hundred" {
				// Two thousand cases; the head says what matters.
				out = out[:bytes.Index(out, []byte("<testsuite "))]
			}
			golden.Assert(t, ".xml", out)
		})
	}
}

// The document can be read back, its counts are right, every failure of the
// summary is told exactly once, and no two cases of a suite have one name
// (GitLab would show one of them).
func TestReadBack(t *testing.T) {
	for _, sample := range reporttest.Samples() {
		s := report.Summarize(sample.Events...)
		var got suites
		if err := xml.Unmarshal(write(t, s), &got); err != nil {
			t.Fatalf("%s: %v", sample.Name, err)
		}
		tests, failures, skipped := 0, 0, 0
		for _, one := range got.Suites {
			names := map[string]bool{}
			for _, c := range one.Cases {
				key := c.Classname + " " + c.Name
				if names[key] {
					t.Errorf("%s: two cases %q in suite %q", sample.Name, key, one.Name)
				}
				names[key] = true
				tests++
				if c.Failure != nil {
					failures++
				}
				if c.Skipped != nil {
					skipped++
				}
			}
			if one.Tests != len(one.Cases) {
				t.Errorf("%s: suite %q counts %d cases, has %d", sample.Name, one.Name, one.Tests, len(one.Cases))
			}
		}
		if got.Tests != tests || got.Failures != failures || got.Skipped != skipped {
			t.Errorf("%s: counts %d/%d/%d, has %d/%d/%d", sample.Name, got.Tests, got.Failures, got.Skipped, tests, failures, skipped)
		}
		if failures != len(s.Failures) {
			t.Errorf("%s: %d failures told, the summary has %d", sample.Name, failures, len(s.Failures))
		}
	}
}

// Whatever bytes a log holds, the document is valid XML.
func FuzzWrite(f *testing.F) {
	for _, seed := range []string{"\x00\x1b[31m", "]]>", "<a&b>", "\xff\xfe", "\ufffe\uffff", "a\nb\r\n", "\ud7ff\ue000", "\U0010ffff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, foreign string) {
		s := report.Summarize(
			event.RunStarted{Command: "run"},
			event.NodeFound{Node: event.Node{ID: "a/" + foreign, File: foreign}},
			event.NodeFinished{Node: "a/" + foreign, Result: event.Failed, Failures: []event.Failure{{Text: foreign, Reason: foreign, Phase: foreign, Logs: []string{foreign}}}},
			event.RunFinished{Verdict: event.VerdictFailed, Failures: []event.Failure{{Text: foreign + "!", Object: foreign}}},
		)
		d := xml.NewDecoder(bytes.NewReader(write(t, s)))
		for {
			if _, err := d.Token(); err != nil {
				if err.Error() == "EOF" {
					return
				}
				t.Fatal(err)
			}
		}
	})
}

// A Kustomization that failed is never shown as passed, also if its failure
// is told for the run as a whole; equal names are told apart.
func TestFailedIsNeverPassed(t *testing.T) {
	s := report.Summarize(
		event.NodeFound{Node: event.Node{ID: "a/b"}},
		event.NodeFound{Node: event.Node{ID: "a/c"}},
		event.NodeFinished{Node: "a/b", Result: event.Failed},
		event.NodeFinished{Node: "a/c", Result: event.Failed, Failures: []event.Failure{
			{Phase: "build", Text: "one"}, {Phase: "build", Text: "two"}, {Phase: "build", Text: "three"}}},
		event.RunFinished{Verdict: event.VerdictFailed},
	)
	var got suites
	if err := xml.Unmarshal(write(t, s), &got); err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, one := range got.Suites {
		for _, c := range one.Cases {
			if c.Failure != nil {
				names[one.Name] += c.Name + ";"
			}
		}
	}
	if names["a/b"] != "Kustomization;" || names["a/c"] != "Kustomization;build;build (2);" {
		t.Errorf("failed cases: %v", names)
	}
}

func TestWriteError(t *testing.T) {
	if err := Write(failing{}, report.Summary{}); err == nil || !strings.Contains(err.Error(), "JUnit") {
		t.Errorf("got %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, xml.UnmarshalError("disk full") }
