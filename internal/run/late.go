package run

import (
	"context"
	"slices"
	"strings"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/schedule"
)

// A node whose variables nothing provides beforehand is built when its turn
// comes (S16.7), and may then turn out to hold others. This is what the stages
// before the first write do, for that one node.

// fillNow builds a node at its turn: its variables, or those of the one that
// holds it, had to wait for that. An object of variables that is still missing
// may yet come, so that is worth another attempt.
func (r *run) fillNow(ctx context.Context, n *node) ([]*node, error) {
	r.growth.Lock()
	defer r.growth.Unlock()
	if n.record == nil {
		if failures := r.recallNode(ctx, n); len(failures) > 0 {
			return nil, &failed{failures}
		}
	}
	if missing := r.missingVariables(ctx, n); len(missing) > 0 {
		return nil, &missingError{missing}
	}
	if err := r.settle(ctx, n); err != nil {
		return nil, err // a cluster that is being made may answer later
	}
	n.deferred, r.grewLate = "", true
	r.reachRecorded(ctx, []*inventory.Record{n.record})
	before := len(r.toolkit)
	children, failures := r.fill(ctx, n, fromCluster)
	failures = append(failures, r.unserved(r.toolkit[before:])...)
	if len(failures) == 0 {
		failures = r.planLate(ctx, n)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if len(failures) > 0 {
		return nil, &failed{failures}
	}
	r.expect(n)
	for _, child := range children {
		child.deferred = "is part of " + n.ID.String() + ", which was built at its turn"
	}
	return children, nil
}

// childSteps turns children found at a node's turn into steps, and makes those who
// depend on them by name wait for them. It runs on the goroutine of the schedule:
// other nodes may be built at the same time, and only what is in the schedule
// already can be waited for.
func (r *run) childSteps(n *node, children []*node) schedule.Growth {
	delete(r.toBuild, n.ID)
	others := slices.DeleteFunc(r.sorted(), func(other *node) bool {
		_, over := r.ends[other.ID]                                                   // skipped for another reason
		return over || !r.scheduled[other.ID] || other.excluded || other.Spec.Suspend // those two wait for nothing
	})
	for _, child := range children {
		r.enter(child)
	}
	growth := schedule.Growth{Needs: map[string][]string{}, After: map[string][]string{}}
	for _, child := range children {
		r.announce(child)
		if record := r.state.Records[child.ID]; record != nil {
			child.live.Remember(record) // its own turn may never come to it
		}
		growth.Steps = append(growth.Steps, r.steps(child)...)
		if n.waitsForAll(r.options.Wait) {
			growth.Needs[ready(n.ID)] = append(growth.Needs[ready(n.ID)], ready(child.ID))
		}
		for _, other := range others {
			r.wait(&growth, other, child.ID)
		}
	}
	for _, other := range others {
		r.waitOn(&growth, n, other, children)
	}
	return growth
}

// waitOn makes one that has waited for a node's build, and still lacks a dependency,
// wait for those of the node's children whose build may hold it.
func (r *run) waitOn(growth *schedule.Growth, n, other *node, children []*node) {
	if r.comesAfter(n, other) {
		return
	}
	for _, dep := range other.Dependencies() {
		if r.there(dep) {
			continue
		}
		for _, child := range children {
			if !r.toBuild[child.ID] || r.comesAfter(child, other) || slices.ContainsFunc(child.Dependencies(), func(id flux.ID) bool { return !r.there(id) }) {
				continue
			}
			growth.Needs[applied(other.ID)] = append(growth.Needs[applied(other.ID)], applied(child.ID))
			for i, e := range other.gates {
				if e.Dep == dep {
					growth.Needs[gateName(other, i)] = append(growth.Needs[gateName(other, i)], applied(child.ID))
				}
			}
		}
	}
}

// enter notes that a node is in the schedule from now on, and whether its build,
// and what that holds, is still to come.
func (r *run) enter(n *node) {
	r.scheduled[n.ID] = true
	if n.deferred != "" && !n.excluded && !n.Spec.Suspend {
		r.toBuild[n.ID] = true
	}
}

// there says whether a node is in the graph: while it runs, in the schedule.
func (r *run) there(id flux.ID) bool {
	return r.nodes.get(id) != nil && (r.scheduled == nil || r.scheduled[id])
}

// wait makes one that depends on a child by name wait for it.
func (r *run) wait(growth *schedule.Growth, other *node, child flux.ID) {
	for i, dep := range other.Dependencies() {
		if dep == child && (other.Spec.DependsOn[i].ReadyExpr == "" || r.options.AdditiveCELDependencyCheck) {
			growth.Needs[applied(other.ID)] = append(growth.Needs[applied(other.ID)], ready(child))
		}
	}
	for i, e := range other.gates {
		if e.Dep == child {
			growth.After[gateName(other, i)] = append(growth.After[gateName(other, i)], applied(child))
		}
	}
}

// missingError says that what a node's variables come from does not exist even
// at its turn.
type missingError struct{ objects []string }

func (e *missingError) Error() string {
	return "it needs " + strings.Join(e.objects, ", ") + " for its variables or its cluster, which nothing that ran before has created"
}

// Hint says what to do.
func (e *missingError) Hint() string {
	return "create it, correct its name, or set optional: true in substituteFrom; if something creates it late, depend on what waits for that"
}

// Reason is the failure's stable code.
func (e *missingError) Reason() string { return "MissingVariables" }
