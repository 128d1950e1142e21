package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/source"
)

// A root is known by its entry folder, or by the Kustomization that the folder
// holds of itself. When the folder gets another name, or that Kustomization comes
// or goes, what is on record belongs to a root that nobody will run again. The run
// takes its place if there can be no doubt that it is the same one.

// renamed takes over from the roots that have these Kustomizations on record, or
// notes why not.
func (r *run) renamed(ctx context.Context, nodes []*node) error {
	r.renames, r.distinct = nil, map[flux.ID]string{}
	if r.state.CheckOrigin(r.path) != nil {
		same, err := r.sameRoot(ctx, r.root, r.state.Root)
		if err != nil {
			return err
		}
		if same {
			r.tellRenamed(r.state.Root)
			r.state.Root.Path = r.path
		}
	}
	var ids []flux.ID
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	var roots []flux.ID
	for _, owned := range r.state.Owned(ids) {
		if !slices.Contains(roots, owned.Root) {
			roots = append(roots, owned.Root)
		}
	}
	for _, id := range roots {
		old, err := r.store.Load(ctx, id)
		if err != nil {
			return err
		}
		same, err := r.sameRoot(ctx, id, old.Root)
		if err != nil {
			return err
		}
		if !same {
			continue
		}
		r.tellRenamed(old.Root)
		if r.state.Root == nil {
			r.state.Root = old.Root.Renamed(r.root)
			r.state.Root.Path = r.path
		}
		r.state.TakeOver(old, r.root)
		r.renames = append(r.renames, old)
	}
	return nil
}

// sameRoot says whether nothing speaks against taking a root's place.
func (r *run) sameRoot(ctx context.Context, id flux.ID, old *inventory.Root) (bool, error) {
	why, err := r.differs(ctx, old)
	if why != "" {
		r.distinct[id] = " (" + why + ")"
	}
	return err == nil && why == "", err
}

func (r *run) tellRenamed(old *inventory.Root) {
	text := fmt.Sprintf("root %s is %s now", old.ID, r.root)
	if flux.CleanPath(old.Path) != flux.CleanPath(r.path) {
		text = fmt.Sprintf("the entry folder %s is %s now", old.Path, r.path)
	}
	r.notice(event.Notice{Level: event.Warning, Code: "renamed-root", Text: text + ": what is on record of it is taken over"})
}

// differs says why an earlier root may be another one than this run's; empty if it
// is the same under another name: its folder is this one or has left Git, the commit
// that was applied last from there is behind this one in the same history, and both
// hold the same Kustomizations. The last keeps the folder of another cluster, run by
// mistake, from pruning what it does not know.
func (r *run) differs(ctx context.Context, old *inventory.Root) (string, error) {
	if old == nil || old.Path == "" {
		return "nothing is on record of that root itself", nil
	}
	if flux.CleanPath(old.Path) != flux.CleanPath(r.path) {
		switch _, err := fs.Stat(r.tree, flux.CleanPath(old.Path)); {
		case err == nil:
			return fmt.Sprintf("its folder %s is still in Git", old.Path), nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	relation, err := r.ancestry(ctx, old.Started.Commit)
	if err != nil {
		return "", err
	}
	back := relation.Kind == source.Descendant && r.options.AllowRollback
	if relation.Kind != source.Ancestor && relation.Kind != source.Same && !back {
		return fmt.Sprintf("commit %s, which was applied from %s, is not known to be part of the history of this one", short(old.Started.Commit), old.Path), nil
	}
	var before, now []string
	for _, id := range old.Nodes {
		if id != old.ID {
			before = append(before, id.String())
		}
	}
	for _, n := range r.sorted() {
		if n.ID != r.root {
			now = append(now, n.ID.String())
		}
	}
	slices.Sort(before)
	if !slices.Equal(before, now) {
		return fmt.Sprintf("%s held other Kustomizations than this folder does; rename it in a commit that changes nothing else", old.Path), nil
	}
	return "", nil
}

// takePlace makes what renamed took over this root's in the cluster, under the
// locks of those roots, each of whose own records goes last: a run that is cut off
// before finds it again.
func (r *run) takePlace(ctx context.Context) []event.Failure {
	for _, old := range r.renames {
		held, failure := r.acquire(ctx, old.Root.ID)
		if failure != nil {
			return []event.Failure{*failure}
		}
		at := time.Now().UTC()
		var writes []func() error
		for _, record := range old.Sorted() {
			writes = append(writes, func() error { return r.saveRecord(ctx, record, at) })
		}
		errs := inParallel(savers, writes)
		if errors.Join(errs...) == nil { // else a record may yet name what looks left over
			errs = append(errs, r.store.Sweep(ctx, old.Root.ID))
		}
		if err := errors.Join(errs...); err == nil {
			errs = append(errs, r.store.DeleteRoot(ctx, old.Root))
		}
		// What is not freed frees itself.
		errs = append(errs, held.Release())
		if err := errors.Join(errs...); err != nil {
			return r.failuresOf(ctx, "record", nil, err)
		}
	}
	r.renames = nil
	return nil
}
