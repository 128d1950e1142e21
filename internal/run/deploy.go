package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster"
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
	// mu guards what several steps touch: told, and the ends of nodes.
	mu   sync.Mutex
	told map[string]bool
	// growth is held while a node is built at its turn and nodes are added,
	// and by whoever looks one up meanwhile.
	growth sync.Mutex
	// writing is set from the first write on: what the cluster says may
	// change from then on.
	writing bool
	ends    map[flux.ID]event.NodeFinished
	// watchers are by user.
	watchers map[string]health.Clients
	grewLate bool          // some node was built at its turn
	cutoff   bool          // pruning was reached
	narrow   []prune.After // what records hold after it
}

func (w *working) init() {
	w.told = map[string]bool{}
	w.ends = map[flux.ID]event.NodeFinished{}
	w.watchers = map[string]health.Clients{}
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
}

// errSuspended ends the turn of a suspended node: what depends on it cannot
// run, and a reader is told so at once (S7.13, S16.10).
var errSuspended = errors.New("suspended")

// deploy runs the graph.
func (r *run) deploy(ctx context.Context) []event.Failure {
	r.writing = true
	var steps []schedule.Step
	for _, n := range r.sorted() {
		steps = append(steps, r.steps(n)...)
	}
	_, err := schedule.Run(ctx, steps, schedule.Options{
		Workers: r.options.Concurrency, StopOnFailure: r.options.StopOnFailure,
		Done: func(result schedule.Result) { r.ended(ctx, result) },
	})
	if err != nil {
		return r.failuresOf(ctx, "graph", nil, err)
	}
	if ctx.Err() != nil {
		return []event.Failure{interrupted(ctx)}
	}
	return nil
}

// steps are the two vertices of a node as work to be done.
func (r *run) steps(n *node) []schedule.Step {
	toApply, toBeReady := n.needs(r.nodes, r.options.Wait)
	if r.anyDeferred() {
		toApply = r.untilKnown(n, toApply)
	}
	return []schedule.Step{
		{Name: applied(n.ID), Needs: toApply, Slot: true, Run: func(ctx context.Context) (growth schedule.Growth, err error) {
			defer recovered(&err)
			return r.applyNode(ctx, n)
		}},
		{Name: ready(n.ID), Needs: toBeReady, Run: func(ctx context.Context) (_ schedule.Growth, err error) {
			defer recovered(&err)
			return schedule.Growth{}, r.awaitNode(ctx, n)
		}},
	}
}

