package prune

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
)

// Node is a Kustomization of the run, as far as pruning is concerned.
type Node struct {
	ID        flux.ID
	Parent    flux.ID
	DependsOn []flux.ID

	// Desired is what its build holds, in the order of apply, objects included that apply skips (S5.3).
	Desired []inventory.Entry
	// Unbuilt says that Desired is unknown: the Kustomization could not be built in this run. It may own anything then, so
	// nothing that another Kustomization dropped is deleted.
	Unbuilt bool
	// Succeeded says that all of Desired was applied and is healthy, as far as that was asked for. Only then is the
	// Kustomization pruned. Before the first write, say what is expected: everything that is going to be run.
	Succeeded bool
	// Idle says that it was not to run: it is suspended, or left out of the run. So it has not failed either.
	Idle bool

	// Prune, ServiceAccount and Timeout are the spec's; Timeout is S8.1's.
	Prune          bool
	ServiceAccount string
	Timeout        time.Duration
}

// Input is what Candidates works on. Nothing in it is changed.
type Input struct {
	// Nodes are all Kustomizations of the commit, also those that are suspended or left out of the run: what they own is
	// protected.
	Nodes []Node
	// Records are those of the root. One without a node has left Git.
	Records []*inventory.Record
	// StateNamespace is where the records are; it is never deleted.
	StateNamespace string
	// Where says which cluster a reference leads to. It is asked for every reference in nodes and records. Nil: each leads to
	// a cluster of its own, which can be reached.
	Where func(flux.ClusterRef) Place
}

// Place is a cluster, as a run knows it.
type Place struct {
	// Cluster is the one reference that stands for all that lead to the same cluster.
	Cluster flux.ClusterRef
	// Lost says, as half a sentence, why the cluster cannot be reached; empty if it can. Nothing is deleted in a lost one, and
	// nothing of it forgotten.
	Lost string
}

// Deletion is what is deleted of one Kustomization in one cluster.
type Deletion struct {
	Node flux.ID
	// Cluster is where, as Input.Where names it.
	Cluster flux.ClusterRef
	// Left says that the Kustomization is no longer in Git.
	Left bool
	// Empty says that it is, and that its build holds nothing.
	Empty bool
	// Entries are in the order of deletion (S5.7).
	Entries []inventory.Entry
	// Twins are, by the ids of entries, the objects that Kustomizations of the run own and that differ only in their API group: two
	// groups can serve the same object.
	Twins map[string][]flux.Ref
	// Tracked is how many objects its record holds in the cluster.
	Tracked int
	// ServiceAccount is the account to act as, in the Kustomization's namespace; empty for sluice's own.
	ServiceAccount string
	// Wait says that the objects must be gone before the deletion counts as done (S5.19), within Timeout.
	Wait    bool
	Timeout time.Duration
	// Needs are the Kustomizations that this one depends on and the one whose build held it. They are deleted later.
	Needs []flux.ID
}

// Move is an object that another Kustomization of the run has taken over. Applying it there has given it new owner labels; here it
// is only dropped.
type Move struct {
	Entry inventory.Entry
	From  flux.ID
	To    flux.ID
}

// Kept is an object that is stale and yet left in the cluster.
type Kept struct {
	Node  flux.ID
	Entry inventory.Entry
	// Reason says why, as half a sentence.
	Reason string
	// Tracked says that it stays in the record, so that a later run looks at it again.
	Tracked bool
}

// Plan is what Candidates found.
type Plan struct {
	// Deletions are in the order in which they must happen: what depends on something before that (and before the Kustomization
	// whose build held it). None is without entries.
	Deletions []Deletion
	// Moves and Kept are sorted by Kustomization, and within one in the order of its record.
	Moves []Move
	Kept  []Kept

	// rest holds, for each Kustomization whose record may shrink, what it must hold whatever becomes of the deletions.
	rest map[flux.ID][]inventory.Entry
	// left names those of rest that are no longer in Git.
	left map[flux.ID]bool
	// owned maps the objects that are protected to their owners. Their clusters are as Input.Where names them.
	owned map[inventory.Key][]flux.ID
}

