package report

import (
	"fmt"
	"strings"
)

// How much of each kind a verdict shows before it counts the rest.
const (
	maxBlocks   = 5  // failures told in full
	maxProblems = 25 // failures told in a line or two
	maxEvents   = 5
	maxLogs     = 20
	maxChanged  = 8
	maxImages   = 10
)

// Label is the verdict in capitals: LIVE, NOT LIVE, REFUSED, CANCELLED, for what
// is not meant to be live PLAN, VALID, INVALID, DESTROYED or NOT DESTROYED, and
// RUNNING while it is open.
func (s *Summary) Label() string {
	switch s.Result {
	case OutcomeRunning:
		return "RUNNING"
	case OutcomeRefused:
		return "REFUSED"
	case OutcomeCancelled:
		return "CANCELLED"
	}
	success := s.Result == OutcomeSuccess || s.Result == OutcomeNoChanges
	switch {
	case s.Preview() && success:
		return "PLAN"
	case s.Command != "run" && s.Result == OutcomeInvalid:
		return "INVALID"
	case s.offline() && success:
		return "VALID"
	case s.Command == "destroy" && success:
		return "DESTROYED"
	case s.Command == "destroy":
		return "NOT DESTROYED"
	case success:
		return "LIVE"
	}
	return "NOT LIVE"
}

// offline reports whether the command is not about bringing something into a
// cluster: it judges the repository alone, or tells what is there.
func (s *Summary) offline() bool {
	return s.Command == "check" || s.Command == "build" || s.Command == "graph" || s.Command == "status"
}

// headline is the verdict in one sentence, without its label.
func headline(s *Summary) string {
	switch s.Result {
	case OutcomeRunning:
		if s.Planned == nil {
			return target(s) + ": planning"
		}
		done := 0
		for _, r := range s.Rows {
			if r.ended {
				done++
			}
		}
		return fmt.Sprintf("%s: %d of %s done", target(s), done, count(len(s.Rows), "Kustomization"))
	case OutcomeSuccess, OutcomeNoChanges:
		return successHeadline(s)
	case OutcomeCancelled:
		text := fmt.Sprintf("after %s: ", s.Duration)
		if !s.Changed {
			return text + "nothing was changed"
		}
		if s.Command == "destroy" {
			return text + target(s) + " is only partly destroyed"
		}
		return text + target(s) + " is only partly applied"
	}
	return failureHeadline(s)
}

func successHeadline(s *Summary) string {
	what, unchanged := s.Counts.String(), s.Counts.Unchanged
	if s.Preview() && s.Planned != nil {
		what, unchanged = s.Planned.String(), s.Planned.Unchanged
	}
	if s.Command == "destroy" {
		return destroyedHeadline(s)
	}
	if s.offline() {
		built := 0
		for _, r := range s.Rows {
			built += r.Built
		}
		return fmt.Sprintf("%s: %s, %s in %s%s", target(s), count(len(s.Rows), "Kustomization"), count(built, "object"), s.Duration, leftOut(s))
	}
	if s.Result == OutcomeNoChanges {
		what = fmt.Sprintf("no changes, %d unchanged", unchanged)
	}
	text := fmt.Sprintf("%s: %s in %s%s", target(s), what, s.Duration, leftOut(s))
	if s.Command == "plan" {
		return text + "; nothing was written"
	}
	if s.Result == OutcomeSuccess && s.Slowest != nil {
		text += fmt.Sprintf("; the %s of %s took %s", s.Slowest.Part, s.Name(s.Slowest.Node), s.Slowest.Duration)
	}
	return text
}

// destroyedHeadline says what is gone, or would be.
func destroyedHeadline(s *Summary) string {
	what := joinCounts([]counted{{s.Counts.Deleted, "deleted"}, {s.Counts.Kept, "kept"}})
	if s.Preview() && s.Planned != nil {
		what = prunedText(s.Planned.Changes)
	}
	if what == "" {
		what = "nothing to delete"
	}
	text := fmt.Sprintf("%s in %s", what, s.Duration)
	if s.Cluster != nil {
		text = target(s) + ": " + text
	}
	if s.Preview() {
		text += "; nothing was written"
	}
	return text
}

// leftOut says which Kustomizations had no part in a success, so that "live"
// is not taken for more than it is.
func leftOut(s *Summary) string {
	var suspended, excluded int
	for _, r := range s.Rows {
		switch r.State {
		case Suspended:
			suspended++
		case Excluded:
			excluded++
		}
	}
	text := joinCounts([]counted{{suspended, "suspended"}, {excluded, "left out"}})
	if text == "" {
		return ""
	}
	return fmt.Sprintf("; of %s %s", count(len(s.Rows), "Kustomization"), text)
}

