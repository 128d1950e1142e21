package run

import (
	"context"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/prune"
)

// candidates decides what to delete, given which nodes succeeded.
func (r *run) candidatesFor(succeeded func(*node) bool) (*prune.Plan, error) {
	input := prune.Input{StateNamespace: r.options.StateNamespace, Records: r.records(), Where: r.homes.where}
	for _, n := range r.sorted() {
		input.Nodes = append(input.Nodes, prune.Node{
			ID: n.ID, Parent: n.Parent, DependsOn: n.Dependencies(),
			Desired: n.desiredEntries(), Unbuilt: !n.built && !n.Spec.Suspend, Succeeded: succeeded(n), Idle: n.excluded || n.Spec.Suspend,
			Prune: n.Spec.Prune, ServiceAccount: n.Spec.ServiceAccountName, Timeout: n.Timeout(),
		})
	}
	return prune.Candidates(input)
}

// guard refuses, before the first write, what a slip would destroy.
func (r *run) guard(ctx context.Context) []event.Failure {
	runs := func(n *node) bool { return n.built && !n.excluded && !n.Spec.Suspend }
	intended, err := r.candidatesFor(runs)
	if err != nil {
		return r.failuresOf(ctx, "guard", nil, err)
	}
	findings, failures := r.look(ctx, intended)
	failures = append(r.refusals, failures...)
	if findings != nil {
		r.findings = findings
		r.tellStrays()
		r.emit(r.planned(findings))
	}
	return failures
}

// doomed is how many objects a run would delete, as far as the guards have looked.
func (r *run) doomed() int {
	if r.findings == nil {
		return 0
	}
	return len(r.findings.Doomed)
}

// look holds what would be deleted against the guards.
func (r *run) look(ctx context.Context, intended *prune.Plan) (*prune.Findings, []event.Failure) {
	findings, err := prune.Check(ctx, r.pruneAccess, intended, prune.Guards{
		AllowEmpty: r.options.AllowEmpty, MaxPrunePercent: r.options.MaxPrune, MinObjects: prune.DefaultGuards().MinObjects,
		AllowDelete: r.options.AllowDelete,
	})
	if err != nil {
		return nil, r.failuresOf(ctx, "cluster", nil, err) // what could not be looked at is not refused
	}
	var failures []event.Failure
	for _, refusal := range findings.Refusals {
		f := r.failure(ctx, "guard", r.nodes.get(refusal.Node), refusal)
		f.Node, f.Reason = refusal.Node.String(), guardReasons[refusal.Guard]
		failures = append(failures, f)
	}
	return findings, failures
}

var guardReasons = map[prune.Guard]string{
	prune.EmptyBuild: "EmptyBuild", prune.MaxPrune: "MaxPrune", prune.NamespaceInUse: "NamespaceInUse",
	prune.DefinitionInUse: "DefinitionInUse", prune.Volume: "VolumeDeletion",
}

// prune deletes what left Git: of each Kustomization that succeeded, and whose
// dependents did too, since what they still run may need it.
func (r *run) prune(ctx context.Context) []event.Failure {
	settled := r.settled()
	final, err := r.candidatesFor(func(n *node) bool { return settled[n.ID] })
	if err != nil {
		return r.failuresOf(ctx, "prune", nil, err)
	}
	// What was built at its turn was not known when the guards first looked.
	if r.grewLate {
		if _, failures := r.look(ctx, final); len(failures) > 0 {
			return failures
		}
	}
	r.cutoff = true
	var results []prune.Result
	var failures []event.Failure
	if final.Objects() > 0 {
		if failures := r.begin(ctx); len(failures) > 0 {
			return failures
		}
		began := time.Now()
		r.emit(event.PruneStarted{At: now(), Objects: final.Objects()})
		results, err = prune.Delete(ctx, final.Deletions, prune.Options{Client: r.pruneClient, Own: r.ownClient, Report: r.pruned})
		if err != nil {
			failures = r.failuresOf(ctx, "prune", nil, err)
		}
		r.emit(event.PruneFinished{At: now(), Failures: failures, Duration: time.Since(began)})
	}
	for _, kept := range final.Kept {
		r.reportKept(kept)
	}
	r.narrow = final.After(results)
	if ctx.Err() != nil {
		return []event.Failure{interrupted(ctx)}
	}
	if len(failures) > 0 {
		r.stop(event.VerdictFailed, nil) // told by PruneFinished
	}
	return nil
}

