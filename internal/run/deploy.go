package run

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/prune"
	"github.com/sluicerun/sluice/internal/schedule"
)

// defaultRetryInterval is the pause before another attempt where the spec sets
// none. Flux would take the interval (S8.4), which a job does not have.
const defaultRetryInterval = 10 * time.Second

// working is the state while the graph runs.
type working struct {
	// mu guards what several steps touch.
	mu   sync.Mutex
	told map[string]bool
	// growth is held by the one step that builds a node at its turn, and with
	// it all that building uses and that grown holds.
	growth   sync.Mutex
	grewLate bool // some node was built at its turn
	// gated is set once a node has a readyExpr.
	gated atomic.Bool
	// writing is set from the first write on: what the cluster says may
	// change from then on.
	writing bool
	// begun is set once the root's record says that this run writes; beginning
	// guards it.
	begun     bool
	beginning sync.Mutex
	// ends is written by the one goroutine that hears of ends.
	ends map[flux.ID]event.NodeFinished
	// turned are the nodes that were applied, and early the ends of waits that
	// came before that; they belong to the same goroutine.
	turned map[flux.ID]bool
	early  map[flux.ID]schedule.Result
	// scheduled are the nodes whose steps the schedule has, and toBuild those of
	// them whose build is still to come; both nil until the graph runs. They
	// belong to the goroutine of the schedule.
	scheduled, toBuild map[flux.ID]bool
	// shut are the gates that stayed so, by name; the same goroutine writes it.
	shut   map[string]*shutError
	cutoff bool          // pruning was reached
	narrow []prune.After // what records hold after it
	// unpruned are the nodes of which some object could not be deleted.
	unpruned map[flux.ID]bool
}

func (w *working) init() {
	w.told = map[string]bool{}
	w.ends = map[flux.ID]event.NodeFinished{}
	w.turned, w.early = map[flux.ID]bool{}, map[flux.ID]schedule.Result{}
	w.shut = map[string]*shutError{}
	w.unpruned = map[flux.ID]bool{}
}

// work is what became of a node while the graph ran.
type work struct {
	started time.Time
	waited  time.Duration
	// attempts made so far, by its apply and by its wait together.
	attempts int
	record   *inventory.Record
	entries  []inventory.Entry // nil until a full apply
	targets  []health.Target
	// written are the versions as of which objects are as they should be, by
	// their keys.
	written map[flux.Ref]string
	// done are the objects that are as they should be. Another attempt goes on
	// from there, unless the node did not become healthy: then it looks at all
	// of them.
	done done
}

// done holds the results of objects that are as they should be. It is safe for
// concurrent use.
type done struct {
	mu      sync.Mutex
	results map[flux.Ref]apply.Result
}

func (d *done) add(result apply.Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.results == nil {
		d.results = map[flux.Ref]apply.Result{}
	}
	d.results[result.Object.Ref().Key()] = result
}

// known is for [apply.Options]. An object that was built anew is another one.
func (d *done) known(o flux.Object) (flux.Ref, string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	was, ok := d.results[o.Ref().Key()]
	if !ok || was.Object.Unstructured != o.Unstructured {
		return flux.Ref{}, "", false
	}
	return was.Ref, was.Version, true
}

func (d *done) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.results = nil
}

// errSuspended ends the turn of a suspended node: what depends on it cannot
// run, and a reader is told so at once (S7.13, S16.10).
var errSuspended = errors.New("suspended")

// deploy runs the graph.
func (r *run) deploy(ctx context.Context) []event.Failure {
	r.writing = true
	r.scheduled, r.toBuild = map[flux.ID]bool{}, map[flux.ID]bool{}
	defer r.homes.each((*home).rest)
	for _, n := range r.sorted() {
		r.enter(n)
		if n.runs() && n.built {
			r.expect(n)
		}
	}
	var steps []schedule.Step
	for _, n := range r.sorted() {
		steps = append(steps, r.steps(n)...)
	}
	_, err := schedule.Run(ctx, steps, schedule.Options{
		Workers: r.options.Concurrency, StopOnFailure: r.options.StopOnFailure,
		Harmless: func(err error) bool { return errors.Is(err, errSuspended) },
		Done:     r.ended,
	})
	if err != nil {
		return r.failuresOf(ctx, "graph", nil, err)
	}
	if ctx.Err() != nil {
		return []event.Failure{interrupted(ctx)}
	}
	return nil
}