func failureHeadline(s *Summary) string {
	if len(s.Failures) == 0 {
		return target(s) + ": " + string(s.Result)
	}
	first := FailureText(s.Failures[0])
	switch s.Result {
	case OutcomeInvalid:
		n := len(s.Failures)
		switch {
		case s.offline() && n > 1:
			return fmt.Sprintf("%s: %d problems", target(s), n)
		case s.offline():
			return first
		case n > 1:
			return fmt.Sprintf("%s: %d problems, nothing was touched", target(s), n)
		}
		return "nothing was touched: " + first
	case OutcomeRefused:
		return first
	}
	text := failureTitle(s, s.Failures[0])
	var others []string
	for _, r := range s.Rows {
		if (r.State == Failed || r.State == Unhealthy) && r.ID != s.Failures[0].Node {
			others = append(others, r.Name)
		}
	}
	if len(others) > 0 {
		text += "; also failed: " + List(others, 5)
	}
	return text
}

// failureTitle is a failure with the Kustomization in front.
func failureTitle(s *Summary, f Failure) string {
	text := FailureText(f)
	switch {
	case f.Phase == "prune" && s.Command == "destroy":
		return text
	case f.Phase == "prune":
		return "pruning failed: " + text
	case f.Phase == "record":
		return "saving the records failed: " + text
	case f.Node == "":
		return text
	}
	verb := "failed"
	if r := s.Row(f.Node); r != nil {
		switch r.State {
		case Unhealthy:
			verb = "is not healthy"
		case NotRun:
			verb = "is not run"
		}
	}
	return fmt.Sprintf("%s %s: %s", s.Name(f.Node), verb, text)
}

// FailureTitle is a failure in one sentence that names its Kustomization.
func (s *Summary) FailureTitle(f Failure) string { return failureTitle(s, f) }

// VerdictLines tells how the run ended: the first screen for people, with the
// sentence that matters on top.
func VerdictLines(s *Summary) []Line {
	label := Line{Lead: s.Label(), Text: "  " + s.Headline, Tone: tone(s.Result)}
	switch s.Result {
	case OutcomeSuccess:
		lines := append([]Line{label}, imageLines(s, len(label.Lead)+2)...)
		if path := s.CriticalText(); path != "" {
			lines = append(lines, Line{Text: strings.Repeat(" ", len(label.Lead)+2) + path})
		}
		return append(lines, retryLines(s, len(label.Lead)+2)...)
	case OutcomeNoChanges:
		return append([]Line{label}, retryLines(s, len(label.Lead)+2)...)
	case OutcomeRefused:
		return refusedLines(s, label)
	case OutcomeInvalid:
		return invalidLines(s, label)
	case OutcomeCancelled:
		return append([]Line{label}, cancelledLines(s)...)
	}
	return append([]Line{label}, failedLines(s)...)
}

// retryLines tells of a success what had to be tried again for it.
func retryLines(s *Summary, indent int) []Line {
	if s.Retries == nil {
		return nil
	}
	return []Line{{Text: fmt.Sprintf("%*stried again: %s", indent, "", s.Retries)}}
}

func tone(o Outcome) Tone {
	switch o {
	case OutcomeSuccess, OutcomeNoChanges:
		return Good
	case OutcomeRefused, OutcomeCancelled:
		return Warn
	case OutcomeRunning:
		return Plain
	}
	return Bad
}

func imageLines(s *Summary, indent int) []Line {
	var lines []Line
	for i, image := range s.Images {
		if i == maxImages {
			lines = append(lines, Line{Text: fmt.Sprintf("%*sand %d more images", indent, "", len(s.Images)-i)})
			break
		}
		lines = append(lines, Line{Text: strings.Repeat(" ", indent) + ImageText(image)})
	}
	return lines
}

// refusedLines is one line for each reason, with what overrides it.
func refusedLines(s *Summary, label Line) []Line {
	if len(s.Failures) == 0 {
		return []Line{label}
	}
	var lines []Line
	for i, f := range s.Failures {
		if i == maxProblems {
			lines = append(lines, Line{Text: fmt.Sprintf("  and %s", count(len(s.Failures)-i, "more reason"))})
			break
		}
		text := FailureText(f)
		if f.Hint != "" {
			text += "; " + f.Hint
		}
		lines = append(lines, Line{Lead: label.Lead, Text: "  " + text, Tone: label.Tone})
	}
	return lines
}

// invalidLines lists every problem with its place and its remedy.
func invalidLines(s *Summary, label Line) []Line {
	lines := []Line{label}
	for i, f := range s.Failures {
		if i == maxProblems {
			lines = append(lines, field("", fmt.Sprintf("and %s", count(len(s.Failures)-i, "more problem"))))
			break
		}
		text := FailureText(f)
		if where := Where(f.File, f.Line); where != "" && !strings.Contains(text, f.File) {
			text = where + ": " + text
		}
		if len(s.Failures) > 1 {
			lines = append(lines, Line{Text: fmt.Sprintf("  %2d  %s", i+1, text)})
		} else if f.File != "" && !strings.Contains(s.Headline, f.File) {
			lines = append(lines, field("where", Where(f.File, f.Line)))
		}
		if f.Hint != "" {
			lines = append(lines, Line{Lead: "      hint: ", Text: f.Hint, Tone: Dim})
		}
	}
	return lines
}