// Objects counts the objects to be deleted.
func (p *Plan) Objects() int {
	n := 0
	for _, d := range p.Deletions {
		n += len(d.Entries)
	}
	return n
}

// Candidates decides what is to be deleted, from the records alone; it looks at no cluster.
//
// Per Kustomization of the run that succeeded, stale is what its record holds and its build does not (S5.5). With prune: false it
// is forgotten (S5.6). What another Kustomization of the run owns has moved; the record lets go of it once the other has
// succeeded. A Kustomization that has left Git goes as its deletionPolicy says (S5.17), if the Kustomization whose build held it
// succeeded and prunes (S5.22). Kustomizations, their sources and Flux's own definitions are never deleted (S16.2, S16.3).
//
// The error joins all ids that do not parse.
func Candidates(in Input) (*Plan, error) {
	c := newCandidates(in)
	for _, id := range c.ids {
		record, node := c.records[id], c.nodes[id]
		switch {
		case node == nil:
			c.gone(record)
		case node.Succeeded:
			c.present(node, record)
		}
	}
	if err := errors.Join(c.errs...); err != nil {
		return nil, err
	}
	c.order()
	return c.plan, nil
}

// candidates is the work of Candidates in progress.
type candidates struct {
	state   string
	where   func(flux.ClusterRef) Place
	nodes   map[flux.ID]*Node
	records map[flux.ID]*inventory.Record
	// ids are those of nodes and records, sorted.
	ids     []flux.ID
	unbuilt []flux.ID
	plan    *Plan
	errs    []error
	// byLooks are the objects that nodes want; made when it is asked for.
	byLooks map[alike][]flux.Ref
}

func newCandidates(in Input) *candidates {
	c := &candidates{
		state: in.StateNamespace, where: in.Where, nodes: map[flux.ID]*Node{}, records: map[flux.ID]*inventory.Record{},
		plan: &Plan{rest: map[flux.ID][]inventory.Entry{}, left: map[flux.ID]bool{}, owned: map[inventory.Key][]flux.ID{}},
	}
	if c.where == nil {
		c.where = func(ref flux.ClusterRef) Place { return Place{Cluster: ref} }
	}
	for i := range in.Nodes {
		n := &in.Nodes[i]
		c.nodes[n.ID] = n
		c.ids = append(c.ids, n.ID)
		if n.Unbuilt {
			c.unbuilt = append(c.unbuilt, n.ID)
		}
	}
	for _, r := range in.Records {
		c.records[r.ID] = r
		if c.nodes[r.ID] == nil {
			c.ids = append(c.ids, r.ID)
		}
	}
	sortIDs(c.ids)
	sortIDs(c.unbuilt)
	for _, id := range c.ids {
		n := c.nodes[id]
		if n == nil {
			continue
		}
		own := n.Desired
		// What did not succeed may still hold what it held: its next success decides.
		if r := c.records[id]; r != nil && !n.Succeeded {
			own = inventory.Union(r.Entries, own)
		}
		for _, e := range c.diff(own, nil) {
			c.plan.owned[c.key(e)] = append(c.plan.owned[c.key(e)], id)
		}
	}
	return c
}

// key is the identity of an entry's object, whatever reference leads to its cluster.
func (c *candidates) key(e inventory.Entry) inventory.Key {
	return inventory.Key{Cluster: c.where(e.Cluster).Cluster, ID: e.ID}
}

// diff is inventory.Diff by key.
func (c *candidates) diff(old, now []inventory.Entry) []inventory.Entry {
	seen := map[inventory.Key]bool{}
	for _, e := range now {
		seen[c.key(e)] = true
	}
	var diff []inventory.Entry
	for _, e := range old {
		if key := c.key(e); !seen[key] {
			seen[key] = true
			diff = append(diff, e)
		}
	}
	return diff
}

