// Package graph orders named vertices by what they need. It is pure: no
// goroutines, no clock, no knowledge of what a vertex stands for.
//
// A Graph never changes after New, so it is safe for concurrent use. The same
// vertices give the same order and the same errors, whatever order they were
// given in.
package graph

import (
	"cmp"
	"container/heap"
	"errors"
	"slices"
	"strings"
)

// Vertex is a name and the names that must come before it. Needs may repeat a
// name; once is enough.
type Vertex struct {
	Name  string
	Needs []string
}

// Graph is an acyclic set of vertices.
type Graph struct {
	needs      map[string][]string
	dependents map[string][]string
	order      []string
}

// New checks the vertices and orders them. All faults are found at once and
// joined in a fixed order: duplicates, missing needs, cycles, each sorted by
// name. The error unwraps to *DuplicateError, *MissingError and *CycleError.
// A vertex that needs itself is a cycle of one.
func New(vertices []Vertex) (*Graph, error) {
	g := &Graph{needs: make(map[string][]string, len(vertices)), dependents: map[string][]string{}}
	var names, twice []string
	for _, v := range vertices {
		if _, ok := g.needs[v.Name]; ok {
			twice = append(twice, v.Name)
		} else {
			names = append(names, v.Name)
		}
		g.needs[v.Name] = append(g.needs[v.Name], v.Needs...)
	}
	slices.Sort(names)
	slices.Sort(twice)

	var faults []error
	for _, name := range slices.Compact(twice) {
		faults = append(faults, &DuplicateError{Name: name})
	}
	for _, name := range names {
		needs := g.needs[name]
		slices.Sort(needs)
		needs = slices.Compact(needs)
		known := needs[:0:0]
		for _, need := range needs {
			if _, ok := g.needs[need]; !ok {
				faults = append(faults, &MissingError{Name: name, Needs: need})
				continue
			}
			known = append(known, need)
			g.dependents[need] = append(g.dependents[need], name)
		}
		g.needs[name] = known
	}
	for _, cycle := range g.cycles(names) {
		faults = append(faults, &CycleError{Path: cycle})
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	g.order = g.sort(names)
	return g, nil
}

// Order returns every vertex after all that it needs; among those that could
// come next, the first by name does. The caller owns the slice.
func (g *Graph) Order() []string { return slices.Clone(g.order) }

// LongestFirst returns every vertex after all that it needs, those first with the
// longest chain of others behind them: who works on them in this order, with
// whatever else at once, ends soonest if all take as long. Among equals the order
// is that of Order. The caller owns the slice.
func (g *Graph) LongestFirst() []string {
	behind := make(map[string]int, len(g.order))
	for _, name := range slices.Backward(g.order) {
		for _, d := range g.dependents[name] {
			behind[name] = max(behind[name], behind[d]+1)
		}
	}
	order := slices.Clone(g.order)
	// What something needs has more behind it, so this is an order as well.
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(behind[b], behind[a]) })
	return order
}

// Needs returns what a vertex needs directly, sorted. The caller must not
// change it.
func (g *Graph) Needs(name string) []string { return g.needs[name] }

// DuplicateError says that two vertices have the same name.
type DuplicateError struct{ Name string }

func (e *DuplicateError) Error() string { return "duplicate " + e.Name }

// MissingError says that a vertex needs one that is not there.
type MissingError struct{ Name, Needs string }

func (e *MissingError) Error() string {
	return e.Name + " depends on " + e.Needs + ", which does not exist"
}

// CycleError is a cycle in reading order: each vertex needs the next, and the
// last is the first again. It begins at the first of its names by sort order.
type CycleError struct{ Path []string }

func (e *CycleError) Error() string { return "cycle: " + strings.Join(e.Path, " → ") }

// sort is Kahn's algorithm with a heap, so that ties break by name.
func (g *Graph) sort(names []string) []string {
	open := make(map[string]int, len(names))
	var ready nameHeap
	for _, name := range names {
		if open[name] = len(g.needs[name]); open[name] == 0 {
			ready = append(ready, name)
		}
	}
	heap.Init(&ready)
	order := make([]string, 0, len(names))
	for len(ready) > 0 {
		name := heap.Pop(&ready).(string)
		order = append(order, name)
		for _, d := range g.dependents[name] {
			if open[d]--; open[d] == 0 {
				heap.Push(&ready, d)
			}
		}
	}
	return order
}

// cycles returns one cycle for each strongly connected part that has one: the
// shortest through its first name, so that the text is as short as the fault
// allows and never varies.
func (g *Graph) cycles(names []string) [][]string {
	var cycles [][]string
	for _, part := range g.components(names) {
		start := slices.Min(part)
		if len(part) == 1 && !slices.Contains(g.needs[start], start) {
			continue
		}
		cycles = append(cycles, g.shortest(start))
	}
	slices.SortFunc(cycles, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return cycles
}

// shortest finds the shortest way from start back to start by breadth-first
// search; needs are sorted, so equal lengths resolve by name.
func (g *Graph) shortest(start string) []string {
	from := map[string]string{}
	queue := []string{start}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		for _, need := range g.needs[name] {
			if need == start {
				path := []string{start}
				for at := name; at != start; at = from[at] {
					path = append(path, at)
				}
				path = append(path, start)
				slices.Reverse(path)
				return path
			}
			if _, seen := from[need]; !seen {
				from[need] = name
				queue = append(queue, need)
			}
		}
	}
	return nil // not reached: start lies in a strongly connected part
}

// components is Tarjan's algorithm with a stack of its own, so that a long
// chain does not deepen the goroutine's.
func (g *Graph) components(names []string) [][]string {
	type frame struct {
		name string
		next int
	}
	var (
		parts   [][]string
		stack   []string
		index   = map[string]int{}
		low     = map[string]int{}
		onStack = map[string]bool{}
	)
	enter := func(name string) frame {
		index[name] = len(index) + 1
		low[name] = index[name]
		stack = append(stack, name)
		onStack[name] = true
		return frame{name: name}
	}
	for _, root := range names {
		if index[root] != 0 {
			continue
		}
		calls := []frame{enter(root)}
		for len(calls) > 0 {
			top := &calls[len(calls)-1]
			if needs := g.needs[top.name]; top.next < len(needs) {
				need := needs[top.next]
				top.next++
				switch {
				case index[need] == 0:
					calls = append(calls, enter(need))
				case onStack[need]:
					low[top.name] = min(low[top.name], index[need])
				}
				continue
			}
			done := *top
			calls = calls[:len(calls)-1]
			if len(calls) > 0 {
				caller := calls[len(calls)-1].name
				low[caller] = min(low[caller], low[done.name])
			}
			if low[done.name] == index[done.name] {
				at := slices.Index(stack, done.name)
				part := slices.Clone(stack[at:])
				stack = stack[:at]
				for _, name := range part {
					onStack[name] = false
				}
				parts = append(parts, part)
			}
		}
	}
	return parts
}

type nameHeap []string

func (h nameHeap) Len() int           { return len(h) }
func (h nameHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h nameHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *nameHeap) Push(x any)        { *h = append(*h, x.(string)) }
func (h *nameHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
