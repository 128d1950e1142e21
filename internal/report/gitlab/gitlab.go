// Package gitlab renders a run for GitLab CI: the job's log with a collapsed
// section for each Kustomization, and the file of the merge request's
// "changes" widget.
//
// A section is opened and closed by escape sequences of GitLab's own. Foreign
// text cannot make one, because report.Clean takes escape characters and
// carriage returns out of every line. The log is cut by the runner at 4 MB
// unless it is told otherwise, so single objects are told in sections only
// and the lines are bounded.
package gitlab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/report"
)

// Options choose what the log shows.
type Options struct {
	// Color turns ANSI colours on; GitLab shows them.
	Color bool
	// Live chooses how much is told. Sections are always on.
	Live report.LiveOptions
}

// Renderer is the report.Renderer for GitLab's job log. Make one with New.
type Renderer struct {
	live  *report.Live
	color bool
}

// New returns a Renderer for one run.
func New(options Options) *Renderer {
	options.Live.Grouped = true
	return &Renderer{live: report.NewLive(options.Live), color: options.Color}
}

// Event returns the log lines for an event.
func (r *Renderer) Event(e event.Event) []byte {
	out := r.lines(r.live.Event(e))
	if e, ok := e.(event.NodeFinished); ok {
		out = append(out, r.section(e)...)
	}
	return out
}

// Tick returns the heartbeat.
func (r *Renderer) Tick(now time.Time) []byte { return r.lines(r.live.Tick(now)) }

// Err returns nil: there is nothing here that can fail.
func (r *Renderer) Err() error { return nil }

func (r *Renderer) lines(lines []report.Line) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		text := l.String()
		if r.color {
			text = l.Colored()
		}
		b.WriteString(text)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// section is a collapsed section with the details of a Kustomization that
// came to its end. It is written at once, so that sections of Kustomizations
// that run side by side do not mix; its times are those of the Kustomization,
// so GitLab shows how long that took.
func (r *Renderer) section(e event.NodeFinished) []byte {
	lines := r.live.DetailLines(e.Node)
	if len(lines) == 0 {
		return nil
	}
	name := sectionName(e.Node)
	var b bytes.Buffer
	fmt.Fprintf(&b, "\x1b[0Ksection_start:%d:%s[collapsed=true]\r\x1b[0K%s\n",
		e.Time.Add(-e.Duration).Unix(), name, r.live.DetailTitle(e.Node))
	b.Write(r.lines(lines))
	fmt.Fprintf(&b, "\x1b[0Ksection_end:%d:%s\r\x1b[0K\n", e.Time.Unix(), name)
	return b.Bytes()
}

// sectionName makes the name of a section from an id; letters, digits, "_",
// "." and "-" are allowed.
func sectionName(id string) string {
	return "sluice_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		}
		return '_'
	}, id)
}

// Changes is the content of the file for artifacts:reports:terraform.
type Changes struct {
	Create int `json:"create"`
	Update int `json:"update"`
	Delete int `json:"delete"`
}

// ChangesOf counts what a run changed, or what a plan would change. What can
// only be judged later counts as created, since its namespace or its kind is
// not there yet.
func ChangesOf(s *report.Summary) Changes {
	if s.Preview() {
		if s.Planned == nil {
			return Changes{}
		}
		return Changes{Create: s.Planned.Create + s.Planned.Later, Update: s.Planned.Configure + s.Planned.Recreate, Delete: s.Planned.Delete}
	}
	return Changes{Create: s.Counts.Created, Update: s.Counts.Configured + s.Counts.Recreated, Delete: s.Counts.Deleted}
}

// WriteChanges writes the file that GitLab's merge request widget reads: "N to
// add, N to change, N to delete".
func WriteChanges(w io.Writer, s report.Summary) error {
	line, err := json.Marshal(ChangesOf(&s))
	if err == nil {
		_, err = w.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write GitLab's changes report: %w", err)
	}
	return nil
}