// present handles a Kustomization that is in Git and succeeded.
func (c *candidates) present(n *Node, r *inventory.Record) {
	rest := inventory.Diff(n.Desired, nil)
	if r == nil {
		c.plan.rest[n.ID] = rest
		return
	}
	stale := c.diff(r.Entries, n.Desired)
	var doomed []inventory.Entry
	if n.Prune {
		var tracked []inventory.Entry
		doomed, tracked = c.sift(n.ID, stale)
		rest = append(rest, tracked...)
	} else {
		for _, e := range stale {
			if to, ok := c.owner(e, n.ID); ok && c.nodes[to].Succeeded {
				c.plan.Moves = append(c.plan.Moves, Move{Entry: e, From: n.ID, To: to})
				continue
			}
			c.keep(n.ID, []inventory.Entry{e}, "its Kustomization has prune: false", false)
		}
	}
	c.plan.rest[n.ID] = rest
	c.doom(Deletion{
		Node: n.ID, Empty: len(n.Desired) == 0,
		ServiceAccount: n.ServiceAccount, Timeout: n.Timeout, Needs: needs(n.Parent, n.DependsOn),
	}, r, doomed)
}

// gone handles a Kustomization that has left Git.
func (c *candidates) gone(r *inventory.Record) {
	if by, why := c.removed(r, map[flux.ID]bool{}); !by {
		c.keep(r.ID, r.Entries, why, true)
		return
	}
	if by := c.needed(r.ID, nil); !by.IsZero() {
		c.keep(r.ID, r.Entries, fmt.Sprintf("Kustomization %q, which needed it before, has not succeeded", by), true)
		return
	}
	c.plan.left[r.ID] = true
	if why := spared(r); why != "" {
		c.plan.rest[r.ID] = nil
		c.keep(r.ID, r.Entries, why, false)
		return
	}
	doomed, tracked := c.sift(r.ID, r.Entries)
	c.plan.rest[r.ID] = tracked
	c.doom(Deletion{
		Node: r.ID, Left: true, ServiceAccount: r.ServiceAccount,
		Wait: r.DeletionPolicy == kustomizev1.DeletionPolicyWaitForTermination, Timeout: r.Timeout,
		Needs: needs(r.Parent, r.DependsOn),
	}, r, doomed)
}

// removed reports whether a Kustomization that has left Git would be removed by Flux: by the prune of the one whose build held it,
// or because that one is removed itself and deletes what it has (S5.22). A marker on it protects it from both (S5.9).
func (c *candidates) removed(r *inventory.Record, seen map[flux.ID]bool) (bool, string) {
	seen[r.ID] = true
	parent := r.Parent
	if r.Marker != "" && !parent.IsZero() {
		return false, fmt.Sprintf("Kustomization %q is marked %s", r.ID, r.Marker)
	}
	if node := c.nodes[parent]; node != nil {
		switch {
		case node.Idle:
			return false, fmt.Sprintf("Kustomization %q, which held Kustomization %q, is not run", parent, r.ID)
		case !node.Succeeded:
			return false, fmt.Sprintf("Kustomization %q, which held Kustomization %q, has not succeeded", parent, r.ID)
		case !node.Prune:
			return false, fmt.Sprintf("Kustomization %q, which held Kustomization %q, has prune: false", parent, r.ID)
		}
		return true, ""
	}
	above := c.records[parent]
	if above == nil || seen[parent] {
		return true, ""
	}
	if by, why := c.removed(above, seen); !by {
		return false, why
	}
	if why := spared(above); why != "" {
		return false, fmt.Sprintf("Kustomization %q, which held Kustomization %q, left Git without deleting what it has: %s", parent, r.ID, why)
	}
	return true, ""
}

// needed names a Kustomization that failed in this run and that by its record needs one that has left Git, directly or through others
// that left: what it still runs is as before, and may use it. Zero if there is none.
func (c *candidates) needed(id flux.ID, seen []flux.ID) flux.ID {
	seen = append(seen, id)
	for _, other := range c.ids {
		r, n := c.records[other], c.nodes[other]
		if r == nil || slices.Contains(seen, other) || !slices.Contains(r.DependsOn, id) {
			continue
		}
		if n != nil {
			if !n.Succeeded && !n.Idle {
				return other
			}
			continue
		}
		if by := c.needed(other, seen); !by.IsZero() {
			return by
		}
	}
	return flux.ID{}
}

