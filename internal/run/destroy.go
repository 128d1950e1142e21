package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/prune"
)

// destroying is what destroy knows of the root that it is about.
type destroying struct {
	doom  *prune.Plan         // condemn
	turns []*inventory.Record // condemn: the records in the order in which they go
	going int                 // condemn: how many objects are to be deleted
	spent []prune.Result      // demolish: what became of objects so far
	over  map[flux.ID]bool    // those whose end was told
	// idle is set if there is nothing to destroy.
	idle bool
	// pending is how many deletions of each are to come.
	pending map[flux.ID]int
}

// target finds the one root to destroy.
func (r *run) target(ctx context.Context) []event.Failure {
	roots, failures := r.chosen()
	missing := len(failures) > 0 || len(roots) == 0
	unknown := r.obscure()
	switch {
	case missing && r.options.IfExists && len(unknown) > 0:
		// To say that there is nothing would be a guess.
		return append(r.unreadable(ctx, unknown), event.Failure{Phase: "record", Reason: "RootNotFound",
			Text: fmt.Sprintf("no root of %s is on record in namespace %q, but it may be one whose own record is missing or cannot be read: %s",
				r.wanted(), r.options.StateNamespace, r.rootNames(unknown)),
			Hint: "if it is that one, name it; else make the record anew with sluice status --repair"})
	case missing && r.options.IfExists:
		r.idle = true
		r.notice(event.Notice{Level: event.Warning, Code: "nothing-to-destroy",
			Text: fmt.Sprintf("no root of %s is on record in namespace %q: there is nothing to destroy", r.wanted(), r.options.StateNamespace)})
		return nil
	case len(failures) > 0:
		return failures
	case len(roots) == 0:
		return []event.Failure{{Phase: "record", Reason: "RootNotFound", Text: fmt.Sprintf("nothing is on record in namespace %q", r.options.StateNamespace),
			Hint: "there is nothing to destroy here; check --context and --state-namespace"}}
	case len(roots) > 1:
		return []event.Failure{{Phase: "record", Reason: "RootRequired", Text: "several roots are on record, and only one can be destroyed at a time",
			Hint: "name one of: " + r.rootNames(roots)}}
	}
	r.root = roots[0]
	return nil
}

// condemn decides what goes and in which order, and asks the guards.
func (r *run) condemn(ctx context.Context) []event.Failure {
	var err error
	if r.state, err = r.store.Load(ctx, r.root); err != nil {
		return r.failuresOf(ctx, "record", nil, err)
	}
	r.busyRoot = !r.options.DryRun && r.contended(ctx, r.state)
	r.tellReached(r.root, r.state)
	records := r.state.Sorted()
	if failures := r.unclaimed(ctx, records); len(failures) > 0 {
		return failures
	}
	r.reachRecorded(ctx, records)
	if r.doom, err = prune.Candidates(prune.Input{StateNamespace: r.options.StateNamespace, Records: records, Where: r.homes.where}); err != nil {
		return r.failuresOf(ctx, "record", nil, err)
	}
	for i := range r.doom.Deletions {
		// Whatever its policy: who destroys wants to know that it is gone.
		r.doom.Deletions[i].Wait = true
	}
	r.queue(records)
	findings, err := prune.Check(ctx, r.pruneAccess, r.doom, prune.Guards{AllowEmpty: true, MaxPrunePercent: 100, AllowDelete: r.options.AllowDelete})
	if err != nil {
		return r.failuresOf(ctx, "cluster", nil, err)
	}
	var failures []event.Failure
	for _, refusal := range findings.Refusals {
		f := r.failure(ctx, "guard", nil, refusal)
		f.Node, f.Reason = refusal.Node.String(), guardReasons[refusal.Guard]
		failures = append(failures, f)
	}
	r.going = len(findings.Doomed)
	r.emit(r.condemned(findings))
	return failures
}