// untilKnown replaces a need for a node that is not known by one for every node
// that may still hold it.
func (r *run) untilKnown(n *node, needs []string) []string {
	known := needs[:0:0]
	for _, need := range needs {
		id, err := flux.ParseID(nodeOf(need))
		if err == nil && r.nodes[id] != nil {
			known = append(known, need)
			continue
		}
		for _, other := range r.sorted() {
			if other.deferred != "" && other.ID != n.ID {
				known = append(known, applied(other.ID))
			}
		}
	}
	return known
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
		if r.lookupNode(dep) == nil {
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
			growth = r.childSteps(n, children)
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
		r.emit(event.NodeRetrying{At: now(), Node: n.ID.String(), Attempt: n.attempts, After: pause, Failure: r.explain(ctx, n, err)[0]})
		select {
		case <-time.After(pause):
		case <-ctx.Done():
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

// fillNow builds a node at its turn: its variables, or those of the one that
// holds it, had to wait for that. An object of variables that is still missing
// may yet come, so that is worth another attempt.
func (r *run) fillNow(ctx context.Context, n *node) ([]*node, error) {
	r.growth.Lock()
	defer r.growth.Unlock()
	if n.record == nil {
		if failures := r.recallNode(ctx, n); len(failures) > 0 {
			return nil, &failed{failures}
		}
	}
	if missing := r.missingVariables(ctx, n); len(missing) > 0 {
		return nil, &missingError{missing}
	}
	n.deferred, r.grewLate = "", true
	children, failures := r.fill(ctx, n, fromCluster)
	if len(failures) == 0 {
		failures = r.planLate(ctx, n)
	}
	if len(failures) > 0 {
		return nil, &failed{failures}
	}
	for _, child := range children {
		child.deferred = "is part of " + n.ID.String() + ", which was built at its turn"
	}
	return children, nil
}

// missingError says that what a node's variables come from does not exist even
// at its turn.
type missingError struct{ objects []string }

func (e *missingError) Error() string {
	return "substituteFrom names " + strings.Join(e.objects, ", ") + ", which nothing that ran before has created"
}

// Hint says what to do.
func (e *missingError) Hint() string {
	return "create it, correct its name, or set optional: true; if something creates it late, depend on what waits for that"
}

// Reason is the failure's stable code.
func (e *missingError) Reason() string { return "MissingVariables" }

// childSteps turns children found at a node's turn into steps, and makes those who
// depend on them by name wait for them.
func (r *run) childSteps(n *node, children []*node) schedule.Growth {
	r.growth.Lock()
	defer r.growth.Unlock()
	growth := schedule.Growth{Needs: map[string][]string{}}
	for _, child := range children {
		growth.Steps = append(growth.Steps, r.steps(child)...)
		r.emit(event.NodeFound{At: now(), Node: child.describe()})
		if n.waitsForAll(r.options.Wait) {
			growth.Needs[ready(n.ID)] = append(growth.Needs[ready(n.ID)], ready(child.ID))
		}
		for _, other := range r.sorted() {
			for _, dep := range other.Dependencies() {
				if dep == child.ID && other.Parent != n.ID {
					growth.Needs[applied(other.ID)] = append(growth.Needs[applied(other.ID)], ready(child.ID))
				}
			}
		}
	}
	return growth
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
	options := apply.Options{
		Force: n.Spec.Force, Ignore: apply.IgnoreRules(n.Spec),
		StageWait: func(ctx context.Context, refs []flux.Ref) error { return r.stageReady(ctx, n, refs) },
		Report:    func(result apply.Result) { r.applied(n, result) },
	}
	if n.attempts == 1 {
		c = r.planned.memo(n, c) // later attempts see the cluster as it is then
	}
	results, err := apply.Apply(ctx, c, n.objects, options)
	n.targets = nil
	var done []health.Applied
	for _, result := range results {
		done = append(done, health.Applied{Object: result.Object, Skipped: result.Action == apply.Skipped})
	}
	if err != nil {
		return err
	}
	n.settle(results)
	for _, target := range health.Select(r.options.Wait, n.Kustomization, done) {
		if id, ok := target.Kustomization(); ok && r.lookupNode(id) != nil {
			continue // its own end stands for it, by an edge of the graph
		}
		n.targets = append(n.targets, target)
	}
	n.targets = n.expressions.Attach(n.targets)
	return nil
}

// applied reports one object.
func (r *run) applied(n *node, result apply.Result) {
	if result.Err != nil {
		return // part of the node's failure
	}
	change := n.change(result.Object, event.Action(result.Action), result.Reason)
	r.emit(event.ObjectApplied{At: now(), Change: change})
}

// stageReady waits for definitions and classes (S4.11).
func (r *run) stageReady(ctx context.Context, n *node, refs []flux.Ref) error {
	clients, err := r.healthClients(n)
	if err != nil {
		return err
	}
	targets := make([]health.Target, len(refs))
	for i, ref := range refs {
		targets[i].Ref = ref
	}
	_, err = health.Wait(ctx, clients, targets, health.Options{FailFast: true, Report: r.reportHealth(n)})
	return err
}

// healthy waits for the node's health.
func (r *run) healthy(ctx context.Context, n *node) error {
	clients, err := r.healthClients(n)
	if err != nil {
		return err
	}
	began := time.Now()
	defer func() { n.waited += time.Since(began) }()
	statuses, err := health.Wait(ctx, clients, n.targets, health.Options{Timeout: n.Timeout(), FailFast: true, Report: r.reportHealth(n)})
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
func (n *node) user() string {
	return cluster.ServiceAccountUser(n.Namespace, n.Spec.ServiceAccountName)
}

func (r *run) lookupNode(id flux.ID) *node {
	r.growth.Lock()
	defer r.growth.Unlock()
	return r.nodes[id]
}

// ended turns the end of a step into the end of a node. Of a node's two steps
// the one that decides comes first: its apply if that did not succeed, else
// its wait.
func (r *run) ended(ctx context.Context, result schedule.Result) {
	id, err := flux.ParseID(nodeOf(result.Name))
	if err != nil {
		return // not reached: every step is named by an id
	}
	n := r.lookupNode(id)
	if _, over := r.ends[id]; over || n == nil {
		return
	}
	isApply := strings.HasPrefix(result.Name, "applied ")
	if isApply && result.State == schedule.Succeeded {
		return
	}
	end := event.NodeFinished{At: now(), Node: id.String(), Waited: n.waited}
	if !n.started.IsZero() {
		end.Duration = time.Since(n.started)
	}
	switch result.State {
	case schedule.Succeeded:
		end.Result = event.Ready
		if n.excluded {
			end.Result = event.Excluded
		}
	case schedule.Failed:
		end.Result, end.Failures = r.failedAs(ctx, n, result.Err)
	case schedule.Skipped:
		end.Result, end.BlockedBy = event.NotRun, nodeOf(result.Cause)
		if !isApply {
			// Applied, but what it contains and waits for did not become ready.
			end.Result = event.Unhealthy
			end.Failures = []event.Failure{{Phase: "health", Reason: "ChildNotReady", Node: n.ID.String(), File: n.File, Line: n.Line,
				Text: fmt.Sprintf("%s waits for %s, which did not become ready", n.ID, end.BlockedBy)}}
		}
	case schedule.Cancelled:
		end.Result = event.Cancelled
		if _, ok := as[*health.NotReadyError](result.Err); ok {
			end.Result, end.Failures = r.failedAs(ctx, n, result.Err)
		}
		if result.Cause != "" {
			end.BlockedBy = nodeOf(result.Cause)
		}
	}
	r.ends[id] = end
	r.emit(end)
}

// failedAs says how a failed step ends its node.
func (r *run) failedAs(ctx context.Context, n *node, err error) (event.Result, []event.Failure) {
	if errors.Is(err, errSuspended) {
		return event.Suspended, nil
	}
	failures := r.explain(ctx, n, err)
	if _, ok := as[*health.NotReadyError](err); ok {
		return event.Unhealthy, failures
	}
	return event.Failed, failures
}

// explain tells why a node's turn failed, with what the cluster knows of it.
// There is at least one failure.
func (r *run) explain(ctx context.Context, n *node, err error) []event.Failure {
	if f, ok := as[*failed](err); ok {
		return f.failures
	}
	if unready, ok := as[*health.NotReadyError](err); ok {
		return r.diagnose(ctx, n, unready)
	}
	if objects, ok := as[apply.Errors](err); ok {
		var failures []event.Failure
		for _, e := range objects {
			failures = append(failures, r.failure(ctx, "apply", n, e))
		}
		return failures
	}
	phase := "apply"
	if _, ok := as[*missingError](err); ok {
		phase = "substitute"
	}
	return []event.Failure{r.failure(ctx, phase, n, err)}
}

// failed carries failures through a step.
type failed struct{ failures []event.Failure }

func (f *failed) Error() string { return f.failures[0].Text }

// clientFor returns the client that a node's objects are applied with.
func (r *run) clientFor(n *node) (client.WithWatch, error) { return r.cluster.Client(n.user()) }

// healthClients returns what health needs to watch as a node's user (S4.40).
func (r *run) healthClients(n *node) (health.Clients, error) { return r.healthAs(n.user()) }

func (r *run) healthAs(user string) (health.Clients, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.watchers[user]; ok {
		return known, nil
	}
	made, err := health.NewClients(r.cluster.Config(user), nil, r.cluster.Mapper())
	if err == nil {
		r.watchers[user] = made
	}
	return made, err
}

// diagnosed is how many objects of a Kustomization are looked into: the first
// ones say what is wrong, and an answer that comes late helps nobody.
const diagnosed = 5

// diagnose tells why objects are not healthy, as sluice itself: the account
// that applies seldom may read pods and logs.
func (r *run) diagnose(ctx context.Context, n *node, unready *health.NotReadyError) []event.Failure {
	clients, err := r.healthAs("")
	var failures []event.Failure
	for i, status := range unready.Causes() {
		f := event.Failure{Phase: "health", Reason: "NotReady", Node: n.ID.String(), Object: status.Ref.String(), File: n.fileOf(status.Ref)}
		if i >= diagnosed || err != nil {
			f.Text = fmt.Sprintf("%s is %s", status.Ref, status.Status)
			if status.Message != "" {
				f.Text += ": " + status.Message
			}
			failures = append(failures, f)
			continue
		}
		d := health.Diagnose(context.WithoutCancel(ctx), clients, status, r.began)
		f.Reason, f.Container, f.Hint = d.Reason, d.Container, d.Hint
		f.Text = fmt.Sprintf("%s %s", status.Ref, d.Text)
		for _, e := range d.Events {
			f.Events = append(f.Events, event.WarningEvent{Count: e.Count, Reason: e.Reason, Message: e.Message})
		}
		f.Logs, f.LogsNote = d.Logs, d.LogsNote
		if unready.TimedOut {
			f.Text += fmt.Sprintf(", after waiting %s", unready.Timeout)
		}
		failures = append(failures, f)
	}
	if len(failures) == 0 {
		failures = []event.Failure{r.failure(ctx, "health", n, unready)}
	}
	return failures
}

// fileOf is the manifest of one of the node's objects, else the node's own.
func (n *node) fileOf(ref flux.Ref) string {
	for _, o := range n.objects {
		if o.Ref().Key() == ref.Key() && o.File != "" {
			return o.File
		}
	}
	return n.File
}
