package run

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/retry"
	"github.com/sluicerun/sluice/internal/safe"
)

// A record goes through a run like this: recall reads it or makes a new one;
// intend widens it before the first object is touched; save narrows it to what
// pruning has left, and notes how the run ended. One that says all that by itself
// is not written: the root's record confirms it. The root's own is written before
// anything else, to tell of a run that was cut off, and at the end; a run that
// finds nothing to write tells of itself only then.

// intentGrace is how long the write of a record may go on after the end of the
// run's context.
const intentGrace = 2 * time.Second

// intend stores, before a node's objects are touched, all that it has and all
// that it is about to have. A record that says so already is not written.
func (r *run) intend(ctx context.Context, n *node) error {
	if n.recorded() && n.attempts == 1 {
		r.respec(n.record, n.Kustomization)
		return nil
	}
	failures := r.begin(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx) // the grace is for what is under way, not to begin anything
	}
	if len(failures) > 0 {
		return &failed{failures}
	}
	record := n.record
	before := record.Clone()
	r.respec(record, n.Kustomization)
	record.Entries = inventory.Union(record.Entries, n.desiredEntries())
	record.Result = inventory.Applying
	// A write that is torn leaves a record that this run cannot write again.
	whole, cancel := retry.Outlive(ctx, intentGrace)
	defer cancel()
	if err := r.saveRecord(whole, record, time.Now().UTC()); err != nil {
		n.record = before
		return err
	}
	return nil
}

// respec gives a record what the manifest says. What the Kustomization depended on
// before and has left Git stays among its dependencies until it is ready: what it still
// runs may need that. It reports whether the manifest says anything else.
func (r *run) respec(record *inventory.Record, k *flux.Kustomization) bool {
	before := record.DependsOn
	changed := record.SetSpec(k)
	for _, dep := range before {
		if !slices.Contains(record.DependsOn, dep) && r.nodes.get(dep) == nil {
			record.DependsOn = append(slices.Clone(record.DependsOn), dep)
		}
	}
	return changed
}

// recorded says whether a node's turn touches nothing that its record does not
// tell of: the plan has nothing to do for it, and its last run ended well.
func (n *node) recorded() bool {
	r := n.record
	return r.Stored() && r.Result == inventory.Ready && n.deferred == "" && !n.willChange() &&
		len(inventory.Union(r.Entries, n.desiredEntries())) == len(r.Entries)
}

// quiet says whether the run, as it is planned, writes nothing but how it ended.
func (r *run) quiet() bool {
	if r.state.Root == nil || r.doomed() > 0 || len(r.renames)+len(r.left) > 0 {
		return false
	}
	return !slices.ContainsFunc(r.sorted(), func(n *node) bool { return !n.excluded && !n.Spec.Suspend && !n.recorded() })
}

// begin stores that this run begins to write, before its first write to anything
// but the lock. Later calls do nothing. A conflict means that somebody wrote
// without the lock.
func (r *run) begin(ctx context.Context) []event.Failure {
	r.beginning.Lock()
	defer r.beginning.Unlock()
	if r.begun {
		return nil
	}
	if ctx.Err() != nil { // perhaps while another was about to begin
		return []event.Failure{interrupted(ctx)}
	}
	whole, cancel := retry.Outlive(ctx, intentGrace)
	defer cancel()
	if err := r.store.SaveRoot(whole, r.state.Root); err != nil {
		f := r.failure(ctx, "record", nil, err)
		if _, ok := as[*inventory.ConflictError](err); ok {
			f.Phase, f.Reason = "lock", "StalePlan"
			f.Text = "another run of this root wrote while this one was planning: " + f.Text
			f.Hint = "run again"
		}
		return []event.Failure{f}
	}
	r.begun = true
	return nil
}

// desiredEntries is what the inventory holds of the node's objects, in the order
// of apply once they have been applied (S5.3). For skipped objects that are the
// live ones' ids (S4.26).
func (n *node) desiredEntries() []inventory.Entry {
	if n.entries != nil {
		return n.entries
	}
	refs := make([]flux.Ref, len(n.objects))
	for i, o := range n.objects {
		refs[i] = o.Ref()
	}
	return inventory.EntriesIn(n.Cluster(), refs)
}

// settle keeps the ids as a full apply gave them back.
func (n *node) settle(results []apply.Result) {
	refs := make([]flux.Ref, len(results))
	for i, result := range results {
		refs[i] = result.Ref
	}
	n.entries = inventory.EntriesIn(n.Cluster(), refs)
}

