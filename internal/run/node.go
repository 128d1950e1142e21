package run

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/health"
)

// node is one Kustomization in the run and what became of it so far.
type node struct {
	*flux.Kustomization

	// tree and revision are its source's.
	tree     fs.FS
	revision string

	// rendered is what kustomize made of the path, before variables.
	rendered []flux.Object
	// objects is what belongs into the cluster: substituted, labelled and
	// normalised, without the Kustomizations and sources among them. It is
	// nil until built.
	objects []flux.Object
	built   bool
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
	// changes are what the plan has for its objects, in their order, and
	// images the container images that change.
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
	}
}

// sorted returns the nodes by id, for loops that must not depend on a map.
func (r *run) sorted() []*node {
	nodes := make([]*node, 0, len(r.nodes))
	for _, n := range r.nodes {
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b *node) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return nodes
}

// anyDeferred says whether some node's content is not known yet.
func (r *run) anyDeferred() bool {
	for _, n := range r.nodes {
		if n.deferred != "" {
			return true
		}
	}
	return false
}

// selects says whether --only and --skip leave the id in the run.
func (o *Options) selects(id flux.ID) bool {
	match := func(globs []string) bool {
		return slices.ContainsFunc(globs, func(glob string) bool {
			ok, err := path.Match(glob, id.String())
			return ok && err == nil // bad patterns are refused before the run, by Options.check
		})
	}
	return (len(o.Only) == 0 || match(o.Only)) && !match(o.Skip)
}
