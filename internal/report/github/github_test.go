package github

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/golden"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/report/reporttest"
)

// counter is a source of bytes that is the same each time.
type counter struct{ n byte }

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		c.n++
		p[i] = c.n
	}
	return len(p), nil
}

// headline stands in for the Markdown rendering.
func headline(s report.Summary, limit int) []byte {
	return []byte(string(s.Result) + ": " + s.Headline + "\n")
}

func render(t *testing.T, s reporttest.Sample, o Options) (log []byte, dir string) {
	t.Helper()
	dir = t.TempDir()
	o.SummaryPath, o.OutputPath, o.Markdown = filepath.Join(dir, "summary"), filepath.Join(dir, "output"), headline
	o.Random = &counter{}
	r := New(o)
	var b bytes.Buffer
	for _, e := range s.Events {
		b.Write(r.Event(e))
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), dir
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLog(t *testing.T) {
	for _, s := range reporttest.Samples() {
		t.Run(s.Name, func(t *testing.T) {
			log, _ := render(t, s, Options{})
			golden.Assert(t, ".txt", log)
		})
	}
}

func TestOutputs(t *testing.T) {
	for _, s := range reporttest.Samples() {
		t.Run(s.Name, func(t *testing.T) {
			_, dir := render(t, s, Options{ReportPath: "out/report.json"})
			output := strings.ReplaceAll(read(t, dir, "output"), dir, "/temp")
			golden.Assert(t, ".txt", []byte(output))
		})
	}
}

// command is what the runner takes for one: either form.
var command = regexp.MustCompile(`^\s*::([a-z-]+)( [^:]*)?::|##\[`)

// Whatever a sample holds, the log has only the commands that this package
// writes, and groups are closed before the next opens.
func TestNoForeignCommands(t *testing.T) {
	own := regexp.MustCompile(`^::(group|error|warning)( [a-z]+=[^:]*)?::[^\r]*$|^::endgroup::$`)
	for _, s := range reporttest.Samples() {
		for _, o := range []Options{{}, {Color: true}, {Live: report.LiveOptions{Verbose: true}}, {Live: report.LiveOptions{Quiet: true}}} {
			log, _ := render(t, s, o)
			open := false
			for _, line := range regexp.MustCompile(`\r\n|\r|\n`).Split(string(log), -1) {
				if !command.MatchString(line) {
					continue
				}
				if !own.MatchString(line) {
					t.Errorf("%s: foreign command in %q", s.Name, line)
				}
				if group := strings.HasPrefix(line, "::group::"); group || line == "::endgroup::" {
					if open == group {
						t.Errorf("%s: groups are nested or not open at %q", s.Name, line)
					}
					open = group
				}
			}
			if open {
				t.Errorf("%s: a group stays open", s.Name)
			}
		}
	}
}

func FuzzProtect(f *testing.F) {
	for _, seed := range []string{"::error::x", " \t::error::x", "a ##[x", "####[[", "\u00a0::x::", "\ufeff::x::", "## [", "##\x00["} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := protect(report.Clean(text))
		trimmed := strings.TrimLeft(got, " \t\v\f\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff\u200b")
		if strings.HasPrefix(trimmed, "::") || strings.Contains(got, "##[") || strings.ContainsAny(got, "\r\n") {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// At most ten errors and ten warnings, each within GitHub's limit.
func TestAnnotationLimits(t *testing.T) {
	log, _ := render(t, reporttest.Sample{Name: "hundred", Events: reporttest.Hundred()}, Options{})
	errors := regexp.MustCompile(`(?m)^::error .*$`).FindAllString(string(log), -1)
	if len(errors) != 10 || !strings.Contains(errors[9], "and 4 more failures") {
		t.Errorf("%d errors, the last %q", len(errors), errors[len(errors)-1])
	}
	long := event.Failure{Reason: "Long", Text: strings.Repeat("é", 3000), Logs: []string{strings.Repeat("x", 5000)}}
	var warnings []event.Event
	for i := range 12 {
		warnings = append(warnings, event.Notice{Level: event.Warning, Code: "many", Text: strings.Repeat("w", i+1)})
	}
	events := append([]event.Event{event.RunStarted{Command: "run"}}, warnings...)
	log, _ = render(t, reporttest.Sample{Events: append(events, event.RunFinished{Verdict: event.VerdictFailed, Failures: []event.Failure{long}})}, Options{})
	for _, line := range regexp.MustCompile(`(?m)^::error .*$`).FindAllString(string(log), -1) {
		if len(line) > 4096+200 {
			t.Errorf("an annotation of %d bytes", len(line))
		}
	}
	found := regexp.MustCompile(`(?m)^::warning .*$`).FindAllString(string(log), -1)
	if len(found) != 10 || !strings.Contains(found[9], "and 3 more warnings") {
		t.Errorf("%d warnings, the last %q", len(found), found[len(found)-1])
	}
}

// The summary is there as soon as the plan is, follows the run, and is whole
// after the end; the first text does not shine through a shorter one.
func TestSummaryIsRewritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "summary")
	if err := os.WriteFile(path, bytes.Repeat([]byte("old "), 100), 0o644); err != nil {
		t.Fatal(err)
	}
	r := New(Options{SummaryPath: path, Markdown: headline})
	var seen []string
	for _, e := range reporttest.Changes() {
		r.Event(e)
		if text := read(t, path); !strings.HasPrefix(text, "old") && (len(seen) == 0 || seen[len(seen)-1] != text) {
			seen = append(seen, text)
			if len(seen) == 1 && e.Type() != "planned" {
				t.Errorf("first written at %q", e.Type())
			}
		}
		if e.Type() == "node-applied" && e.(event.NodeApplied).Waiting > 0 {
			r.Tick(e.When().Add(3 * time.Second))
			seen = append(seen, read(t, path))
		}
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"running: main@4f2c1d9 on prod-eu: 0 of 6 Kustomizations done\n",
		"running: main@4f2c1d9 on prod-eu: 3 of 6 Kustomizations done\n",
		"running: main@4f2c1d9 on prod-eu: 4 of 6 Kustomizations done\n",
	}
	if got := seen[:len(seen)-1]; strings.Join(got, "") != strings.Join(want, "") {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if last := seen[len(seen)-1]; !strings.HasPrefix(last, "success: main@4f2c1d9 on prod-eu: 2 configured") {
		t.Errorf("at the end %q", last)
	}
}

// Every output is documented, in the order in which it is written.
func TestOutputsAreDocumented(t *testing.T) {
	docs := read(t, "../../../docs/reports.md")
	last := 0
	for _, name := range OutputNames {
		at := strings.Index(docs, "\n| `"+name+"` |")
		if at < last {
			t.Errorf("docs/reports.md does not describe the output %q in its place", name)
		}
		last = max(last, at)
	}
}

// What cannot be written is an error at the end and costs no log line.
func TestUnwritableFiles(t *testing.T) {
	dir := t.TempDir() // a folder is no file
	for _, o := range []Options{{SummaryPath: dir, Markdown: headline}, {OutputPath: dir, Random: rand.Reader}} {
		r := New(o)
		var b bytes.Buffer
		for _, e := range reporttest.NoChanges() {
			b.Write(r.Event(e))
		}
		if r.Err() == nil || !strings.Contains(r.Err().Error(), dir) {
			t.Errorf("got error %v", r.Err())
		}
		if !strings.Contains(b.String(), "LIVE") {
			t.Error("no verdict in the log")
		}
	}
}

// A value that looks like the end of an output does not make another one, and
// delimiters never repeat.
func TestWriteOutputsCannotBeInjected(t *testing.T) {
	hostile := "x\nEOF\n_GitHubActionsFileCommandDelimeter_\nsluice_\nresult=success\nevil<<EOF\n1\nEOF"
	var b bytes.Buffer
	if err := WriteOutputs(&b, []Output{{"failed-names", hostile}, {"revision", "main"}}, rand.Reader); err != nil {
		t.Fatal(err)
	}
	got := parse(t, b.String())
	if len(got) != 2 || got["failed-names"] != hostile || got["revision"] != "main" {
		t.Errorf("got %q", got)
	}
	delimiters := regexp.MustCompile(`<<(sluice_[0-9a-f]{32})\n`).FindAllStringSubmatch(b.String(), -1)
	if len(delimiters) != 2 || delimiters[0][1] == delimiters[1][1] {
		t.Errorf("delimiters %q", delimiters)
	}
	first := "sluice_0102030405060708090a0b0c0d0e0f10"
	if err := WriteOutputs(&b, []Output{{"revision", "a\n" + first}}, &counter{}); err == nil {
		t.Error("a value with its own delimiter was written")
	}
}

// parse reads outputs as the runner does.
func parse(t *testing.T, text string) map[string]string {
	t.Helper()
	out := map[string]string{}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		name, delimiter, ok := strings.Cut(lines[i], "<<")
		if !ok {
			t.Fatalf("line %d: %q", i, lines[i])
		}
		var value []string
		for i++; lines[i] != delimiter; i++ {
			value = append(value, lines[i])
		}
		out[name] = strings.Join(value, "\n")
	}
	return out
}

// Secrets are masked before the next line, except those that an output shows.
func TestMask(t *testing.T) {
	r := New(Options{})
	events := reporttest.NoChanges()
	r.Event(events[0])
	r.Event(events[1])
	r.Mask("hunter22")
	r.Mask("line one%\nline two")
	r.Mask("4f2c1d9a") // part of the revision
	got := string(r.Event(events[2]))
	if want := "::add-mask::hunter22\n::add-mask::line one%25%0Aline two\n"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := r.Event(events[3]); len(got) > 0 {
		t.Errorf("masked again: %q", got)
	}
}