// spared says why the removal of a Kustomization deletes nothing (S5.17); empty if it does.
func spared(r *inventory.Record) string {
	switch {
	case r.Suspended:
		return "its Kustomization was suspended when it left Git"
	case r.DeletionPolicy == kustomizev1.DeletionPolicyOrphan:
		return "its Kustomization has deletionPolicy: Orphan"
	case r.DeletionPolicy == kustomizev1.DeletionPolicyDelete, r.DeletionPolicy == kustomizev1.DeletionPolicyWaitForTermination:
		return ""
	case !r.Prune:
		return "its Kustomization has prune: false"
	}
	return ""
}

// sift divides stale entries into those to delete and those that must stay in the record; what is in neither is let go.
func (c *candidates) sift(id flux.ID, stale []inventory.Entry) (doomed, tracked []inventory.Entry) {
	for _, e := range c.diff(stale, nil) {
		ref, err := e.Ref()
		if err != nil {
			c.errs = append(c.errs, fmt.Errorf("record of Kustomization %q: %w", id, err))
			continue
		}
		if to, ok := c.owner(e, id); ok {
			if c.nodes[to].Succeeded {
				c.plan.Moves = append(c.plan.Moves, Move{Entry: e, From: id, To: to})
				continue
			}
			c.keep(id, []inventory.Entry{e}, fmt.Sprintf("it moves to Kustomization %q, which has not succeeded", to), true)
			tracked = append(tracked, e)
			continue
		}
		if len(c.unbuilt) > 0 {
			c.keep(id, []inventory.Entry{e}, fmt.Sprintf("Kustomization %q was not built and may own it", c.unbuilt[0]), true)
			tracked = append(tracked, e)
			continue
		}
		place := c.where(e.Cluster)
		if place.Lost != "" {
			c.keep(id, []inventory.Entry{e}, place.Lost, true)
			tracked = append(tracked, e)
			continue
		}
		if why := c.untouchable(place.Cluster, ref); why != "" {
			c.keep(id, []inventory.Entry{e}, why, false)
			continue
		}
		doomed = append(doomed, e)
	}
	return doomed, tracked
}

// owner returns another Kustomization of the run that owns the entry: one that succeeded if there is one.
func (c *candidates) owner(e inventory.Entry, not flux.ID) (flux.ID, bool) {
	var found flux.ID
	for _, id := range c.plan.owned[c.key(e)] {
		if id == not {
			continue
		}
		if c.nodes[id].Succeeded {
			return id, true
		}
		if found.IsZero() {
			found = id
		}
	}
	return found, !found.IsZero()
}

// untouchable says why an object is never deleted, whatever the records say; empty if it may be. Flux's other components are
// known by a label on the live object. In other clusters all of Flux's objects are like any others: applied, as S4.42 has it, and
// so pruned.
func (c *candidates) untouchable(cluster flux.ClusterRef, r flux.Ref) string {
	switch {
	case !cluster.IsOwn():
		return ""
	case r.Group == flux.Group && r.Kind == flux.KustomizationKind:
		return "it is a Kustomization, which sluice runs and does not own"
	case flux.IsSource(r):
		return "it is a source, which sluice reads and does not own"
	case r.Group == "apiextensions.k8s.io" && r.Kind == "CustomResourceDefinition" && strings.HasSuffix(r.Name, flux.GroupSuffix):
		return "it defines a kind of Flux"
	case r.Group == "" && r.Kind == "Namespace" && r.Name == c.state:
		return "sluice keeps its records in it"
	}
	return ""
}

func (c *candidates) keep(id flux.ID, entries []inventory.Entry, why string, tracked bool) {
	for _, e := range inventory.Diff(entries, nil) {
		c.plan.Kept = append(c.plan.Kept, Kept{Node: id, Entry: e, Reason: why, Tracked: tracked})
	}
}

