// Package github renders a run for GitHub Actions: the job's log with a
// folded group for each Kustomization, annotations, the step summary and the
// step's outputs.
//
// The runner takes commands from the log: a line that starts with "::" after
// blanks, and "##[" anywhere in a line. Pod logs, events and messages of the
// API server are foreign text and could set masks, raise errors or open
// groups, so both sequences are broken up in every line that is not a command
// of ours.
//
// The library go-githubactions writes masks, groups and annotations, whose
// escaping it has right. Summary and outputs are written here, because the
// library can only append to them and uses a fixed delimiter, which a value
// could contain and so set further outputs.
package github

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/sethvargo/go-githubactions"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/report"
)

// SummaryLimit is the size of a step summary in bytes. GitHub refuses more
// than 1 MiB as a whole.
const SummaryLimit = 900 << 10

// rewriteAfter is the least time between two writes of the summary while the
// run goes on.
const rewriteAfter = 2 * time.Second

// Options say where a run's reports go. Paths that are empty are not written.
type Options struct {
	// Live chooses how much the log tells. Groups are always on.
	Live report.LiveOptions
	// Color turns ANSI colours on; GitHub shows them.
	Color bool
	// SummaryPath is the value of GITHUB_STEP_SUMMARY. The file belongs to
	// the step: it is written as soon as the plan is known and rewritten as
	// the run goes on, so that a killed run leaves its last state.
	SummaryPath string
	// Markdown renders the step summary in at most limit bytes.
	Markdown func(s report.Summary, limit int) []byte
	// OutputPath is the value of GITHUB_OUTPUT.
	OutputPath string
	// ReportPath is where the JSON report goes, for the output of that name.
	ReportPath string
	// Random is where delimiters come from; it must not be predictable
	// (crypto/rand.Reader).
	Random io.Reader
}

// Renderer is the report.Renderer for GitHub Actions. Mask is safe for
// concurrent use, the rest is for one goroutine. Make one with New.
type Renderer struct {
	options Options
	live    *report.Live
	written time.Time
	err     error

	mu    sync.Mutex
	masks []string
}

// New returns a Renderer for one run.
func New(options Options) *Renderer {
	options.Live.Grouped = true
	return &Renderer{options: options, live: report.NewLive(options.Live)}
}

// Event returns the log lines for an event and keeps summary and outputs up
// to date.
func (r *Renderer) Event(e event.Event) []byte {
	var b bytes.Buffer
	b.Write(r.maskCommands())
	lines := r.live.Event(e)
	if e, ok := e.(event.RunFinished); ok {
		s := r.live.Summary()
		b.Write(r.annotations(&s))
		b.Write(r.lines(lines))
		r.writeSummary(s, e.Time)
		r.writeOutputs(&s)
		return b.Bytes()
	}
	b.Write(r.lines(lines))
	switch e := e.(type) {
	case event.Planned:
		r.writeSummary(r.live.Summary(), e.Time)
	case event.NodeFinished:
		b.Write(r.group(e.Node))
		r.rewriteSummary(e.Time)
	case event.PruneFinished:
		r.rewriteSummary(e.Time)
	}
	return b.Bytes()
}

// Tick returns the heartbeat and brings the summary up to date.
func (r *Renderer) Tick(now time.Time) []byte {
	lines := r.live.Tick(now)
	if len(lines) > 0 && !r.written.IsZero() {
		r.writeSummary(r.live.Summary(), now)
	}
	return append(r.maskCommands(), r.lines(lines)...)
}

// Err returns the first error of writing the summary or the outputs.
func (r *Renderer) Err() error { return r.err }

