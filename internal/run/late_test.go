package run

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/schedule"
)

// deliver does to the graph what the end of a node's turn does: the children that
// its build held are in it from then on.
func deliver(r *run, name string) map[string]string {
	n := r.nodes.get(id(name))
	var children []*node
	for _, child := range n.children {
		children = append(children, r.nodes.get(child))
	}
	growth := r.childSteps(n, children)
	needs := map[string]string{}
	for _, step := range growth.Steps {
		needs[signs([]string{step.Name})] = signs(step.Needs)
	}
	for name, more := range growth.Needs {
		key := signs([]string{name})
		needs[key] = strings.TrimSpace(needs[key] + " ++ " + signs(more))
	}
	for name, more := range growth.After {
		key := signs([]string{name})
		needs[key] = strings.TrimSpace(needs[key] + " ** " + signs(more))
	}
	return needs
}

// newLateRun is newTestRun as it is while the graph runs: of the lines, those after
// an empty one were found at a node's turn and are not in the schedule yet.
func newLateRun(t *testing.T, lines string) *run {
	t.Helper()
	before, _, _ := strings.Cut(lines, "\n\n")
	r, _ := newTestRun(t, health.Spec, lines)
	r.state = &inventory.State{Records: map[flux.ID]*inventory.Record{}}
	r.scheduled, r.toBuild = map[flux.ID]bool{}, map[flux.ID]bool{}
	for line := range strings.Lines(before) {
		r.enter(r.nodes.get(id(strings.Fields(line)[0])))
	}
	return r
}

// Two nodes are built at the same time, and what one holds depends on what the
// other does. Whichever ends first, the dependent waits for its dependency, and
// nothing refers to what the schedule does not have yet.
func TestLateChildrenOfTwo(t *testing.T) {
	const lines = "d1 deferred\nd2 deferred\n\nx in:d1 needs:y\ny in:d2"
	r := newLateRun(t, lines)
	if got := deliver(r, "d1"); got["+x"] != "+d1 +d2" {
		t.Errorf("first d1: %v", got)
	}
	if got := deliver(r, "d2"); got["+y"] != "+d2" || got["+x"] != "++ !y" {
		t.Errorf("then d2: %v", got)
	}
	r = newLateRun(t, lines)
	if got := deliver(r, "d2"); got["+y"] != "+d2" || got["+x"] != "" {
		t.Errorf("first d2: %v", got)
	}
	if got := deliver(r, "d1"); got["+x"] != "+d1 !y" {
		t.Errorf("then d1: %v", got)
	}
}

// The schedule takes what comes of it, in either order.
func TestLateChildrenRun(t *testing.T) {
	for _, order := range [][]string{{"d1", "d2"}, {"d2", "d1"}} {
		r := newLateRun(t, "d1 deferred\nd2 deferred\n\nx in:d1 needs:y\ny in:d2\nz in:d2 needs:w\nw in:d1")
		first := make(chan struct{})
		var ran []string
		step := func(name string) schedule.Step {
			return schedule.Step{Name: applied(id(name)), Run: func(ctx context.Context) (schedule.Growth, error) {
				if name == order[1] {
					<-first
				}
				return schedule.Growth{Make: func() schedule.Growth {
					if name == order[0] {
						close(first)
					}
					n := r.nodes.get(id(name))
					var children []*node
					for _, child := range n.children {
						children = append(children, r.nodes.get(child))
					}
					growth := r.childSteps(n, children)
					for i := range growth.Steps {
						growth.Steps[i].Run = func(context.Context) (schedule.Growth, error) { return schedule.Growth{}, nil }
					}
					return growth
				}}, nil
			}}
		}
		results, err := schedule.Run(t.Context(), []schedule.Step{step("d1"), step("d2")}, schedule.Options{Workers: 4,
			Done: func(result schedule.Result) { ran = append(ran, signs([]string{result.Name})) }})
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range results {
			if result.State != schedule.Succeeded {
				t.Errorf("%v: %s %s: %v", order, result.Name, result.State, result.Err)
			}
		}
		at := func(name string) int { return slices.Index(ran, name) }
		if len(ran) != 10 || at("!y") > at("+x") || at("!w") > at("+z") {
			t.Errorf("%v: ran %q", order, ran)
		}
	}
}

// One that was skipped meanwhile, since another of its dependencies failed, waits
// for nothing any more.
func TestLateChildrenOfOneThatIsOver(t *testing.T) {
	r := newLateRun(t, "d deferred\na needs:x needs:broken\nbroken\n\nx in:d")
	r.ended(schedule.Result{Name: applied(id("a")), State: schedule.Skipped, Cause: applied(id("broken"))})
	if got := deliver(r, "d"); got["+x"] != "+d" || got["+a"] != "" {
		t.Errorf("got %v", got)
	}
}

// What is lacking may be held by what a late node holds in turn; suspended and
// left-out ones wait for nothing; a gate is asked only then.
func TestLateChildrenOfChildren(t *testing.T) {
	r := newLateRun(t, "d deferred\na needs:deep\nb gate:deep\ns suspended needs:c\no excluded needs:c\n\nc in:d deferred\ndeep in:c")
	got := deliver(r, "d")
	if got["+c"] != "+d" || got["+a"] != "++ +c" || got["+b"] != "++ +c" || got["gate ns/deep ns/b 0"] != "++ +c" || got["+s"] != "" || got["+o"] != "" {
		t.Errorf("d: %v", got)
	}
	got = deliver(r, "c")
	if got["+deep"] != "+c" || got["+a"] != "++ !deep" || got["gate ns/deep ns/b 0"] != "** +deep" || got["+b"] != "" {
		t.Errorf("c: %v", got)
	}
}