// settled returns the nodes that are ready, and all that depend on them,
// directly or not, are too. Those that were not to run do not count.
func (r *run) settled() map[flux.ID]bool {
	settled := map[flux.ID]bool{}
	var unready []*node
	for _, n := range r.sorted() {
		settled[n.ID] = r.ends[n.ID].Result == event.Ready
		if !settled[n.ID] && !n.excluded && !n.Spec.Suspend {
			unready = append(unready, n)
		}
	}
	for len(unready) > 0 {
		next := unready[0]
		unready = unready[1:]
		for _, dep := range next.Dependencies() {
			if settled[dep] {
				settled[dep] = false
				unready = append(unready, r.nodes.get(dep))
			}
		}
	}
	return settled
}

// pruneAccess returns what to look at a cluster with, as sluice itself.
func (r *run) pruneAccess(at flux.ClusterRef) (prune.Client, prune.Kinds, error) {
	to := r.homes.at(at)
	c, err := to.Client("")
	if err != nil {
		return nil, nil, err
	}
	kinds, err := to.Discovery()
	return c, kinds, err
}

// pruneClient returns what to delete with: the connection and the account that
// applied (S4.40, S4.42).
func (r *run) pruneClient(d prune.Deletion) (prune.Client, error) {
	return r.homes.at(d.Entries[0].Cluster).Client(r.account(d.Node, d.ServiceAccount))
}

// ownClient returns what sees the same cluster without acting as an account.
func (r *run) ownClient(d prune.Deletion) (prune.Client, error) {
	return r.homes.at(d.Entries[0].Cluster).Client("")
}

// planned is the plan as an event.
func (r *run) planned(findings *prune.Findings) event.Planned {
	planned := event.Planned{At: now()}
	for _, n := range r.inOrder() {
		unchanged := planned.Unchanged
		for _, change := range n.changes {
			if change.Action == event.Unchanged {
				planned.Unchanged++
				continue
			}
			planned.Changes = append(planned.Changes, change)
		}
		if !r.options.Command.writes() {
			planned.Turns = append(planned.Turns, r.turnOf(n, planned.Unchanged-unchanged))
		}
	}
	for _, o := range findings.Doomed {
		planned.Changes = append(planned.Changes, event.Change{Node: o.Node.String(), Object: o.Ref.String(),
			APIVersion: o.Ref.GVK().GroupVersion().String(), Action: event.Delete})
	}
	if !r.options.Command.writes() {
		for _, kept := range findings.Kept {
			planned.Changes = append(planned.Changes, entryChange(kept.Node, kept.Entry, event.Kept, kept.Reason))
		}
	}
	return planned
}

func (r *run) pruned(result prune.Result) {
	action := event.Deleted
	switch result.Outcome {
	case prune.Spared, prune.NotTried:
		action = event.Kept
	case prune.Lingers:
		action = event.Kept
		n := event.Notice{Level: event.Warning, Code: "still-deleting", Node: result.Node.String(), Object: result.Ref.String(), Text: result.Err.Error()}
		if h, ok := as[hinter](result.Err); ok {
			n.Hint = h.Hint()
		}
		r.notice(n)
	case prune.Failed:
		r.unpruned[result.Node] = true
		return // the rest is part of the failures
	}
	r.emit(event.ObjectPruned{At: now(), Change: entryChange(result.Node, result.Entry, action, result.Reason)})
}

func (r *run) reportKept(kept prune.Kept) {
	r.emit(event.ObjectPruned{At: now(), Change: entryChange(kept.Node, kept.Entry, event.Kept, kept.Reason)})
}

// entryChange is a change of an object that only an inventory knows.
func entryChange(id flux.ID, e inventory.Entry, action event.Action, reason string) event.Change {
	change := event.Change{Node: id.String(), Object: e.ID, Action: action, Reason: reason}
	if ref, err := e.Ref(); err == nil {
		change.Object, change.APIVersion = ref.String(), ref.GVK().GroupVersion().String()
	}
	return change
}
