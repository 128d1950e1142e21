package run

import (
	"context"
	"errors"
	"time"

	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/lock"
	"github.com/sluicerun/sluice/internal/safe"
)

// lock keeps other runs of this root away, and makes sure that the records are
// still those that the plan was made from.
func (r *run) lock(ctx context.Context) []event.Failure {
	held, failure := r.acquire(ctx, r.root)
	if failure != nil {
		return []event.Failure{*failure}
	}
	r.hold(ctx, held)
	failures := r.upToDate(ctx)
	if len(failures) == 0 {
		failures = r.undertake(ctx)
	}
	return r.orLost(ctx, failures)
}

// hold keeps a lock from now on: if it is lost, the run ends, and nothing more is
// written.
func (r *run) hold(ctx context.Context, held *lock.Lock) {
	r.held.Store(held)
	if r.abandoned.Load() {
		r.release() // it came too late, and nobody else would
		return
	}
	go func() {
		select {
		case <-held.Lost():
			r.abort(held.Err())
		case <-ctx.Done():
		}
	}()
}

// mayWrite is asked before each request that is to change something. Up to the lock
// there is none but those that take it. From then on this is the last word: whoever
// was asleep while the lock ran out, as a process that was stopped is, finds that out
// here before anything else.
//
// A stage that was left to itself may not write either: the lock is free by then.
func (r *run) mayWrite() error {
	if r.abandoned.Load() {
		return errAbandoned
	}
	held := r.held.Load()
	if held == nil {
		return nil
	}
	err := held.Valid()
	if err != nil {
		r.abort(err)
	}
	return err
}

// errAbandoned is why a stage that was left to itself may not write any more.
var errAbandoned = errors.New("the run has ended without waiting for this")

// lockLost returns the *lock.LostError if the lock was lost, else nil. The context
// need not know: it has one cause only, and a signal or the limit may have come first.
func (r *run) lockLost(ctx context.Context) error {
	if lost, ok := as[*lock.LostError](context.Cause(ctx)); ok {
		return lost
	}
	if held := r.held.Load(); held != nil {
		return held.Valid()
	}
	return nil
}

// release frees the lock. One that was lost stays with the run, which may not write
// any more. It is safe for concurrent use: a run is also freed of its lock while a
// stage hangs.
func (r *run) release() {
	held := r.held.Load()
	if held == nil || held.Err() != nil || !r.held.CompareAndSwap(held, nil) {
		return
	}
	if err := safe.Do(held.Release); err != nil {
		r.notice(event.Notice{Level: event.Warning, Code: "lock-release", Text: "the lock could not be freed: " + err.Error(),
			Hint: "it frees itself within seconds"})
	}
}

// orLost is why a stage under the lock could not go on: the loss of the lock, rather
// than what failed because of it.
func (r *run) orLost(ctx context.Context, failures []event.Failure) []event.Failure {
	if _, lost := as[*lock.LostError](context.Cause(ctx)); lost && len(failures) > 0 {
		return []event.Failure{interrupted(ctx)}
	}
	return failures
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
	held, err := lock.Acquire(cluster.ForLock(ctx), c, lock.Options{
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

// contended says whether another run may be at work on the root whose state was
// just read: a record tells of one that has not ended, and the lock is held. What
// that one does from now on need not show in the records, which name what it is
// about to touch, not how far it has come. A run that was killed long ago is no
// reason: nobody holds its lock. Nor is anybody while this run holds it.
func (r *run) contended(ctx context.Context, state *inventory.State) bool {
	unfinished := state.Root != nil && unended(state.Root.Started.Result)
	for _, record := range state.Records {
		unfinished = unfinished || unended(record.Result)
	}
	if !unfinished || r.held.Load() != nil {
		return false
	}
	c, err := r.cluster.Client("")
	if err != nil {
		return true
	}
	held, err := lock.Look(cluster.Urgent(ctx), c, r.options.StateNamespace, inventory.RootName(r.root))
	return err != nil || held != nil && !held.Expired
}

// unended says whether a result is that of a run which is at work, or was killed.
func unended(result inventory.Result) bool {
	return result == inventory.Applying || result == inventory.Destroying
}

// stale says, once the lock is held, whether what was found out before may no
// longer be so: another run of this root was at work meanwhile, most likely the one
// whose lock this run waited for. It may have ended, or been killed at any point.
func (r *run) stale(ctx context.Context) (bool, error) {
	if r.busyRoot {
		return true, nil
	}
	fresh, err := r.store.Versions(ctx, r.root)
	if err != nil {
		return false, err
	}
	return !fresh.Same(r.state.Versions), nil
}

// again tells that everything is looked at once more.
func (r *run) again() {
	r.notice(event.Notice{Level: event.Info, Code: "planned-again", Text: "another run of this root was at work meanwhile: looking at the cluster again"})
}

// upToDate makes the plan anew if it is stale. The guards are asked again, too: what
// the other run brought may be newer than this commit, or no longer what was approved.
func (r *run) upToDate(ctx context.Context) []event.Failure {
	stale, err := r.stale(ctx)
	if err != nil {
		return r.failuresOf(ctx, "record", nil, err)
	}
	if !stale {
		return nil
	}
	r.again()
	for _, stage := range []func(context.Context) []event.Failure{r.recall, r.plan, r.guard, r.approved} {
		if failures := stage(ctx); len(failures) > 0 {
			return failures
		}
	}
	return nil
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
