package gitlab

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/golden"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/report/reporttest"
)

func render(s reporttest.Sample, o Options) []byte {
	r := New(o)
	var b bytes.Buffer
	for _, e := range s.Events {
		b.Write(r.Event(e))
	}
	return b.Bytes()
}

func TestLog(t *testing.T) {
	for _, s := range reporttest.Samples() {
		t.Run(s.Name, func(t *testing.T) {
			golden.Assert(t, ".txt", render(s, Options{}))
		})
	}
}

// Sections are well formed: each ends before the next starts, under the name
// that it started with; foreign text makes none.
func TestSections(t *testing.T) {
	mark := regexp.MustCompile("\x1b\\[0Ksection_(start|end):[0-9]+:([a-zA-Z0-9_.-]+)(\\[collapsed=true\\])?\r\x1b\\[0K")
	for _, s := range reporttest.Samples() {
		for _, o := range []Options{{}, {Color: true}, {Live: report.LiveOptions{Verbose: true}}} {
			out := string(render(s, o))
			open, sections := "", 0
			for _, m := range mark.FindAllStringSubmatch(out, -1) {
				switch {
				case m[1] == "start" && open == "" && m[3] != "":
					open = m[2]
					sections++
				case m[1] == "end" && open == m[2]:
					open = ""
				default:
					t.Errorf("%s: %q while %q is open", s.Name, m[0], open)
				}
			}
			if open != "" {
				t.Errorf("%s: section %q stays open", s.Name, open)
			}
			if strings.Count(out, "\r") != 2*sections {
				t.Errorf("%s: %d carriage returns for %d sections", s.Name, strings.Count(out, "\r"), sections)
			}
		}
	}
}

func TestChanges(t *testing.T) {
	for _, s := range reporttest.Samples() {
		want := map[string]string{
			"changes":    `{"create":0,"update":3,"delete":1}`,
			"image-pull": `{"create":0,"update":1,"delete":0}`,
			"cancelled":  `{"create":0,"update":2,"delete":0}`,
			"prune-kept": `{"create":0,"update":0,"delete":2}`,
			"hundred":    `{"create":1640,"update":0,"delete":0}`,
			"plan":       `{"create":2,"update":2,"delete":1}`,
			"hostile":    `{"create":0,"update":1,"delete":0}`,
			"no-changes": `{"create":0,"update":0,"delete":0}`,
			"invalid":    `{"create":0,"update":0,"delete":0}`,
			"refused":    `{"create":0,"update":0,"delete":0}`,
		}[s.Name]
		var b bytes.Buffer
		if err := WriteChanges(&b, report.Summarize(s.Events...)); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSuffix(b.String(), "\n"); got != want {
			t.Errorf("%s: got %s, want %s", s.Name, got, want)
		}
	}
}
