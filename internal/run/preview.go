package run

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/plan"
)

// What a plan tells that a run need not: the fields that would change, and what
// each Kustomization would wait for.

// turnOf is a node's place in a plan.
func (r *run) turnOf(n *node, unchanged int) event.Turn {
	turn := event.Turn{Node: n.ID.String(), Unchanged: unchanged}
	if n.excluded || n.Spec.Suspend {
		return turn
	}
	skipped := map[string]bool{}
	for _, c := range n.changes {
		skipped[c.Object] = c.Action == event.Skipped
	}
	var done []health.Applied
	for _, o := range n.objects {
		done = append(done, health.Applied{Object: o, Skipped: skipped[o.Ref().String()]})
	}
	for _, target := range r.targets(n, done) {
		turn.WaitsFor = append(turn.WaitsFor, target.Ref.String())
	}
	if len(turn.WaitsFor) > 0 {
		turn.Timeout = n.Timeout()
	}
	return turn
}

// why explains a change: as the plan does, else whose the live object is that the
// node takes over; empty if its own.
func why(c plan.Change) string {
	if c.Reason != "" || c.Action != plan.Configure || c.Live == nil {
		return c.Reason
	}
	owner := flux.ID{Namespace: c.Live.GetLabels()[flux.NamespaceLabel], Name: c.Live.GetLabels()[flux.NameLabel]}
	if owner.Name == "" || owner == c.Node {
		return ""
	}
	onlyLabels := !slices.ContainsFunc(c.Paths, func(path string) bool {
		return path != "metadata.labels["+flux.NameLabel+"]" && path != "metadata.labels["+flux.NamespaceLabel+"]"
	})
	if onlyLabels {
		return "relabelled: it belongs to " + owner.String() + " so far"
	}
	return "it belongs to " + owner.String() + " so far"
}

// longestValue is how much of a field's value is told, in bytes.
const longestValue = 300

// fieldsOf are the fields of a change with their values as text.
func fieldsOf(c plan.Change) []event.Field {
	var fields []event.Field
	for _, f := range c.Fields {
		fields = append(fields, event.Field{Path: f.Path, Old: valueText(f.Old), New: valueText(f.New)})
	}
	return fields
}

// valueText is a value on one line: a plain text as it is, everything else as
// JSON; empty for none.
func valueText(v any) string {
	if v == nil {
		return ""
	}
	text, ok := v.(string)
	if !ok || text == "" || text != strings.TrimSpace(text) || strings.ContainsAny(text, "\n\r\t") {
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return fmt.Sprintf("(a %T)", v) // not reached: it came from JSON
		}
		text = strings.TrimSuffix(b.String(), "\n")
	}
	if len(text) <= longestValue {
		return text
	}
	cut := longestValue
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return fmt.Sprintf("%s… (%d more bytes)", text[:cut], len(text)-cut)
}

// postponed keeps the refusals of a plan until it is made: what a run would
// refuse to do is worth seeing all the same, such as while Flux still runs. What
// is no refusal ends it.
func (r *run) postponed(failures []event.Failure) []event.Failure {
	hard := slices.ContainsFunc(failures, func(f event.Failure) bool { return f.Phase != "guard" || f.Reason == "Forbidden" })
	if r.options.Command != CommandPlan || hard {
		return failures
	}
	r.refusals = append(r.refusals, failures...)
	return nil
}

// learnLive makes the values of the live Secrets known, so that they are masked
// also where another object holds one.
func (r *run) learnLive(made *plan.Plan) {
	for _, c := range made.Changes {
		if c.Live != nil {
			r.learnSecrets([]flux.Object{{Unstructured: c.Live}})
		}
	}
}