// unclaimed refuses if one of Flux's controllers would make again what is deleted.
func (r *run) unclaimed(ctx context.Context, records []*inventory.Record) []event.Failure {
	var question inventory.Question
	for _, record := range records {
		question.Run = append(question.Run, record.ID)
	}
	question.Commit = question.Run
	c, err := r.cluster.Client("")
	if err != nil {
		return r.failuresOf(ctx, "cluster", nil, err)
	}
	facts, err := inventory.Adopt(ctx, c, question)
	if err != nil {
		return r.failuresOf(ctx, "record", nil, err)
	}
	if err := facts.Reconciling(); err != nil {
		f := r.failure(ctx, "guard", nil, err)
		f.Reason = "LiveController"
		return []event.Failure{f}
	}
	return nil
}

// queue puts the Kustomizations in the order in which they go and announces them.
// Those that lose nothing stand before the last one.
func (r *run) queue(records []*inventory.Record) {
	first := r.turns == nil
	r.turns, r.over, r.pending = nil, map[flux.ID]bool{}, map[flux.ID]int{}
	var order []flux.ID
	for _, d := range r.doom.Deletions {
		r.pending[d.Node]++
		if !slices.Contains(order, d.Node) {
			order = append(order, d.Node)
		}
	}
	for _, id := range order {
		r.turns = append(r.turns, r.state.Records[id])
	}
	for _, record := range records {
		if r.pending[record.ID] == 0 {
			r.turns = append(r.turns, record)
		}
	}
	if !first {
		return // announced already
	}
	for _, record := range r.turns {
		parent := ""
		if !record.Parent.IsZero() {
			parent = record.Parent.String()
		}
		n := event.Node{ID: record.ID.String(), Parent: parent, Path: record.Path, Revision: record.Revision, Objects: len(record.Entries), Suspended: record.Suspended}
		for _, dep := range record.DependsOn {
			n.DependsOn = append(n.DependsOn, dep.String())
		}
		r.emit(event.NodeFound{At: now(), Node: n})
	}
}

// condemned is what would go and what would stay, as an event.
func (r *run) condemned(findings *prune.Findings) event.Planned {
	planned := event.Planned{At: now()}
	for _, o := range findings.Doomed {
		planned.Changes = append(planned.Changes, event.Change{Node: o.Node.String(), Object: o.Ref.String(),
			APIVersion: o.Ref.GVK().GroupVersion().String(), Action: event.Delete})
	}
	for _, kept := range slices.Concat(r.doom.Kept, findings.Kept) {
		planned.Changes = append(planned.Changes, entryChange(kept.Node, kept.Entry, event.Kept, kept.Reason))
	}
	for _, record := range r.turns {
		planned.Turns = append(planned.Turns, event.Turn{Node: record.ID.String()})
	}
	return planned
}

// approve asks the user.
func (r *run) approve(ctx context.Context) []event.Failure {
	return r.confirm(ctx, Question{
		Lines: []string{fmt.Sprintf("%s of root %s would be deleted from %s.", count(r.going, "object", "objects"), r.root, cmp.Or(r.cluster.Context, r.cluster.Server))},
		Word:  r.root.String(),
	})
}

// lockDoomed takes the lock and makes sure that what was shown is still so.
func (r *run) lockDoomed(ctx context.Context) []event.Failure {
	held, failure := r.acquire(ctx, r.root)
	if failure != nil {
		return []event.Failure{*failure}
	}
	r.hold(ctx, held)
	stale, err := r.stale(ctx)
	switch {
	case err != nil:
		return r.orLost(ctx, r.failuresOf(ctx, "record", nil, err))
	case !stale:
		return nil
	case r.sinks.Confirm != nil:
		return []event.Failure{{Phase: "lock", Reason: "StalePlan", Text: "another run of this root has ended meanwhile, so this is no longer what was confirmed",
			Hint: "run it again"}}
	}
	r.again()
	return r.orLost(ctx, r.condemn(ctx))
}

