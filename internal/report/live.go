package report

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluicerun/sluice/internal/event"
)

// Limits of the live lines.
const (
	// widestName is how wide the column of names gets, and textWidth where
	// the column of durations starts after it.
	widestName = 36
	textWidth  = 62
	// quietHealth is the least time between two lines about the health of
	// the same object.
	quietHealth = 5 * time.Second
	// maxObjectLines is how many changed objects of one Kustomization get a
	// line of their own; the count at its end covers the others.
	maxObjectLines = 20
	// maxDeletedNames is how many deleted objects the line at the end of
	// pruning names, and maxDeletedLines how many get a line of their own.
	maxDeletedNames = 3
	maxDeletedLines = 200
	// maxFields is how many fields of an object a plan tells, and maxGate how
	// many of the objects that are waited for.
	maxFields = 20
	maxGate   = 3
)

// LiveOptions choose how much Live tells. The zero value tells changes of
// state.
type LiveOptions struct {
	// Verbose adds unchanged objects, starts and every notice.
	Verbose bool
	// Quiet leaves only the verdict. It wins over Verbose.
	Quiet bool
	// Grouped leaves out what is told about single objects while they are
	// applied, for logs in which each Kustomization gets a folded group with
	// that (see DetailLines).
	Grouped bool
}

// Live turns events into lines for people as they come. It is pure: the same
// events and ticks give the same lines. For one goroutine; make one with
// NewLive.
type Live struct {
	options LiveOptions
	fold    *Fold
	shown   map[[2]string]shownHealth
	objects map[string]int
	warned  map[Notice]bool
	done    bool
}

// shownHealth is what was last told about an object, and when.
type shownHealth struct {
	status, message string
	at              time.Time
}

// NewLive returns a Live that has seen nothing.
func NewLive(options LiveOptions) *Live {
	return &Live{options: options, fold: NewFold(), shown: map[[2]string]shownHealth{}, objects: map[string]int{}, warned: map[Notice]bool{}}
}

// Summary returns what is known so far.
func (l *Live) Summary() Summary { return l.fold.Summary() }

// Name returns the name to show for a Kustomization's id.
func (l *Live) Name(id string) string { return l.fold.name(id) }

// Row returns a copy of what is known about a Kustomization.
func (l *Live) Row(id string) Row {
	r := *l.fold.row(id)
	r.Name = l.fold.name(id)
	for _, o := range r.Objects {
		r.Counts.add(o.Action)
	}
	if p := l.fold.s.Prune; p != nil {
		for _, o := range p.Objects {
			if o.Node == id {
				r.Counts.add(o.Action)
			}
		}
	}
	r.Objects = cloneObjects(r.Objects)
	return r
}

// Event takes an event and returns the lines that it is worth.
func (l *Live) Event(e event.Event) []Line {
	l.fold.Emit(e)
	var lines []Line
	switch e := e.(type) {
	case event.RunFinished:
		lines = l.finished()
	default:
		if !l.options.Quiet {
			lines = l.progress(e)
		}
	}
	clean(lines)
	return lines
}