// lines makes log lines that the runner does not take for commands.
func (r *Renderer) lines(lines []report.Line) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		// Each part on its own as well, since a colour's end could stand
		// between them, and then the whole.
		l.Lead, l.Text = protect(l.Lead), protect(l.Text)
		text := l.String()
		if r.options.Color {
			text = l.Colored()
		}
		b.WriteString(protect(text))
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// protect breaks up what the runner would take for a command: "::" at the
// start of a line, after anything that it might trim, and "##[" anywhere.
func protect(line string) string {
	for strings.Contains(line, "##[") {
		line = strings.ReplaceAll(line, "##[", "## [")
	}
	start := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsSpace(r) && unicode.IsGraphic(r) })
	if start >= 0 && strings.HasPrefix(line[start:], "::") {
		line = line[:start] + ": :" + line[start+2:]
	}
	return line
}

// group folds the details of a Kustomization.
func (r *Renderer) group(id string) []byte {
	lines := r.live.DetailLines(id)
	if len(lines) == 0 {
		return nil
	}
	var b bytes.Buffer
	b.Write(r.command(nil, func(a *githubactions.Action) { a.Group(protect(r.live.DetailTitle(id))) }))
	b.Write(r.lines(lines))
	b.Write(r.command(nil, func(a *githubactions.Action) { a.EndGroup() }))
	return b.Bytes()
}

// command returns what the library writes. A panic of the library, which it
// has for what cannot be written, becomes an error: a report must not end a
// delivery.
func (r *Renderer) command(fields map[string]string, issue func(*githubactions.Action)) (out []byte) {
	var b bytes.Buffer
	defer func() {
		if p := recover(); p != nil {
			r.fail(fmt.Errorf("write a workflow command: %v", p))
			out = nil
		}
	}()
	noEnvironment := githubactions.WithGetenv(func(string) string { return "" })
	a := githubactions.New(githubactions.WithWriter(&b), noEnvironment)
	issue(a.WithFieldsMap(fields))
	return b.Bytes()
}

func (r *Renderer) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// rewriteSummary writes the summary again if the last time is a while ago.
func (r *Renderer) rewriteSummary(now time.Time) {
	if !r.written.IsZero() && now.Sub(r.written) >= rewriteAfter {
		r.writeSummary(r.live.Summary(), now)
	}
}

// writeSummary replaces the content of the summary's file.
func (r *Renderer) writeSummary(s report.Summary, now time.Time) {
	r.written = now
	if r.options.SummaryPath == "" || r.options.Markdown == nil {
		return
	}
	if err := os.WriteFile(r.options.SummaryPath, r.options.Markdown(s, SummaryLimit), 0o644); err != nil {
		r.fail(fmt.Errorf("write the step summary: %w", err))
	}
}

// writeOutputs appends to the outputs' file.
func (r *Renderer) writeOutputs(s *report.Summary) {
	if r.options.OutputPath == "" {
		return
	}
	file, err := os.OpenFile(r.options.OutputPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		r.fail(fmt.Errorf("write the step's outputs: %w", err))
		return
	}
	err = WriteOutputs(file, Outputs(s, r.options.ReportPath, r.options.SummaryPath), r.options.Random)
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		r.fail(fmt.Errorf("write the step's outputs: %w", err))
	}
}

// Mask tells the runner to mask a value in the log from the next line on, in
// this step and in those after it. It is meant for redact.Set.OnLearn, which
// leaves out what is too common to mask and short lines. What is part of an output is left
// out here, because the runner drops a job's output that holds a masked
// value.
func (r *Renderer) Mask(value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.masks = append(r.masks, value)
}

// maskCommands are the commands for the values that came since the last call.
func (r *Renderer) maskCommands() []byte {
	r.mu.Lock()
	masks := r.masks
	r.masks = nil
	r.mu.Unlock()
	if len(masks) == 0 {
		return nil
	}
	s := r.live.Summary()
	outputs := []string{s.Source.Revision, r.options.ReportPath, r.options.SummaryPath}
	for _, row := range s.Rows {
		outputs = append(outputs, row.ID)
	}
	all := strings.Join(outputs, "\n")
	var b bytes.Buffer
	for _, value := range masks {
		if !strings.Contains(all, value) {
			b.Write(r.command(nil, func(a *githubactions.Action) { a.AddMask(value) }))
		}
	}
	return b.Bytes()
}
