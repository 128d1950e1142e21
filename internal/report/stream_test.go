package report_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/report"
)

// echo renders the node of NodeStarted and the minute of a tick.
type echo struct{ err error }

func (echo) Event(e event.Event) []byte { return []byte(e.(event.NodeStarted).Node + "\n") }
func (echo) Tick(now time.Time) []byte  { return fmt.Appendf(nil, "tick %d\n", now.Minute()) }
func (e echo) Err() error               { return e.err }

func started(node string) event.Event { return event.NodeStarted{Node: node} }

func TestStreamKeepsTheOrder(t *testing.T) {
	var b bytes.Buffer
	tick := make(chan time.Time)
	s := report.NewStream(&b, echo{}, tick)
	for i := range 100 {
		s.Emit(started(fmt.Sprint(i)))
	}
	// The second is taken once the first is dealt with; it may itself meet the
	// end, and is dropped then.
	for range 2 {
		tick <- time.Date(2026, 3, 2, 10, 5, 0, 0, time.UTC)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := ""
	for i := range 100 {
		want += fmt.Sprintln(i)
	}
	want += "tick 5\n"
	if !strings.HasPrefix(b.String(), want) {
		t.Errorf("got %q", b.String())
	}
}

func TestStreamAfterClose(t *testing.T) {
	var b bytes.Buffer
	s := report.NewStream(&b, echo{}, nil)
	s.Emit(started("a"))
	for range 2 {
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Emit(started("late"))
	}
	if b.String() != "a\n" {
		t.Errorf("got %q", b.String())
	}
}

// Emit returns at once though nobody reads what is written.
func TestStreamDoesNotHoldUpTheRun(t *testing.T) {
	r, w := io.Pipe()
	s := report.NewStream(w, echo{}, nil)
	for range 10000 {
		s.Emit(started("x"))
	}
	lines := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		buffer := make([]byte, 1)
		for {
			if _, err := r.Read(buffer); err != nil {
				return
			}
			if buffer[0] == '\n' {
				lines++
			}
		}
	})
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Close()
	wg.Wait()
	if lines != 10000 {
		t.Errorf("%d lines", lines)
	}
}

// count counts what it is given, so that the test sees that a failed writer
// does not stop the renderer, which may keep files.
type count struct{ events int }

func (c *count) Event(event.Event) []byte { c.events++; return []byte("x") }
func (*count) Tick(time.Time) []byte      { return nil }
func (*count) Err() error                 { return nil }

type broken struct{ writes int }

func (b *broken) Write([]byte) (int, error) { b.writes++; return 0, errors.New("broken pipe") }

func TestStreamReportsTheFirstError(t *testing.T) {
	w, r := &broken{}, &count{}
	s := report.NewStream(w, r, nil)
	for range 5 {
		s.Emit(started("a"))
	}
	if err := s.Close(t.Context()); err == nil || err.Error() != "broken pipe" {
		t.Errorf("got %v", err)
	}
	if w.writes != 1 || r.events != 5 {
		t.Errorf("%d writes, %d events rendered", w.writes, r.events)
	}
	own := errors.New("no summary")
	s = report.NewStream(io.Discard, echo{err: own}, nil)
	if err := s.Close(t.Context()); !errors.Is(err, own) {
		t.Errorf("got %v", err)
	}
}
