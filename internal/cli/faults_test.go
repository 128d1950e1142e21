package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/run"
)

// A fault in one report costs this one alone: the others are written, the exit code
// is not 0, and where it happened is told, without any secret.
func TestFaultInAReport(t *testing.T) {
	formats := reportFormats
	t.Cleanup(func() { reportFormats = formats })
	reportFormats = map[string]func(io.Writer, report.Summary) error{
		"junit": func(io.Writer, report.Summary) error { panic("cannot render hunter2-hunter2") },
		"json":  formats["json"],
	}
	dir := t.TempDir()
	var out, errs bytes.Buffer
	o := run.Options{Command: run.CommandCheck, Timeout: 1e12, Offline: true}
	o.Source.Repo, o.Source.Auth.Token = filepath.Join(dir, "no-repository"), "hunter2-hunter2"
	to := output{format: "text", log: &out, sys: System{Getenv: os.Getenv, Stderr: &errs},
		reports: []reportFile{{"junit", filepath.Join(dir, "junit.xml")}, {"json", filepath.Join(dir, "report.json")}}}
	if _, _, code := execute(t.Context(), o, to, to.sys); code != 3 {
		t.Errorf("exit code %d: a run that has failed keeps its own", code)
	}
	if _, err := os.Stat(filepath.Join(dir, "report.json")); err != nil {
		t.Errorf("the other report: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "junit.xml")); err == nil {
		t.Error("there is a report that could not be made")
	}
	for _, want := range []string{"--report junit=", "internal error: cannot render", "cli.TestFaultInAReport", "faults_test.go:"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("%q is not told:\n%s", want, errs.String())
		}
	}
	if strings.Contains(errs.String(), "hunter2") {
		t.Errorf("a secret is told:\n%s", errs.String())
	}
	if got := unwritten(0); got != 1 {
		t.Errorf("after success the exit code is %d", got)
	}
}

// A fault of what takes the events does not reach the run.
func TestFaultInASink(t *testing.T) {
	taken := 0
	s := &tolerant{next: event.SinkFunc(func(event.Event) {
		if taken++; taken == 2 {
			panic("injected")
		}
	})}
	for range 3 {
		s.Emit(event.Notice{})
	}
	if taken != 3 || !isFault(s.err) {
		t.Errorf("%d events taken, %v", taken, s.err)
	}
}
