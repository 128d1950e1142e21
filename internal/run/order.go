package run

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/graph"
	"github.com/sluicerun/sluice/internal/health"
)

// A Kustomization has two vertices. It is applied when all its objects are in
// the cluster, and ready when its health allows the next gate to open.
//
//   - its ready needs its applied;
//   - a child's applied needs its parent's applied, since the parent may hold
//     the namespace that the child's objects live in;
//   - a dependent's applied needs its dependency's ready (S7.4, S7.6), or, where
//     a readyExpr decides, a gate that opens when the expression is true (S7.7;
//     gates.go);
//   - the ready of a parent that waits for all it contains needs its
//     children's ready (S6.2), as does one whose healthChecks name them.
//
// One search over these finds ordinary cycles and the parent that waits for a
// child which depends on it (S7.16) alike.

func applied(id flux.ID) string { return "applied " + id.String() }
func ready(id flux.ID) string   { return "ready " + id.String() }

// nodeOf is the inverse of applied and ready; of a gate it is the dependency.
func nodeOf(vertex string) string { return strings.Fields(vertex)[1] }

// needs is what the vertices of a node wait for.
type needs struct {
	toApply, toBeReady []string
	gates              []gateNeeds
	// missing are dependencies that do not exist.
	missing []flux.ID
}

// needsOf returns what a node waits for, as far as it can be told: a dependency
// that is not in the run is replaced by those nodes whose build, which is still
// to come, may hold it, and is missing if there are none.
func (r *run) needsOf(n *node) needs {
	wait := r.options.Wait
	var all needs
	if !n.Parent.IsZero() {
		all.toApply = append(all.toApply, applied(n.Parent))
	}
	instead := map[flux.ID][]string{}
	for i, dep := range n.Dependencies() {
		if !r.there(dep) {
			for _, holder := range r.holders(n) {
				instead[dep] = append(instead[dep], applied(holder.ID))
			}
			if len(instead[dep]) == 0 {
				all.missing = append(all.missing, dep)
			}
			all.toApply = append(all.toApply, instead[dep]...)
		} else if n.Spec.DependsOn[i].ReadyExpr == "" || r.options.AdditiveCELDependencyCheck {
			all.toApply = append(all.toApply, ready(dep))
		}
	}
	for i, e := range n.gates {
		g := gateNeeds{name: gateName(n, i), Expression: e, toAsk: instead[e.Dep]}
		if r.there(e.Dep) {
			g.after = []string{applied(e.Dep)}
		}
		all.gates = append(all.gates, g)
		all.toApply = append(all.toApply, g.name)
	}
	all.toBeReady = []string{applied(n.ID)}
	if n.waitsForAll(wait) {
		for _, child := range n.children {
			all.toBeReady = append(all.toBeReady, ready(child))
		}
	}
	if wait != health.None {
		for _, id := range n.childChecks(&r.nodes) {
			if !r.there(id) {
				continue
			}
			all.toBeReady = append(all.toBeReady, ready(id))
		}
	}
	return all
}

// waitsForAll says whether the node is ready only after its children are.
func (n *node) waitsForAll(wait health.Mode) bool {
	return wait == health.All || wait != health.None && n.Spec.Wait
}

