package prune

import (
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
)

// After is what a record must hold when pruning is over.
type After struct {
	ID      flux.ID
	Entries []inventory.Entry
	// Delete says that the record itself has served: the Kustomization has left Git and nothing of it is tracked.
	Delete bool
}

// After returns, sorted by id, what the records must hold after pruning: of each Kustomization that succeeded, or that left Git
// and was removed. All other records stay as they are. An entry leaves a record only if a result settles it, so results may be
// incomplete, or nil if nothing was deleted.
func (p *Plan) After(results []Result) []After {
	settled := map[flux.ID]map[inventory.Key]bool{}
	for _, r := range results {
		if !r.Settled() {
			continue
		}
		if settled[r.Node] == nil {
			settled[r.Node] = map[inventory.Key]bool{}
		}
		settled[r.Node][r.Entry.Key()] = true
	}
	survivors := map[flux.ID][]inventory.Entry{}
	for _, d := range p.Deletions {
		for _, e := range d.Entries {
			if !settled[d.Node][e.Key()] {
				survivors[d.Node] = append(survivors[d.Node], e)
			}
		}
	}
	var ids []flux.ID
	for id := range p.rest {
		ids = append(ids, id)
	}
	sortIDs(ids)
	after := make([]After, 0, len(ids))
	for _, id := range ids {
		entries := inventory.Union(survivors[id], p.rest[id])
		after = append(after, After{ID: id, Entries: entries, Delete: p.left[id] && len(entries) == 0})
	}
	return after
}
