package run

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/gate"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/plan"
)

// node is one Kustomization in the run and what became of it so far.
type node struct {
	*flux.Kustomization

	// tree and revision are its source's.
	tree     fs.FS
	revision string

	// rendered is what kustomize made of the path, before variables.
	rendered []flux.Object
	// rendering says how that came about; nil if it has not.
	rendering *rendering
	// objects is what belongs into the cluster: substituted, labelled and
	// normalised, without the Kustomizations and sources among them. It is
	// nil until built.
	objects []flux.Object
	built   bool
	// sum is the digest of its build (S0.14), once it is built.
	sum string
	// children are the Kustomizations that its build holds.
	children []flux.ID
	// deferred says why the node can only be built when its turn comes.
	deferred string
	// excluded is set if --only or --skip leave the node out.
	excluded bool
	// broken is set if it could not be built at all.
	broken bool
	// expressions are its healthCheckExprs.
	expressions *health.Expressions
	// gates are the readyExpr of its dependsOn, and live is what they and those
	// of its dependents see of it.
	gates []gate.Expression
	live  *gate.Object
	// announced is set once reports know of it.
	announced bool

	// plan is the one that its objects are part of, changes what it has for
	// them, in their order, and images the container images that change.
	plan    *plan.Plan
	changes []event.Change
	images  map[flux.Ref][]event.Image

	work
}

// describe returns the node as reports show it.
func (n *node) describe() event.Node {
	var deps []string
	for _, id := range n.Dependencies() {
		deps = append(deps, id.String())
	}
	parent := ""
	if !n.Parent.IsZero() {
		parent = n.Parent.String()
	}
	return event.Node{
		ID: n.ID.String(), Parent: parent, DependsOn: deps,
		Path: n.Path(), File: n.File, Line: n.Line, Revision: n.revision,
		Objects: len(n.objects), Deferred: n.deferred, Suspended: n.Spec.Suspend, Excluded: n.excluded,
		Cluster: n.Cluster().String(),
	}
}

// nodeSet holds the nodes of a run. It is safe for concurrent use, since nodes
// are still found while others are being applied. What a node holds belongs to
// its own steps, of which one runs at a time.
type nodeSet struct {
	mu   sync.RWMutex
	byID map[flux.ID]*node
}

// get returns nil for an id that is not in the run, or not yet.
func (s *nodeSet) get(id flux.ID) *node {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byID[id]
}

func (s *nodeSet) add(n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = map[flux.ID]*node{}
	}
	s.byID[n.ID] = n
}

func (s *nodeSet) len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.byID)
}

// sorted returns the nodes by id, for loops that must not depend on a map.
func (s *nodeSet) sorted() []*node {
	s.mu.RLock()
	nodes := slices.Collect(maps.Values(s.byID))
	s.mu.RUnlock()
	slices.SortFunc(nodes, func(a, b *node) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return nodes
}

func (r *run) sorted() []*node { return r.nodes.sorted() }

// inOrder returns the nodes each after what it needs, once the graph is checked,
// until then as sorted.
func (r *run) inOrder() []*node {
	if len(r.order) == 0 {
		return r.sorted()
	}
	var nodes []*node
	for _, id := range r.order {
		nodes = append(nodes, r.nodes.get(id))
	}
	return nodes
}

// anyDeferred says whether some node's content is not known yet. While the
// graph runs it is for holders of growth.
func (r *run) anyDeferred() bool {
	return slices.ContainsFunc(r.sorted(), func(n *node) bool { return n.deferred != "" })
}

// selects says whether --only and --skip leave the id in the run.
func (o *Options) selects(id flux.ID) bool {
	match := func(globs []string) bool {
		return slices.ContainsFunc(globs, func(glob string) bool {
			ok, err := path.Match(glob, id.String())
			return ok && err == nil // cli refuses bad patterns
		})
	}
	only := slices.Concat(o.Only, globs(o.Names))
	return (len(only) == 0 || match(only)) && !match(o.Skip)
}

// globs makes globs on "namespace/name" of names.
func globs(names []string) []string {
	var globs []string
	for _, name := range names {
		if !strings.Contains(name, "/") {
			name = "*/" + name
		}
		globs = append(globs, name)
	}
	return globs
}

// announce tells reports of a node; from then on it must end.
func (r *run) announce(n *node) {
	n.announced = true
	told := n.describe()
	told.AwaitsChildren = n.waitsForAll(r.options.Wait)
	r.emit(event.NodeFound{At: now(), Node: told})
}
