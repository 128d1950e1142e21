package run

import (
	"context"
	"time"

	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/lock"
)

// lock keeps other runs of this root away, and makes sure that the records are
// still those that the plan was made from.
func (r *run) lock(ctx context.Context) []event.Failure {
	held, failure := r.acquire(ctx, r.root)
	if failure != nil {
		return []event.Failure{*failure}
	}
	r.hold(ctx, held)
	if failures := r.upToDate(ctx); len(failures) > 0 {
		return failures
	}
	return r.undertake(ctx)
}

// acquire takes the lock of a root.
func (r *run) acquire(ctx context.Context, root flux.ID) (*lock.Lock, *event.Failure) {
	c, err := r.cluster.Client("")
	if err != nil {
		f := r.failure(ctx, "cluster", nil, err)
		return nil, &f
	}
	commit := ""
	if r.commit != nil { // status and destroy are about none
		commit = r.commit.Hash
	}
	// A renewal must not come too late because two thousand other requests came
	// first.
	held, err := lock.Acquire(cluster.Urgent(ctx), c, lock.Options{
		Namespace: r.options.StateNamespace, Name: inventory.RootName(root), Wait: r.options.LockWait,
		Holder:          lock.Holder{Identity: r.options.Identity, RunURL: r.options.RunURL, Actor: r.options.Actor, Commit: commit},
		EnsureNamespace: r.ensure,
		Waiting: func(e *lock.HeldError) {
			r.notice(event.Notice{Level: event.Warning, Code: "lock-wait", Text: "waiting for the lock, which is held by " + e.Holder.String()})
		},
	})
	if err != nil {
		f := r.failure(ctx, "lock", nil, err)
		if _, ok := as[*lock.HeldError](err); ok {
			f.Reason = "LockHeld"
		}
		return nil, &f
	}
	return held, nil
}

// upToDate looks whether another run of this root ended since the records were
// read, most likely the one whose lock this run waited for, and if so makes the
// plan anew.
func (r *run) upToDate(ctx context.Context) []event.Failure {
	fresh, err := r.store.Root(ctx, r.root)
	if err != nil {
		return r.failuresOf(ctx, "record", nil, err)
	}
	if updated(fresh).Equal(updated(r.state.Root)) {
		return nil
	}
	r.notice(event.Notice{Level: event.Info, Code: "planned-again", Text: "another run of this root has ended meanwhile: looking at the cluster again"})
	for _, stage := range []func(context.Context) []event.Failure{r.recall, r.plan, r.guard, r.approved} {
		if failures := stage(ctx); len(failures) > 0 {
			return failures
		}
	}
	return nil
}

// updated is when a root's record was last written; zero if never.
func updated(root *inventory.Root) time.Time {
	if root == nil {
		return time.Time{}
	}
	return root.Updated
}

// undertake notes that this run is the one that writes now. If it is planned to
// write, that is stored at once; else before the first write, if there should be
// one after all.
func (r *run) undertake(ctx context.Context) []event.Failure {
	quiet := r.quiet()
	root := r.state.Root
	if root == nil {
		root = &inventory.Root{ID: r.root}
	} else {
		root = root.Clone()
	}
	root.Path, root.URL = r.path, r.commit.URL
	root.Nodes = nil
	for _, n := range r.sorted() {
		root.Nodes = append(root.Nodes, n.ID)
	}
	root.Updated, root.ToolVersion = time.Now().UTC(), r.options.Version
	root.Begin(inventory.Run{Revision: r.commit.Revision, Commit: r.commit.Hash, Started: root.Updated, RunURL: r.options.RunURL, Actor: r.options.Actor})
	r.state.Root = root
	if quiet {
		return nil
	}
	if failures := r.begin(ctx); len(failures) > 0 {
		return failures
	}
	if failures := r.takePlace(ctx); len(failures) > 0 {
		return failures
	}
	return r.saveLeft(ctx)
}
