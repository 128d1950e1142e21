// Package terminal renders a run for people: on a terminal, with or without
// colour, and in the plain log of a CI system that has no format of its own.
//
// The lines are those of report.Live; what this package adds is colour. There
// is no cursor movement and no line is ever rewritten, so the output reads
// the same in a terminal, a file and a job's log.
package terminal

import (
	"bytes"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/report"
)

// Options choose what is shown. The zero value is plain text with changes of
// state.
type Options struct {
	// Color turns ANSI colours on. Whether the stream is a terminal, and
	// what NO_COLOR and --no-color say, is the caller's to decide.
	Color bool
	// Live chooses how much is told.
	Live report.LiveOptions
}

// Renderer is the report.Renderer for people. Make one with New.
type Renderer struct {
	live  *report.Live
	color bool
}

// New returns a Renderer for one run.
func New(options Options) *Renderer {
	return &Renderer{live: report.NewLive(options.Live), color: options.Color}
}

// Event returns the lines for an event.
func (r *Renderer) Event(e event.Event) []byte { return r.lines(r.live.Event(e)) }

// Tick returns the heartbeat's line.
func (r *Renderer) Tick(now time.Time) []byte { return r.lines(r.live.Tick(now)) }

// Err returns nil: there is nothing here that can fail.
func (r *Renderer) Err() error { return nil }

func (r *Renderer) lines(lines []report.Line) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		if r.color {
			b.WriteString(l.Colored())
		} else {
			b.WriteString(l.String())
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}