// mark notes in the records that the root is being destroyed: a run that is cut off
// leaves records that say so.
func (r *run) mark(ctx context.Context) []event.Failure {
	at := time.Now().UTC()
	if root := r.state.Root; root != nil {
		root.Started.Result, root.Started.Ended = inventory.Destroying, time.Time{}
		root.Finished = inventory.Run{} // nothing is live as a whole any more
		root.Started.Started, root.Started.RunURL, root.Started.Actor = at, r.options.RunURL, r.options.Actor
		root.Updated, root.ToolVersion = at, r.options.Version
		if err := r.store.SaveRoot(ctx, root); err != nil {
			return r.failuresOf(ctx, "record", nil, err)
		}
	}
	r.writing = true
	var marks []func() error
	for _, after := range r.doom.After(nil) { // not those that a marker keeps as a whole
		record := r.state.Records[after.ID]
		record.Result = inventory.Destroying
		if root := r.state.Root; root != nil {
			delete(root.Confirmed, record.ID) // it says all by itself from now on
		}
		marks = append(marks, func() error { return r.saveRecord(ctx, record, at) })
	}
	var failures []event.Failure
	for _, err := range inParallel(savers, marks) {
		failures = append(failures, r.failuresOf(ctx, "record", nil, err)...)
	}
	return failures
}

// demolish deletes, waits, and takes from the records what is gone, Kustomization by
// Kustomization.
func (r *run) demolish(ctx context.Context) []event.Failure {
	for _, kept := range r.doom.Kept {
		r.reportKept(kept)
	}
	began := time.Now()
	r.emit(event.PruneStarted{At: now(), Objects: r.going})
	started := map[flux.ID]time.Time{}
	var all []event.Failure
	_, err := prune.Delete(ctx, r.doom.Deletions, prune.Options{
		Client: r.pruneClient, Own: r.ownClient, Report: r.pruned,
		Begin: func(d prune.Deletion) {
			if started[d.Node].IsZero() {
				started[d.Node] = time.Now()
				r.emit(event.NodeStarted{At: now(), Node: d.Node.String(), Attempt: 1, Attempts: 1})
			}
		},
		Done: func(d prune.Deletion, results []prune.Result) {
			r.spent = append(r.spent, results...)
			if r.pending[d.Node]--; r.pending[d.Node] > 0 {
				return
			}
			end := r.demolished(ctx, d.Node)
			if at := started[d.Node]; !at.IsZero() { // else the end came before its turn
				end.Duration = time.Since(at)
			}
			all = append(all, end.Failures...)
			r.over[d.Node] = true
			r.emit(end)
		},
	})
	for ctx.Err() == nil {
		id, ok := r.bare()
		if !ok {
			break
		}
		end := r.demolished(ctx, id)
		all = append(all, end.Failures...)
		r.over[id] = true
		r.emit(end)
	}
	r.emit(event.PruneFinished{At: now(), Failures: all, Duration: time.Since(began)})
	r.cutoff = ctx.Err() == nil
	switch {
	case ctx.Err() != nil:
		return []event.Failure{interrupted(ctx)}
	case len(all) > 0 || err != nil:
		r.stop(event.VerdictFailed, nil) // told by the nodes and by PruneFinished
	}
	return nil
}

// bare is a Kustomization that has nothing to delete and whose turn has come: nothing
// is left of those that it holds or that depend on it.
func (r *run) bare() (flux.ID, bool) {
	going := map[flux.ID]bool{}
	for _, after := range r.doom.After(nil) {
		going[after.ID] = r.state.Records[after.ID] != nil
	}
	for _, record := range r.turns {
		needed := slices.ContainsFunc(r.turns, func(other *inventory.Record) bool {
			return going[other.ID] && other.ID != record.ID && (other.Parent == record.ID || slices.Contains(other.DependsOn, record.ID))
		})
		if !r.over[record.ID] && !needed {
			return record.ID, true
		}
	}
	return flux.ID{}, false
}

