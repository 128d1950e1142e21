package report

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluicerun/sluice/internal/event"
)

// condemned tells what destroy is about to delete, or would: the Kustomizations in
// the order in which they go, with their objects.
func (l *Live) condemned(p *Plan) []Line {
	what := prunedText(p.Changes)
	if what == "" {
		what = "nothing to delete"
	}
	text := fmt.Sprintf("%s, %s", count(len(p.Turns), "Kustomization"), what)
	lines := []Line{l.timed(Line{Lead: l.lead("", "plan"), Text: text}, time.Duration(l.fold.s.PlanDuration))}
	told := 0
	for _, t := range p.Turns {
		changes := slices.DeleteFunc(slices.Clone(p.Changes), func(o Object) bool { return o.Node != t.Node })
		lines = append(lines, l.node("  ", t.Node, l.condemnedText(t, changes), Plain))
		for _, o := range changes {
			if told++; told > maxDeletedLines && !l.options.Verbose {
				continue
			}
			lines = append(lines, Line{Text: "    " + withReason(verbs[o.Action]+" "+o.Object, o.Reason)})
		}
	}
	if more := told - maxDeletedLines; more > 0 && !l.options.Verbose {
		lines = append(lines, Line{Text: fmt.Sprintf("    and %s; -v shows all", count(more, "more object"))})
	}
	return lines
}

var verbs = map[event.Action]string{event.Delete: "delete", event.Kept: "keep"}

// condemnedText says what a Kustomization loses, and what goes before it.
func (l *Live) condemnedText(t Turn, changes []Object) string {
	var before []string
	for _, r := range l.fold.found {
		if slices.Contains(r.DependsOn, t.Node) {
			before = append(before, l.fold.name(r.ID))
		}
	}
	text := prunedText(changes)
	if text == "" {
		text = "nothing to delete"
	}
	if len(before) > 0 {
		text = "after " + List(before, maxGate) + ": " + text
	}
	return text
}

// destroyed tells what became of an object. What was to go is listed before; if it
// is gone, that is only counted.
func (l *Live) destroyed(c event.Change) []Line {
	if c.Action == event.Deleted && !l.options.Verbose {
		return nil
	}
	return []Line{l.node("  ", c.Node, withReason(string(c.Action)+" "+c.Object, c.Reason), Plain)}
}