// childChecks returns the Kustomizations of this run that healthChecks name.
// They are not objects in the cluster here, so their own end stands for their
// health (S6.6: a check on itself is dropped).
func (n *node) childChecks(nodes *nodeSet) []flux.ID {
	if n.remote() {
		return nil // what it names is in the other cluster
	}
	var ids []flux.ID
	for _, check := range n.Spec.HealthChecks {
		id := flux.ID{Namespace: check.Namespace, Name: check.Name}
		if check.Kind == flux.KustomizationKind && strings.HasPrefix(check.APIVersion, flux.Group+"/") && id != n.ID && nodes.get(id) != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// holders returns the deferred nodes that may hold what a node depends on: all
// but the node itself and those that need it in turn.
func (r *run) holders(n *node) []*node {
	var holders []*node
	for _, other := range r.sorted() {
		unbuilt := r.toBuild[other.ID]
		if r.scheduled == nil {
			unbuilt = other.deferred != ""
		}
		if unbuilt && !r.comesAfter(other, n) {
			holders = append(holders, other)
		}
	}
	return holders
}

// comesAfter says whether a node is another, or needs it directly or not.
func (r *run) comesAfter(n, other *node) bool {
	seen := map[flux.ID]bool{}
	queue := []flux.ID{n.ID}
	for len(queue) > 0 {
		next := r.nodes.get(queue[0])
		queue = queue[1:]
		if next == nil || seen[next.ID] {
			continue
		}
		if next.ID == other.ID {
			return true
		}
		seen[next.ID] = true
		queue = append(append(queue, next.Parent), next.Dependencies()...)
	}
	return false
}

// check makes the graph and reports every fault in it: dependencies that do
// not exist (S7.3) and cycles (S7.11, S7.16).
func (r *run) check(context.Context) []event.Failure {
	var vertices []graph.Vertex
	var failures []event.Failure
	for _, n := range r.sorted() {
		needs := r.needsOf(n)
		for _, dep := range needs.missing {
			failures = append(failures, r.missing(n, dep))
		}
		vertices = append(vertices, graph.Vertex{Name: applied(n.ID), Needs: needs.toApply}, graph.Vertex{Name: ready(n.ID), Needs: needs.toBeReady})
		for _, g := range needs.gates {
			vertices = append(vertices, graph.Vertex{Name: g.name, Needs: slices.Concat(g.toAsk, g.after)})
		}
	}
	g, err := graph.New(vertices)
	if err == nil {
		r.order = nil
		for _, vertex := range g.Order() {
			if id, err := flux.ParseID(nodeOf(vertex)); err == nil && vertex == applied(id) {
				r.order = append(r.order, id)
			}
		}
	}
	return append(failures, r.cycles(err)...)
}

// missing explains a dependency that does not exist.
func (r *run) missing(n *node, dep flux.ID) event.Failure {
	f := event.Failure{
		Phase: "graph", Reason: "DependencyNotFound", Node: n.ID.String(), File: n.File, Line: n.Line,
		Text: fmt.Sprintf("%s depends on %s, which does not exist", n.ID, dep),
	}
	for _, other := range r.sorted() {
		if other.Name == dep.Name && other.ID != n.ID {
			f.Hint = fmt.Sprintf("there is %s: set the namespace in dependsOn", other.ID)
			return f
		}
	}
	var names []string
	for _, other := range r.sorted() {
		if other.ID != n.ID {
			names = append(names, other.ID.String())
		}
	}
	f.Hint = "add it, or correct dependsOn; this run has " + list(names, 10)
	return f
}

// cycles turns the graph's errors into failures in terms of Kustomizations.
func (r *run) cycles(err error) []event.Failure {
	var failures []event.Failure
	seen := map[string]bool{}
	for _, err := range unjoin(err) {
		cycle, ok := as[*graph.CycleError](err)
		if !ok {
			continue // of a name that is missing or twice there: told with the node
		}
		var names []string
		waits := false
		for i, vertex := range cycle.Path {
			names = append(names, nodeOf(vertex))
			if i > 0 && strings.HasPrefix(vertex, "ready ") && strings.HasPrefix(cycle.Path[i-1], "ready ") {
				waits = true
			}
		}
		names = slices.Compact(names)
		if len(names) == 1 {
			names = append(names, names[0])
		}
		text := "cycle: " + strings.Join(names, " → ")
		if seen[text] {
			continue
		}
		seen[text] = true
		f := event.Failure{Phase: "graph", Reason: "DependencyCycle", Node: names[0], Text: text,
			Hint: "remove one of these dependsOn entries"}
		if waits {
			f.Hint = "a Kustomization with wait: true is ready only after the Kustomizations it contains; " +
				"one of them depends on it: remove that dependsOn entry, or wait"
		}
		if id, err := flux.ParseID(names[0]); err == nil {
			if n := r.nodes.get(id); n != nil {
				f.File, f.Line = n.File, n.Line
			}
		}
		failures = append(failures, f)
	}
	return failures
}

// list joins names for a message, at most so many of them.
func list(names []string, most int) string {
	if len(names) == 0 {
		return "no other"
	}
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