// failedLines tells the failures, the worst in full first, then what the
// cluster is like now and what to do.
func failedLines(s *Summary) []Line {
	var lines []Line
	for i, f := range s.Failures {
		if i == maxBlocks {
			lines = append(lines, field("also", fmt.Sprintf("%s; the JSON report has all", count(len(s.Failures)-i, "more failure"))))
			break
		}
		if i > 0 {
			lines = append(lines, field("also", failureTitle(s, f)))
		}
		lines = append(lines, failureLines(f)...)
	}
	lines = append(lines, StateLines(s)...)
	if len(s.Failures) > 0 && s.Failures[0].Hint != "" && s.Failures[0].Hint != s.Next {
		lines = append(lines, field("next", s.Failures[0].Hint))
		if s.Next != "" {
			lines = append(lines, field("", s.Next))
		}
	} else if s.Next != "" {
		lines = append(lines, field("next", s.Next))
	}
	return lines
}

// field is one labelled line of the block below a verdict.
func field(label, text string) Line {
	return Line{Lead: fmt.Sprintf("  %-9s ", label), Text: text, Tone: Dim}
}

// failureLines tells cause, events and logs of a failure.
func failureLines(f Failure) []Line {
	lines := []Line{field("cause", FailureCause(f))}
	label := "events"
	for i, e := range f.Events {
		if i == maxEvents {
			lines = append(lines, field("", fmt.Sprintf("and %s", count(len(f.Events)-i, "more event"))))
			break
		}
		lines = append(lines, field(label, EventText(e)))
		label = ""
	}
	logs := f.Logs
	if len(logs) > maxLogs {
		logs = logs[len(logs)-maxLogs:]
	}
	label = "logs"
	if f.LogsNote != "" {
		lines = append(lines, field(label, f.LogsNote))
		label = ""
	}
	for _, text := range logs {
		lines = append(lines, field(label, "| "+text))
		label = ""
	}
	return lines
}

// EventText is a warning event in one line.
func EventText(w Warning) string {
	text := w.Reason + ": " + w.Message
	if w.Count > 1 {
		return fmt.Sprintf("%d× %s", w.Count, text)
	}
	return text
}

// StateLines tells what the cluster is like after a run that did not succeed.
func StateLines(s *Summary) []Line {
	var lines []Line
	lines = append(lines, field("changed", ChangedText(s)))
	var notRun []string
	if text := NotRunText(s); text != "" {
		notRun = append(notRun, text)
	}
	switch {
	case s.Command == "destroy": // it is what is told
	case s.Prune != nil && (!s.Prune.Done || len(s.Prune.Failures) > 0):
		notRun = append(notRun, "pruning did not get to its end")
	case !s.Pruned && s.Prune == nil:
		notRun = append(notRun, "nothing was pruned")
	}
	if len(notRun) > 0 {
		lines = append(lines, field("not run", strings.Join(notRun, "; ")))
	}
	if s.Retries != nil {
		lines = append(lines, field("retries", s.Retries.String()))
	}
	if !s.Saved {
		lines = append(lines, field("records", "could not be saved; the next run repairs them"))
	}
	return lines
}

// cancelledLines tells what was applied, what was in flight and whether the
// records are whole.
func cancelledLines(s *Summary) []Line {
	var done, flight, waiting []string
	for i := range s.Rows {
		r := &s.Rows[i]
		switch {
		case r.State == Ready, r.State == Destroyed:
			done = append(done, r.Name)
		case r.State == Cancelled && r.begun:
			flight = append(flight, fmt.Sprintf("%s (%s)", r.Name, Progress(r)))
		case r.State == Cancelled:
			waiting = append(waiting, r.Name)
		}
	}
	none := func(list []string) string {
		if len(list) == 0 {
			return "nothing"
		}
		return List(list, 10)
	}
	label := "applied"
	if s.Command == "destroy" {
		label = "destroyed"
	}
	lines := []Line{field(label, none(done)), field("in flight", none(flight))}
	for i, f := range s.Failures {
		if i == maxBlocks {
			break
		}
		lines = append(lines, field("failed", failureTitle(s, f)))
	}
	if text := NotRunText(s); text != "" {
		waiting = append(waiting, text)
	}
	lines = append(lines, field("not run", none(waiting)))
	lines = append(lines, field("changed", ChangedText(s)))
	if s.Saved {
		lines = append(lines, field("records", "saved; it is safe to run again"))
	} else {
		lines = append(lines, field("records", "could not be saved; the next run repairs them, it is safe to run again"))
	}
	if s.Next != "" {
		lines = append(lines, field("next", s.Next))
	}
	return lines
}
