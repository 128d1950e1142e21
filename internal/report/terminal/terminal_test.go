package terminal

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/golden"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/report/reporttest"
)

// render feeds a sample through a Renderer, as a Stream would.
func render(s reporttest.Sample, o Options) []byte {
	r := New(o)
	var b bytes.Buffer
	for _, e := range s.Events {
		b.Write(r.Event(e))
	}
	return b.Bytes()
}

func TestPlain(t *testing.T) {
	for _, s := range reporttest.Samples() {
		t.Run(s.Name, func(t *testing.T) { golden.Assert(t, ".txt", render(s, Options{})) })
	}
}

func TestVerbose(t *testing.T) {
	for _, s := range reporttest.Samples() {
		if s.Name == "hundred" {
			continue // two thousand lines that show nothing new
		}
		t.Run(s.Name, func(t *testing.T) {
			golden.Assert(t, ".txt", render(s, Options{Live: report.LiveOptions{Verbose: true}}))
		})
	}
}

func TestQuiet(t *testing.T) {
	for _, s := range reporttest.Samples() {
		t.Run(s.Name, func(t *testing.T) {
			golden.Assert(t, ".txt", render(s, Options{Live: report.LiveOptions{Quiet: true}}))
		})
	}
}

// Colour adds escape sequences and changes nothing else; without it there are
// none, whatever the foreign text holds.
func TestColor(t *testing.T) {
	for _, s := range reporttest.Samples() {
		plain, colored := string(render(s, Options{})), string(render(s, Options{Color: true}))
		if strings.ContainsRune(plain, '\x1b') {
			t.Errorf("%s: plain output holds an escape sequence", s.Name)
		}
		if !strings.Contains(colored, "\x1b[") {
			t.Errorf("%s: coloured output holds no escape sequence", s.Name)
		}
		for _, c := range []string{"\x1b[0m", "\x1b[32m", "\x1b[1;31m", "\x1b[33m", "\x1b[2m"} {
			colored = strings.ReplaceAll(colored, c, "")
		}
		if colored != plain {
			t.Errorf("%s: colour changes more than colour", s.Name)
		}
	}
}

// The heartbeat says at any moment what is waited for.
func TestHeartbeat(t *testing.T) {
	r := New(Options{})
	var b bytes.Buffer
	changes := reporttest.Changes()
	if len(r.Tick(reporttest.Start)) != 0 {
		t.Error("a heartbeat before the run started")
	}
	for _, e := range changes {
		b.Write(r.Event(e))
		b.Write(r.Tick(e.When().Add(time.Minute)))
	}
	golden.Assert(t, ".txt", b.Bytes())
	if len(r.Tick(reporttest.Start.Add(time.Hour))) != 0 {
		t.Error("a heartbeat after the end")
	}
}