// save brings the records up to date: how each node that had its turn ended, and
// what it still has in the cluster. The root's record comes last: when it says
// that a run has ended, all others do.
func (r *run) save(ctx context.Context, verdict event.Verdict) error {
	at := time.Now().UTC()
	root := r.state.Root
	var writes []func() error
	write := func(record *inventory.Record) {
		delete(root.Confirmed, record.ID)
		writes = append(writes, func() error { return r.saveRecord(ctx, record, at) })
	}
	// conclude notes how a node ended, and saves that unless the root can say it.
	var confirmed []*inventory.Record
	conclude := func(n *node) {
		r.conclude(n.record, n, at)
		n.record.Updated = at
		if root.Confirm(n.record) {
			confirmed = append(confirmed, n.record)
			return
		}
		write(n.record)
	}
	narrowed := map[string]bool{}
	for _, after := range r.narrow {
		narrowed[after.ID.String()] = true
		record := r.state.Records[after.ID]
		n := r.nodes.get(after.ID)
		if n != nil {
			record = n.record
		}
		switch {
		case record == nil:
		case after.Delete:
			delete(root.Confirmed, record.ID)
			writes = append(writes, func() error { return r.store.Delete(ctx, record) })
		case n == nil:
			if record.Entries = after.Entries; !record.Says() {
				write(record)
			}
		default:
			record.Entries = after.Entries
			conclude(n)
		}
	}
	for _, n := range r.sorted() {
		switch {
		case narrowed[n.ID.String()] || n.record == nil || n.excluded:
		case n.started.IsZero():
			if r.delivered(n) && n.record.Stored() && r.respec(n.record, n.Kustomization) {
				write(n.record)
			}
		case n.record.Stored() || len(n.record.Entries) > 0:
			conclude(n)
		}
	}
	root.Updated = at
	root.End(rootResults[verdict], at)
	if root.Check() != nil {
		// Confirmations of very many do not fit; then each says it itself, those
		// that this run left out as well.
		for _, record := range r.state.Sorted() {
			if _, ok := root.Confirmed[record.ID]; ok && !slices.Contains(confirmed, record) {
				writes = append(writes, func() error { return r.store.Save(ctx, record) })
			}
		}
		root.Confirmed = nil
		for _, record := range confirmed {
			write(record)
		}
	}
	errs := inParallel(savers, writes)
	if errors.Join(errs...) == nil { // else a record may yet name what looks left over
		errs = append(errs, r.store.Sweep(ctx, r.root))
	}
	return errors.Join(append(errs, r.store.SaveRoot(ctx, root))...)
}

// delivered says whether the Kustomization that holds a node's manifest was
// applied in this run. In Flux the object then has the new spec, whether or not its
// turn came, and that spec decides what becomes of its objects when it leaves Git
// (S5.17, S5.22).
func (r *run) delivered(n *node) bool {
	switch r.ends[n.Parent].Result {
	case event.Ready, event.Unhealthy:
		return true
	}
	return false
}

// inParallel does things, so many at a time, and returns their errors in order.
func inParallel(most int, all []func() error) []error {
	errs := make([]error, len(all))
	slots := make(chan struct{}, most)
	var group sync.WaitGroup
	for i, do := range all {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			errs[i] = safe.Do(do)
		})
	}
	group.Wait()
	return errs
}

// conclude notes in a node's record how its run ended.
func (r *run) conclude(record *inventory.Record, n *node, at time.Time) {
	end, ok := r.ends[n.ID]
	if !ok {
		return
	}
	r.respec(record, n.Kustomization)
	if end.Result == event.Ready {
		record.SetSpec(n.Kustomization)
	}
	if result, ok := nodeResults[end.Result]; ok {
		record.Result = result
	}
	if end.Result == event.Ready {
		record.Revision = n.revision
	}
	status := snapshotStatus[end.Result]
	if end.Result == event.Ready && r.unpruned[n.ID] {
		status = inventory.StatusPruneFailed
	}
	if digest, ok := n.digest(); ok && status != "" {
		record.Digest = digest
		record.History.Upsert(digest, at, end.Duration, status, map[string]string{"revision": n.revision})
	}
}

// snapshotStatus is Flux's word for how a build ended in the cluster; there is
// none for one that never got there (S1.15).
var snapshotStatus = map[event.Result]string{
	event.Ready: inventory.StatusSucceeded, event.Failed: inventory.StatusFailed, event.Unhealthy: inventory.StatusHealthCheckFailed,
}

// digest is the sum of what a node was built to; false if it was not built.
func (n *node) digest() (string, bool) { return n.sum, n.built }

func (r *run) saveRecord(ctx context.Context, record *inventory.Record, at time.Time) error {
	record.Updated, record.ToolVersion = at, r.options.Version
	return r.store.Save(ctx, record)
}

var nodeResults = map[event.Result]inventory.Result{
	event.Ready: inventory.Ready, event.Failed: inventory.Failed, event.Unhealthy: inventory.Unhealthy, event.Cancelled: inventory.Cancelled,
}

var rootResults = map[event.Verdict]inventory.Result{
	event.Live: inventory.Ready, event.VerdictFailed: inventory.Failed, event.VerdictUnhealthy: inventory.Unhealthy,
	event.VerdictCancelled: inventory.Cancelled, event.VerdictRefused: inventory.Failed, event.VerdictInvalid: inventory.Failed,
}