// steps are the vertices of a node as work to be done. A node that is left
// out or suspended waits for nothing: there is nothing to do when its turn
// comes.
func (r *run) steps(n *node) []schedule.Step {
	all := r.needsOf(n) // a missing one is found at its turn
	if n.excluded || n.Spec.Suspend {
		all = needs{toBeReady: []string{applied(n.ID)}}
	}
	return append(r.gateSteps(n, all.gates), []schedule.Step{
		{Name: applied(n.ID), Needs: all.toApply, Slot: true, Run: func(ctx context.Context) (growth schedule.Growth, err error) {
			err = r.turn(ctx, n, func(ctx context.Context) (err error) {
				growth, err = r.applyNode(ctx, n)
				return err
			})
			return growth, err
		}},
		{Name: ready(n.ID), Needs: all.toBeReady, Run: func(ctx context.Context) (schedule.Growth, error) {
			return schedule.Growth{}, r.turn(ctx, n, func(ctx context.Context) error { return r.awaitNode(ctx, n) })
		}},
	}...)
}

// applyNode is a node's turn: build it if that had to wait, store what it is
// about to have in the cluster, and apply, as often as retries allow.
func (r *run) applyNode(ctx context.Context, n *node) (schedule.Growth, error) {
	n.started = time.Now()
	switch {
	case n.excluded:
		return schedule.Growth{}, nil
	case n.Spec.Suspend:
		return schedule.Growth{}, errSuspended
	}
	for _, dep := range n.Dependencies() {
		if r.nodes.get(dep) == nil {
			return schedule.Growth{}, &failed{[]event.Failure{r.missing(n, dep)}}
		}
	}
	var growth schedule.Growth
	err := r.attempt(ctx, n, func(ctx context.Context) error {
		if n.deferred != "" {
			children, err := r.fillNow(ctx, n)
			if err != nil {
				return err
			}
			growth.Make = func() schedule.Growth { return r.childSteps(n, children) }
		}
		return r.applyOnce(ctx, n)
	})
	if err != nil {
		return schedule.Growth{}, err
	}
	r.emit(event.NodeApplied{At: now(), Node: n.ID.String(), Waiting: len(n.targets), Timeout: n.Timeout()})
	return growth, nil
}

// awaitNode waits until a node is healthy. An object that has failed may be put
// right by another attempt; a wait that took its whole timeout is not repeated,
// since the timeout is the limit that the user set for it.
func (r *run) awaitNode(ctx context.Context, n *node) error {
	if n.excluded || len(n.targets) == 0 {
		return nil
	}
	first := true
	return r.attempt(ctx, n, func(ctx context.Context) error {
		if !first {
			n.done.forget()
			if err := r.applyOnce(ctx, n); err != nil {
				return err
			}
		}
		first = false
		return r.healthy(ctx, n)
	})
}