// progress is Event for all but the end.
func (l *Live) progress(e event.Event) []Line {
	verbose := l.options.Verbose
	switch e := e.(type) {
	case event.RunStarted:
		if verbose {
			return []Line{{Text: fmt.Sprintf("sluice %s %s %s", e.Version, e.Command, e.Repo)}}
		}
	case event.BuildsFinished:
		if c := l.fold.s.Command; c != "run" && c != "plan" { // those tell it below their header
			return l.builds()
		}
	case event.ClusterReached:
		return []Line{{Text: l.header()}}
	case event.Planned:
		return l.plan()
	case event.Notice:
		return l.notice(e)
	case event.NodeStarted:
		if verbose {
			text := "started"
			if e.Attempt > 1 {
				text = fmt.Sprintf("started, attempt %d of %d", e.Attempt, e.Attempts)
			}
			return []Line{l.node("  ", e.Node, text, Plain)}
		}
	case event.ObjectApplied:
		return l.object(e.Change)
	case event.NodeApplied:
		if verbose && e.Waiting > 0 {
			return []Line{l.node("  ", e.Node, fmt.Sprintf("applied; waiting up to %s for %s", wholeDuration(e.Timeout), count(e.Waiting, "object")), Plain)}
		}
	case event.ObjectHealth:
		return l.health(e)
	case event.NodeRetrying:
		return []Line{l.node("↻ ", e.Node, fmt.Sprintf("attempt %d failed: %s; again in %s",
			e.Attempt, FailureText(failureOf(e.Failure, e.Node)), wholeDuration(e.After)), Warn)}
	case event.NodeFinished:
		return l.nodeFinished(e)
	case event.ObjectPruned:
		// The line at the end names the first few; if there are more, each
		// gets its own, since what was deleted must not be guessed.
		p := l.fold.prune()
		if l.fold.s.Command == "destroy" {
			return l.destroyed(e.Change)
		}
		if verbose || e.Action == event.Kept || p.Planned > maxDeletedNames && len(p.Objects) <= maxDeletedLines {
			return []Line{l.named("  ", "prune", withReason(string(e.Action)+" "+e.Object, e.Reason), Plain)}
		}
	case event.PruneFinished:
		return l.pruneFinished(e)
	}
	return nil
}

// header names what is delivered where, and what is there now.
func (l *Live) header() string {
	s := &l.fold.s
	if s.Command == "destroy" {
		text := "destroy " + target(s)
		if s.Cluster.Previous != "" {
			text += " (live: " + ShortRevision(s.Cluster.Previous) + ")"
		}
		return text
	}
	return fmt.Sprintf("%s · %s → %s (%s)", s.Source.Path, ShortRevision(s.Source.Revision), ClusterName(s.Cluster), RelationText(s.Cluster))
}

func (l *Live) plan() []Line {
	p := l.fold.s.Planned
	if l.fold.s.Command == "destroy" {
		return l.condemned(p)
	}
	text := fmt.Sprintf("%s, %s: %s", count(len(l.fold.found), "Kustomization"), count(p.objects(), "object"), p)
	deferred := 0
	for _, r := range l.fold.found {
		if r.Deferred != "" {
			deferred++
		}
	}
	if deferred > 0 {
		text += fmt.Sprintf("; %s built later", count(deferred, "Kustomization"))
	}
	lines := append(l.builds(), l.timed(Line{Lead: l.lead("", "plan"), Text: text}, time.Duration(l.fold.s.PlanDuration)))
	if l.fold.s.Command == "plan" {
		return append(lines, l.preview(p)...)
	}
	if !l.options.Verbose {
		return lines
	}
	for _, o := range p.Changes {
		lines = append(lines, l.node("  ", o.Node, withReason(string(o.Action)+" "+o.Object, o.Reason), Plain))
	}
	return lines
}

// builds tells what the cache of builds was good for.
func (l *Live) builds() []Line {
	if l.fold.s.Builds == nil {
		return nil
	}
	return []Line{{Lead: l.lead("", "builds"), Text: l.fold.s.Builds.String()}}
}

// notice tells a warning once; the others are told when asked for.
func (l *Live) notice(e event.Notice) []Line {
	key := Notice{Level: e.Level, Code: e.Code, Text: e.Text, Hint: e.Hint, Node: e.Node, Object: e.Object, File: e.File, Line: e.Line}
	if !l.options.Verbose && (e.Level != event.Warning || l.warned[key] || l.fold.s.Command == "graph") {
		return nil
	}
	l.warned[key] = true
	lead, tone := "  note: ", Dim
	if e.Level == event.Warning {
		lead, tone = "! warning: ", Warn
	}
	lines := []Line{{Lead: lead, Text: NoticeText(key, l.fold.name), Tone: tone}}
	if e.Hint != "" {
		lines = append(lines, Line{Lead: "  hint: ", Text: e.Hint, Tone: Dim})
	}
	return lines
}

