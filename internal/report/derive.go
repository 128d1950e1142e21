package report

import (
	"cmp"
	"slices"
	"time"
)

// noteworthy is the time from which on it is worth telling what took the
// longest.
const noteworthy = time.Second

// graph returns the nodes in the order in which they were found and the edges
// by the node that comes after.
func (f *Fold) graph() Graph {
	g := Graph{Nodes: []GraphNode{}, Edges: []Edge{}}
	for _, r := range f.found {
		g.Nodes = append(g.Nodes, GraphNode{ID: r.ID, Name: f.name(r.ID), State: r.State})
		if r.Parent != "" {
			g.Edges = append(g.Edges, Edge{From: r.Parent, To: r.ID, Kind: "parent"})
		}
		for _, id := range r.DependsOn {
			g.Edges = append(g.Edges, Edge{From: id, To: r.ID, Kind: "dependsOn"})
		}
	}
	return g
}

// images collects the changes of images, equal ones once, in the order of the
// run: what was applied, or for a plan what would be.
func images(s *Summary) []Image {
	list := []Image{}
	collect := func(o Object) {
		for _, i := range o.Images {
			if i.Old == i.New {
				continue
			}
			at := slices.IndexFunc(list, func(have Image) bool { return have.Old == i.Old && have.New == i.New })
			if at < 0 {
				at = len(list)
				list = append(list, Image{Old: i.Old, New: i.New, Objects: []string{}})
			}
			if !slices.Contains(list[at].Objects, o.Object) {
				list[at].Objects = append(list[at].Objects, o.Object)
			}
		}
	}
	if s.Preview() {
		if s.Planned != nil {
			for _, o := range s.Planned.Changes {
				collect(o)
			}
		}
		return list
	}
	for _, r := range s.Rows {
		for _, o := range r.Objects {
			if wrote(o.Action) {
				collect(o)
			}
		}
	}
	return list
}

// failures brings together what went wrong, the worst first: what stopped the
// run as a whole, then by how much else each kept from running, a failed
// Kustomization before one that is only unhealthy, then in the order of the
// run; pruning and record keeping come last, since they cost least. A failure
// that is told both for a Kustomization and for the run is told once.
func (f *Fold) failures(s *Summary) []Failure {
	var run, late []Failure
	for _, failure := range f.run {
		if failure.Phase == "record" {
			late = append(late, failure)
		} else {
			run = append(run, failure)
		}
	}
	failed := make([]*Row, 0, len(s.Rows))
	for i := range s.Rows {
		if len(s.Rows[i].Failures) > 0 {
			failed = append(failed, &s.Rows[i])
		}
	}
	slices.SortStableFunc(failed, func(a, b *Row) int {
		return cmp.Or(cmp.Compare(len(b.Blocks), len(a.Blocks)), cmp.Compare(gravity(a.State), gravity(b.State)))
	})
	all := []Failure{}
	add := func(list []Failure) {
		for _, failure := range list {
			if !slices.ContainsFunc(all, func(have Failure) bool { return sameFailure(have, failure) }) {
				all = append(all, failure)
			}
		}
	}
	add(run)
	for _, r := range failed {
		add(r.Failures)
	}
	if s.Prune != nil {
		add(s.Prune.Failures)
	}
	add(late)
	return all
}

// gravity orders results; less is worse.
func gravity(s State) int {
	switch s {
	case Failed:
		return 0
	case Unhealthy:
		return 1
	}
	return 2
}

func sameFailure(a, b Failure) bool {
	return a.Phase == b.Phase && a.Reason == b.Reason && a.Text == b.Text && a.Object == b.Object &&
		a.Container == b.Container && a.File == b.File && a.Line == b.Line &&
		(a.Node == b.Node || a.Node == "" || b.Node == "")
}

// slowest names the longest roll-out or apply, or nothing if all went at
// once.
func slowest(rows []Row) *Slowest {
	var longest *Slowest
	for _, r := range rows {
		for _, part := range []Slowest{
			{Node: r.ID, Part: "roll-out", Duration: r.Waited},
			{Node: r.ID, Part: "apply", Duration: r.Duration - r.Waited},
		} {
			if time.Duration(part.Duration) >= noteworthy && (longest == nil || part.Duration > longest.Duration) {
				longest = &part
			}
		}
	}
	return longest
}

// FailedNodes lists the ids of the Kustomizations that failed or are not
// healthy, and of those that a failure is about, in the order of the report.
func (s *Summary) FailedNodes() []string {
	ids := []string{}
	for _, r := range s.Rows {
		about := slices.ContainsFunc(s.Failures, func(f Failure) bool { return f.Node == r.ID })
		if r.State == Failed || r.State == Unhealthy || about {
			ids = append(ids, r.ID)
		}
	}
	return ids
}