// attempt tries something until it works, is not worth repeating, or the node's
// attempts are used up.
func (r *run) attempt(ctx context.Context, n *node, try func(context.Context) error) error {
	for continued := n.attempts > 0; ; continued = false {
		if !continued {
			n.attempts++
			r.emit(event.NodeStarted{At: now(), Node: n.ID.String(), Attempt: n.attempts, Attempts: r.options.Retries + 1})
			n.live.Started(n.revision)
		}
		err := try(ctx)
		if err == nil || ctx.Err() != nil || !repeatable(err) || n.attempts > r.options.Retries {
			return err
		}
		pause, set := n.RetryInterval()
		if !set {
			pause = defaultRetryInterval
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < pause {
			return err
		}
		failure := r.explain(ctx, n, err)[0]
		r.emit(event.NodeRetrying{At: now(), Node: n.ID.String(), Attempt: n.attempts, After: pause, Failure: failure})
		n.live.Failed(fluxReason(failure), err.Error())
		schedule.Tell(ctx)
		if schedule.Pause(ctx, pause) != nil {
			return err
		}
	}
}

// repeatable says whether another attempt may end otherwise.
func repeatable(err error) bool {
	if _, ok := as[*failed](err); ok {
		return false // it was invalid, and will be
	}
	if _, ok := as[*inventory.ConflictError](err); ok {
		return false // another run is at work
	}
	if unready, ok := as[*health.NotReadyError](err); ok {
		// A failed Job stays failed until its manifest changes.
		isJob := func(s health.Status) bool { return s.Ref.Group == "batch" && s.Ref.Kind == "Job" }
		return !unready.TimedOut && !slices.ContainsFunc(unready.Causes(), isJob)
	}
	return true
}

// applyOnce applies a node's objects. Before the first of them is touched the
// record holds all that the node had and all that it is about to have, so
// that a kill at any instant leaks nothing (S0.24).
func (r *run) applyOnce(ctx context.Context, n *node) error {
	if err := r.intend(ctx, n); err != nil {
		return err
	}
	c, err := r.clientFor(n)
	if err != nil {
		return err
	}
	r.watch(n)
	n.written = map[flux.Ref]string{}
	options := r.applyOptions(n)
	options.StageWait = func(ctx context.Context, refs []flux.Ref) error { return r.stageReady(ctx, n, refs) }
	options.Report = func(result apply.Result) { r.applied(n, result) }
	options.Known = r.known(n)
	if n.attempts == 1 && n.plan != nil {
		// Later attempts see the cluster as it is then.
		c = n.plan.Client(n.ID, c)
	}
	results, err := apply.Apply(ctx, c, n.objects, options)
	n.targets = nil
	if err != nil {
		if somethingWent(err) {
			n.done.forget()
		}
		return err
	}
	n.settle(results)
	var done []health.Applied
	for _, result := range results {
		done = append(done, health.Applied{Object: result.Object, Skipped: result.Action == apply.Skipped, Version: result.Version})
	}
	n.targets = n.expressions.Attach(r.targets(n, done))
	n.live.Applied(n.revision, n.entries, len(n.targets) > 0)
	schedule.Tell(ctx)
	return nil
}

// somethingWent says that an attempt failed for want of something which may have
// been there before: a namespace, a definition, what another object refers to. The
// next one asks about every object again, since it may be one of the node's own.
func somethingWent(err error) bool {
	if failed, ok := as[apply.Errors](err); ok {
		return slices.ContainsFunc(failed, func(e *apply.ObjectError) bool { return somethingWent(e.Err) })
	}
	_, unready := as[*health.NotReadyError](err) // a definition or class of an earlier stage
	return unready || apierrors.IsNotFound(err) || meta.IsNoMatchError(err) || faults.IsTerminating(err)
}

// known says of which objects of a node nothing need be asked: those that an
// earlier attempt has seen to, and those that the plan found to be as they should
// be, which it tells once.
func (r *run) known(n *node) func(flux.Object) (flux.Ref, string, bool) {
	return func(o flux.Object) (flux.Ref, string, bool) {
		ref, version, ok := n.done.known(o)
		if !ok && n.plan != nil {
			if ref, version, ok = n.plan.Known(n.ID, o); ok {
				n.done.add(apply.Result{Object: o, Ref: ref, Version: version})
			}
		}
		return ref, version, ok
	}
}

// targets are what a node waits for once its objects are applied.
func (r *run) targets(n *node, done []health.Applied) []health.Target {
	var targets []health.Target
	for _, target := range health.Select(r.options.Wait, n.Kustomization, done) {
		if id, ok := target.Kustomization(); ok && !n.remote() && r.nodes.get(id) != nil {
			continue // its own end stands for it, by an edge of the graph
		}
		targets = append(targets, target)
	}
	return targets
}

// awaited is what a node will wait for, as far as that can be told before its
// objects are applied.
func (r *run) awaited(n *node) []health.Target {
	planned := make([]health.Applied, len(n.objects))
	for i, o := range n.objects {
		planned[i].Object = o
	}
	return n.expressions.Attach(r.targets(n, planned))
}

// expect lets those who watch know what a node will wait for: one watch then
// serves it and others.
func (r *run) expect(n *node) {
	if hub, err := r.hubOf(n); err == nil { // else its turn tells
		hub.Expect(r.awaited(n))
	}
}

// watch begins to watch what a node will wait for, side by side with its apply.
func (r *run) watch(n *node) {
	if hub, err := r.hubOf(n); err == nil { // else its wait tells
		hub.Watch(r.awaited(n))
	}
}

// applied reports one object.
func (r *run) applied(n *node, result apply.Result) {
	if result.Err != nil {
		return // part of the node's failure
	}
	if result.Action != apply.Skipped {
		n.written[result.Ref.Key()] = result.Version
		n.done.add(result)
	}
	change := n.change(result.Object, event.Action(result.Action), result.Reason)
	r.emit(event.ObjectApplied{At: now(), Change: change})
}

// stageReady waits for definitions and classes (S4.11).
func (r *run) stageReady(ctx context.Context, n *node, refs []flux.Ref) error {
	hub, err := r.hubOf(n)
	if err != nil {
		return err
	}
	targets := make([]health.Target, len(refs))
	for i, ref := range refs {
		targets[i].Ref = ref
		if version, ours := n.written[ref.Key()]; ours {
			targets[i].Version, targets[i].Owner = version, n.ID
		}
	}
	_, err = hub.Wait(ctx, targets, health.Options{FailFast: true, Report: r.reportHealth(n)})
	return err
}

// healthy waits for the node's health.
func (r *run) healthy(ctx context.Context, n *node) error {
	hub, err := r.hubOf(n)
	if err != nil {
		return err
	}
	began := time.Now()
	defer func() { n.waited += time.Since(began) }()
	statuses, err := hub.Wait(ctx, n.targets, health.Options{Timeout: n.Timeout(), FailFast: !r.options.NoFailFast, Report: r.reportHealth(n)})
	if limit, ok := context.Cause(ctx).(*TimeoutError); ok && err != nil {
		// The run's own limit ended the wait: what is not ready is the
		// reason, and worth a diagnosis.
		waiting := slices.DeleteFunc(statuses, health.Status.Ready)
		return &health.NotReadyError{Statuses: waiting, TimedOut: true, Elapsed: time.Since(began), Timeout: limit.Limit}
	}
	return err
}

func (r *run) reportHealth(n *node) func(health.Status) {
	return func(s health.Status) {
		message := s.Message
		if s.Err != nil {
			message = s.Err.Error()
		}
		r.emit(event.ObjectHealth{At: now(), Node: n.ID.String(), Object: s.Ref.String(), Status: s.Status, Message: message})
	}
}

// user is who a node's objects are applied as (S4.40); empty is sluice itself.
func (r *run) user(n *node) string { return r.account(n.ID, n.Spec.ServiceAccountName) }

// account is the user that stands for a Kustomization with the given service
// account, or for one without by the default (S4.40).
func (r *run) account(id flux.ID, serviceAccount string) string {
	return cluster.ServiceAccountUser(id.Namespace, cmp.Or(serviceAccount, r.options.DefaultServiceAccount))
}

// clientFor returns the client that a node's objects are applied with.
func (r *run) clientFor(n *node) (client.WithWatch, error) {
	to, err := r.homeOf(n)
	if err != nil {
		return nil, err
	}
	return to.Client(r.user(n))
}

// hubOf returns what watches as a node's user (S4.40), for all nodes together.
func (r *run) hubOf(n *node) (*health.Hub, error) { return r.hubAs(n, r.user(n)) }

// hubAs returns that of another user.
func (r *run) hubAs(n *node, user string) (*health.Hub, error) {
	to, err := r.homeOf(n)
	if err != nil {
		return nil, err
	}
	return to.health(user, r.abort)
}