// NoticeText is a notice in one line with what it is about; the hint is left
// out.
func NoticeText(n Notice, name func(id string) string) string {
	var about []string
	if n.Node != "" && !strings.Contains(n.Text, n.Node) {
		about = append(about, name(n.Node))
	}
	if n.Object != "" && !strings.Contains(n.Text, n.Object) {
		about = append(about, n.Object)
	}
	if n.File != "" && !strings.Contains(n.Text, n.File) {
		about = append(about, Where(n.File, n.Line))
	}
	if len(about) == 0 {
		return n.Text
	}
	return fmt.Sprintf("%s (%s)", n.Text, strings.Join(about, ", "))
}

// object tells a change, and with Verbose also what stayed.
func (l *Live) object(c event.Change) []Line {
	if l.options.Grouped {
		return nil
	}
	if !l.options.Verbose {
		if !wrote(c.Action) || l.objects[c.Node] == maxObjectLines {
			return nil
		}
		l.objects[c.Node]++
	}
	return []Line{l.node("  ", c.Node, withReason(string(c.Action)+" "+c.Object, c.Reason), Plain)}
}

func withReason(text, reason string) string {
	if reason == "" {
		return text
	}
	return text + ": " + reason
}

// health tells what an object that is waited for is doing, when that changed
// and not too often; that it became ready is told with its Kustomization.
func (l *Live) health(e event.ObjectHealth) []Line {
	key := [2]string{e.Node, e.Object}
	last, known := l.shown[key]
	if known && last.status == e.Status && last.message == e.Message {
		return nil
	}
	switch e.Status {
	case "Failed":
	case "InProgress", "Terminating":
		if e.Message == "" || known && last.status == e.Status && e.Time.Sub(last.at) < quietHealth && !l.options.Verbose {
			return nil
		}
	default:
		if !l.options.Verbose {
			return nil
		}
	}
	l.shown[key] = shownHealth{e.Status, e.Message, e.Time}
	text := e.Message
	if e.Status != "InProgress" {
		text = withReason(e.Status, e.Message)
	}
	return []Line{l.node("  ", e.Node, e.Object+": "+text, Plain)}
}

func (l *Live) nodeFinished(e event.NodeFinished) []Line {
	r := l.Row(e.Node)
	text := RowText(&r, l.fold.name)
	if c := l.fold.s.Command; c == "graph" || c == "status" || l.fold.s.Preview() && l.fold.s.Planned != nil {
		return nil // it is in the picture, or in the plan
	}
	switch e.Result {
	case event.Ready, event.ResultDestroyed:
		return []Line{l.timed(l.node("✓ ", e.Node, text, Good), e.Duration)}
	case event.Failed, event.Unhealthy:
		return []Line{l.timed(l.node("✗ ", e.Node, text, Bad), e.Duration)}
	case event.Cancelled:
		if !r.begun && !l.options.Verbose {
			return nil
		}
		return []Line{l.timed(l.node("✗ ", e.Node, text, Warn), e.Duration)}
	case event.ResultValid:
		if l.fold.s.Command != "check" {
			return nil
		}
		return []Line{l.node("✓ ", e.Node, text, Good)}
	case event.ResultPlanned:
		return nil // the plan says more
	case event.Excluded:
		if !l.options.Verbose {
			return nil
		}
	}
	return []Line{l.node("- ", e.Node, text, Warn)}
}

