package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluicerun/sluice/internal/event"
)

// preview tells a plan: the Kustomizations in the order of the run, what opens
// the way to each, what would be done to its objects, and the deletions last.
func (l *Live) preview(p *Plan) []Line {
	var lines []Line
	for _, t := range p.Turns {
		changes := slices.DeleteFunc(slices.Clone(p.Changes), func(o Object) bool { return o.Node != t.Node || goesLast(o.Action) })
		lines = append(lines, l.node("  ", t.Node, l.turnText(t, changes), Plain))
		for _, o := range changes {
			lines = append(lines, l.previewObject(o, "")...)
		}
	}
	last := slices.DeleteFunc(slices.Clone(p.Changes), func(o Object) bool { return !goesLast(o.Action) })
	if len(last) > 0 {
		lines = append(lines, l.named("  ", "prune", "after all of them: "+prunedText(last), Plain))
		for _, o := range last {
			lines = append(lines, l.previewObject(o, " of "+l.fold.name(o.Node))...)
		}
	}
	return lines
}

// prunedText counts what pruning would do.
func prunedText(objects []Object) string {
	var c Counts
	for _, o := range objects {
		if o.Action == event.Delete {
			c.Deleted++
		} else {
			c.Kept++
		}
	}
	return joinCounts([]counted{{c.Deleted, "to delete"}, {c.Kept, "to keep"}})
}

// goesLast reports whether an action is pruning's.
func goesLast(a event.Action) bool { return a == event.Delete || a == event.Kept }

// turnText says what becomes of a Kustomization, after what, and what is waited
// for then.
func (l *Live) turnText(t Turn, changes []Object) string {
	r := l.fold.row(t.Node)
	switch {
	case r.suspended:
		return "suspended, would be left alone"
	case r.excluded:
		return "left out by --only or --skip"
	}
	var after []string
	for _, id := range r.DependsOn {
		after = append(after, l.fold.name(id))
	}
	text := ""
	if len(after) > 0 {
		text = "after " + strings.Join(after, ", ") + ": "
	}
	if r.Deferred != "" {
		return text + "not known yet: it " + r.Deferred
	}
	what := countsOf(changes)
	if t.Unchanged > 0 {
		what = strings.TrimPrefix(fmt.Sprintf("%s, %d unchanged", what, t.Unchanged), ", ")
	}
	if what == "" {
		what = "no objects"
	}
	text += what
	if n := len(t.WaitsFor); n > 0 {
		text += fmt.Sprintf("; then up to %s for %s", wholeDuration(time.Duration(t.Timeout)), List(t.WaitsFor, maxGate))
	}
	return text
}

// countsOf counts objects by action, as in "1 to create, 2 skipped".
func countsOf(objects []Object) string {
	var p Plan
	for _, o := range objects {
		p.count(o.Action)
	}
	return joinCounts(p.counted())
}

// previewObject tells what would be done to an object, field by field.
func (l *Live) previewObject(o Object, remark string) []Line {
	lines := []Line{{Text: "    " + withReason(string(o.Action)+" "+o.Object+remark, o.Reason)}}
	for i, f := range o.Fields {
		if i == maxFields && !l.options.Verbose {
			lines = append(lines, Line{Text: fmt.Sprintf("        and %s; -v shows all", count(len(o.Fields)-i, "more field"))})
			break
		}
		lines = append(lines, Line{Text: "        " + FieldText(f)})
	}
	return lines
}

// FieldText is a change of a field in one line: "+" for one that comes, "-" for
// one that goes.
func FieldText(f Field) string {
	switch {
	case f.Old == "":
		return "+ " + f.Path + ": " + f.New
	case f.New == "":
		return "- " + f.Path + ": " + f.Old
	}
	return "~ " + f.Path + ": " + f.Old + " → " + f.New
}