// doom makes the deletions of a Kustomization: one for each cluster, the run's own first.
func (c *candidates) doom(d Deletion, r *inventory.Record, doomed []inventory.Entry) {
	tracked := c.byCluster(r.Entries)
	groups := c.byCluster(doomed)
	for _, cluster := range slices.SortedFunc(maps.Keys(groups), compareClusters) {
		// Every entry has been parsed before.
		sorted, err := inventory.SortForDeletion(groups[cluster])
		if err != nil {
			c.errs = append(c.errs, err)
			return
		}
		d.Cluster, d.Entries, d.Tracked, d.Twins = cluster, sorted, len(tracked[cluster]), c.twins(cluster, sorted)
		c.plan.Deletions = append(c.plan.Deletions, d)
	}
}

// alike tells objects apart but for their API group.
type alike struct {
	cluster               flux.ClusterRef
	kind, namespace, name string
}

// twins are those of entries in a cluster.
func (c *candidates) twins(cluster flux.ClusterRef, entries []inventory.Entry) map[string][]flux.Ref {
	if c.byLooks == nil {
		c.byLooks = map[alike][]flux.Ref{}
		for _, id := range c.ids {
			n := c.nodes[id]
			if n == nil {
				continue
			}
			for _, e := range n.Desired {
				if ref, err := e.Ref(); err == nil { // that of another group is told when it is stale itself
					looks := alike{c.where(e.Cluster).Cluster, ref.Kind, ref.Namespace, ref.Name}
					c.byLooks[looks] = append(c.byLooks[looks], ref)
				}
			}
		}
	}
	var twins map[string][]flux.Ref
	for _, e := range entries {
		ref, err := e.Ref()
		if err != nil {
			continue // sift has told it
		}
		for _, other := range c.byLooks[alike{cluster, ref.Kind, ref.Namespace, ref.Name}] {
			if other.Group != ref.Group {
				if twins == nil {
					twins = map[string][]flux.Ref{}
				}
				twins[e.ID] = append(twins[e.ID], other)
			}
		}
	}
	return twins
}

func (c *candidates) byCluster(entries []inventory.Entry) map[flux.ClusterRef][]inventory.Entry {
	groups := map[flux.ClusterRef][]inventory.Entry{}
	for _, e := range entries {
		cluster := c.where(e.Cluster).Cluster
		groups[cluster] = append(groups[cluster], e)
	}
	return groups
}

func compareClusters(a, b flux.ClusterRef) int { return strings.Compare(a.String(), b.String()) }

// order sorts the deletions: a Kustomization comes after all that need it. Kustomizations without anything to delete count too,
// as links between others. In a cycle, which only old records can make together with a new commit, the id decides.
func (c *candidates) order() {
	needed := map[flux.ID][]flux.ID{}
	dependents := map[flux.ID]int{}
	for _, id := range c.ids {
		if n := c.nodes[id]; n != nil {
			needed[id] = needs(n.Parent, n.DependsOn)
		} else {
			needed[id] = needs(c.records[id].Parent, c.records[id].DependsOn)
		}
		for _, need := range needed[id] {
			dependents[need]++
		}
	}
	position := map[flux.ID]int{}
	waiting := slices.Clone(c.ids)
	for len(waiting) > 0 {
		next := slices.IndexFunc(waiting, func(id flux.ID) bool { return dependents[id] == 0 })
		next = max(next, 0)
		id := waiting[next]
		waiting = slices.Delete(waiting, next, next+1)
		position[id] = len(position)
		for _, need := range needed[id] {
			dependents[need]--
		}
	}
	sort.SliceStable(c.plan.Deletions, func(i, j int) bool {
		return position[c.plan.Deletions[i].Node] < position[c.plan.Deletions[j].Node]
	})
}

// needs lists each id once.
func needs(parent flux.ID, dependsOn []flux.ID) []flux.ID {
	var ids []flux.ID
	for _, id := range append(slices.Clone(dependsOn), parent) {
		if !id.IsZero() && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func sortIDs(ids []flux.ID) {
	sort.Slice(ids, func(i, j int) bool { return ids[i].String() < ids[j].String() })
}