// demolished is the end of a Kustomization: its record is narrowed to what is
// left, or goes with the last of it.
func (r *run) demolished(ctx context.Context, id flux.ID) event.NodeFinished {
	end := event.NodeFinished{At: now(), Node: id.String(), Result: event.ResultDestroyed}
	for _, result := range r.spent {
		if result.Node != id {
			continue
		}
		switch result.Outcome {
		case prune.Failed:
			f := r.failure(ctx, "prune", nil, result.Err)
			f.Node, f.Object, f.Text = id.String(), result.Ref.String(), result.Err.Error()
			end.Failures = append(end.Failures, f)
		case prune.NotTried:
			if end.Result == event.ResultDestroyed {
				end.Result = event.NotRun
			}
		}
	}
	end.Failures = append(end.Failures, r.lost(id)...)
	if len(end.Failures) > 0 {
		end.Result = event.Failed
	}
	if ctx.Err() != nil && end.Result != event.ResultDestroyed {
		end.Result = event.Cancelled
	}
	if ctx.Err() != nil && end.Result != event.ResultDestroyed && !r.shrunk(id) {
		return end // its record says what it said, and there is no time for as many as may be left
	}
	if err := r.narrowOne(ctx, id); err != nil {
		end.Failures = append(end.Failures, r.failuresOf(ctx, "record", nil, err)...)
		end.Result = event.Failed
	}
	return end
}

// shrunk says whether a Kustomization has lost anything.
func (r *run) shrunk(id flux.ID) bool {
	return slices.ContainsFunc(r.spent, func(result prune.Result) bool { return result.Node == id && result.Settled() })
}

// narrowOne brings the record of a Kustomization up to date.
func (r *run) narrowOne(ctx context.Context, id flux.ID) error {
	if r.lockLost(ctx) != nil {
		return nil // it may be another run's by now, and names all that is left
	}
	saving, cancel := r.saving(ctx)
	defer cancel()
	for _, after := range r.doom.After(r.spent) {
		if after.ID != id {
			continue
		}
		record := r.state.Records[id]
		if after.Delete {
			if err := r.store.Delete(saving, record); err != nil {
				return err
			}
			delete(r.state.Records, id)
			return nil
		}
		record.Entries = after.Entries
		return r.saveRecord(saving, record, time.Now().UTC())
	}
	return nil
}

// lost tells what stays because its cluster cannot be reached.
func (r *run) lost(id flux.ID) []event.Failure {
	var failures []event.Failure
	told := map[flux.ClusterRef]bool{}
	for _, kept := range r.doom.Kept {
		at := kept.Entry.Cluster
		if kept.Node != id || told[at] || r.homes.where(at).Lost == "" {
			continue
		}
		told[at] = true
		failures = append(failures, event.Failure{Phase: "prune", Reason: "ClusterUnavailable", Node: id.String(),
			Text: fmt.Sprintf("%s: what it has in the cluster of %s stays: %s", id, at, r.homes.where(at).Lost),
			Hint: "make it reachable and destroy again; if that cluster is gone for good, delete the record by hand (docs/state.md)"})
	}
	return failures
}

// tellEnds ends the Kustomizations that were announced and whose turn never came.
func (r *run) tellEnds(verdict event.Verdict) {
	for _, record := range r.turns {
		if r.over[record.ID] {
			continue
		}
		end := event.NodeFinished{At: now(), Node: record.ID.String(), Result: event.Cancelled}
		switch {
		case verdict == event.VerdictPlanned || verdict == event.VerdictRefused:
			end.Result = event.ResultPlanned
		case r.cutoff && verdict != event.VerdictCancelled:
			end.Result = event.NotRun // what needs it is still there
		}
		r.over[record.ID] = true
		r.emit(end)
	}
}

// concludeDestroy puts the record of the root in order: it goes with the last of the
// others.
func (r *run) concludeDestroy(ctx context.Context, verdict event.Verdict) error {
	saving, cancel := r.saving(ctx)
	defer cancel()
	swept := r.store.Sweep(saving, r.root)
	root := r.state.Root
	if root == nil {
		return swept
	}
	if len(r.state.Records) == 0 {
		if swept != nil {
			return swept // the record of the root brings a later destroy back to it
		}
		return r.store.DeleteRoot(saving, root)
	}
	root.Nodes = slices.DeleteFunc(root.Nodes, func(id flux.ID) bool { return r.state.Records[id] == nil })
	at := time.Now().UTC()
	root.Updated = at
	result := rootResults[verdict]
	if verdict == event.VerdictDestroyed {
		result = inventory.Destroyed // what may go is gone
	}
	root.End(result, at)
	return errors.Join(swept, r.store.SaveRoot(saving, root))
}