func (l *Live) pruneFinished(e event.PruneFinished) []Line {
	if l.fold.s.Command == "destroy" {
		return nil // each Kustomization has told its part
	}
	var c Counts
	var deleted []string
	for _, o := range l.fold.prune().Objects {
		c.add(o.Action)
		if o.Action == event.Deleted {
			deleted = append(deleted, o.Object)
		}
	}
	text := joinCounts([]counted{{c.Deleted, "deleted"}, {c.Kept, "kept"}})
	if text == "" {
		text = "nothing deleted"
	}
	if len(deleted) > 0 {
		text += ": " + List(deleted, maxDeletedNames)
	}
	if len(e.Failures) > 0 {
		text = "failed: " + FailureText(failureOf(e.Failures[0], "")) + "; " + text
		return []Line{l.timed(l.named("✗ ", "prune", text, Bad), e.Duration)}
	}
	return []Line{l.timed(l.named("✓ ", "prune", text, Good), e.Duration)}
}

// DetailLines tells everything about a Kustomization that came to its end, for
// a folded group, or nothing if there is no more to tell than its line does.
func (l *Live) DetailLines(id string) []Line {
	if l.options.Quiet {
		return nil
	}
	r := l.Row(id)
	var lines []Line
	for _, o := range r.Objects {
		healthy := o.Health == "" || o.Health == "Current"
		if o.Action == event.Unchanged && healthy && !l.options.Verbose || o.Action == "" && healthy {
			continue
		}
		text := o.Object
		if o.Action != "" {
			text = withReason(string(o.Action)+" "+o.Object, o.Reason)
		}
		if !healthy {
			text += fmt.Sprintf(" [%s]", strings.TrimSuffix(o.Health+": "+o.Message, ": "))
		}
		lines = append(lines, Line{Text: "  " + text})
		for _, i := range o.Images {
			lines = append(lines, Line{Text: "    " + i.Container + ": " + ImageText(Image{Old: i.Old, New: i.New})})
		}
	}
	for _, f := range r.Failures {
		lines = append(lines, Line{Lead: "  " + f.Phase + " failed: ", Text: FailureText(f), Tone: Bad})
		lines = append(lines, failureLines(f)...)
		if f.Hint != "" {
			lines = append(lines, field("next", f.Hint))
		}
	}
	clean(lines)
	return lines
}

// DetailTitle is the heading of that group.
func (l *Live) DetailTitle(id string) string {
	r := l.Row(id)
	title := r.Name + ": " + r.State.Verdict()
	if r.Counts != (Counts{}) {
		title += ", " + r.Counts.String()
	}
	return Clean(title)
}

// finished tells the end: the table, if there is something to see in it, and
// the verdict.
func (l *Live) finished() []Line {
	l.done = true
	s := l.fold.Summary()
	if (s.Command == "build" || s.Command == "graph" || s.Command == "status") && s.Result == OutcomeSuccess {
		return nil // what was asked for is its own answer
	}
	var lines []Line
	if !l.options.Quiet && s.Command != "destroy" && (s.Changed && !s.Preview() || s.Result == OutcomeFailed || s.Result == OutcomeUnhealthy) {
		lines = append(append([]Line{{}}, TableLines(&s)...), Line{})
	}
	return append(lines, VerdictLines(&s)...)
}

// node is a line about a Kustomization.
func (l *Live) node(mark, id, text string, tone Tone) Line {
	return l.named(mark, l.fold.name(id), text, tone)
}

func (l *Live) named(mark, name, text string, tone Tone) Line {
	return Line{Lead: l.lead(mark, name), Text: text, Tone: tone}
}

// lead is mark and name, padded to the column of the text.
func (l *Live) lead(mark, name string) string {
	return pad(mark+name, l.nameWidth()+2) + "  "
}

// nameWidth is the width of the longest name, within bounds.
func (l *Live) nameWidth() int {
	width := len("prune")
	for _, r := range l.fold.found {
		width = max(width, utf8.RuneCountInString(l.fold.name(r.ID)))
	}
	return min(width, widestName)
}

// timed puts a duration in its column at the end of a line, if the text
// leaves room for the column.
func (l *Live) timed(line Line, d time.Duration) Line {
	line.Text = pad(Clean(line.Text), textWidth) + fmt.Sprintf("  %7s", FormatDuration(d))
	return line
}
