package run

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/retry"
	"github.com/sluicerun/sluice/internal/safe"
	"github.com/sluicerun/sluice/internal/schedule"
)

// turn runs one step of a node. Its error, if any, is an *ending: why the step
// failed is found out here, on the step's own goroutine, so that a diagnosis
// keeps no other node from starting. Its requests count for the node. A panic is a failure of this node alone.
func (r *run) turn(ctx context.Context, n *node, do func(context.Context) error) error {
	ctx = cluster.For(ctx, n.ID.String())
	err := func() (err error) {
		defer safe.Recover(&err)
		return do(ctx)
	}()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errSuspended):
		return &ending{result: event.Suspended, err: err}
	}
	// Not errors.As: one that an apply wraps is about a stage of it, and what
	// came after that is not applied.
	_, unhealthy := err.(*health.NotReadyError)
	switch {
	case unhealthy:
		return &ending{result: event.Unhealthy, failures: r.explain(ctx, n, err), err: err}
	case ctx.Err() != nil && (errors.Is(err, context.Cause(ctx)) || errors.Is(err, ctx.Err())):
		return &ending{result: event.Cancelled, failures: r.inFlight(ctx, n, err), err: err}
	}
	return &ending{result: event.Failed, failures: r.explain(ctx, n, err), err: err}
}

// inFlight tells what is not known of a node whose step was cut short: the objects
// that were sent and not answered; and what had failed by then. Objects that were
// answered have been told as applied, the others were not sent.
func (r *run) inFlight(ctx context.Context, n *node, err error) []event.Failure {
	objects, _ := as[apply.Errors](err)
	var failures []event.Failure
	for _, e := range objects {
		f := r.failure(ctx, "apply", n, e)
		if f.Reason != "Cancelled" && f.Reason != "RunTimeout" {
			failures = append(failures, f)
		}
	}
	return failures
}

// ending is how a step that did not succeed ends its node.
type ending struct {
	result   event.Result
	failures []event.Failure
	err      error
}

func (e *ending) Error() string { return e.err.Error() }

func (e *ending) Unwrap() error { return e.err }

// failed carries failures through a step.
type failed struct{ failures []event.Failure }

func (f *failed) Error() string { return f.failures[0].Text }

// ended turns the end of a step into the end of a node. Of a node's two steps
// the one that decides comes first: its apply if that did not succeed, else
// its wait. Only when a run is stopped a wait that will never be can end before the
// apply does.
func (r *run) ended(result schedule.Result) {
	if isGate(result.Name) {
		if shut, ok := as[*shutError](result.Err); ok && result.State == schedule.Failed {
			r.shut[result.Name] = shut
		}
		return
	}
	id, err := flux.ParseID(nodeOf(result.Name))
	if err != nil {
		return // not reached: every step is named by an id
	}
	n := r.nodes.get(id)
	if _, over := r.ends[id]; over || n == nil {
		return
	}
	isApply := strings.HasPrefix(result.Name, "applied ")
	switch early, waits := r.early[id]; {
	case !isApply && result.State == schedule.Cancelled && !r.turned[id]:
		// Its apply may still be under way, and has more to tell.
		r.early[id] = result
		return
	case isApply && result.State == schedule.Succeeded && waits:
		result, isApply = early, false
	case isApply && result.State == schedule.Succeeded:
		r.turned[id] = true
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
	case schedule.Skipped:
		end.Result, end.BlockedBy = event.NotRun, r.culprit(n, result.Cause)
		if shut := r.shut[result.Cause]; shut != nil && shut.node == n && isApply {
			end.Failures = []event.Failure{r.shutFailure(n, shut)}
		}
		if !isApply {
			// Applied, but what it contains and waits for did not become ready.
			end.Result, end.Failures = event.Unhealthy, []event.Failure{r.childNotReady(n, end.BlockedBy)}
		}
	case schedule.Failed, schedule.Cancelled:
		end.Result = event.Cancelled
		if result.Cause != "" {
			end.BlockedBy = r.culprit(n, result.Cause)
		}
		if told, ok := as[*ending](result.Err); ok {
			end.Result, end.Failures = told.result, told.failures
		} else if result.Err != nil {
			end.Result, end.Failures = event.Failed, r.unfit(n, result.Err)
		}
	}
	r.ends[id] = end
	r.show(n, end, result.Err)
	r.emit(end)
}

// childNotReady says which Kustomization a node that was applied waited for in
// vain. Its failure is passed up at once (S6.27).
func (r *run) childNotReady(n *node, child string) event.Failure {
	f := event.Failure{Phase: "health", Reason: "ChildNotReady", Node: n.ID.String(), File: n.File, Line: n.Line,
		Text: fmt.Sprintf("%s waits for %s, which did not become ready", n.ID, child)}
	if id, err := flux.ParseID(child); err == nil && r.ends[id].Result == event.Suspended {
		f.Text = fmt.Sprintf("%s waits for %s, which is suspended", n.ID, child)
		f.Hint = "resume it, or do not wait for it: remove wait: true, and the healthChecks that name it"
	}
	return f
}

// unfit tells why Kustomizations that were found at a node's turn do not fit
// into the graph.
func (r *run) unfit(n *node, err error) []event.Failure {
	if failures := r.cycles(err); len(failures) > 0 {
		return failures
	}
	return []event.Failure{{Phase: "graph", Reason: "InvalidGraph", Node: n.ID.String(), File: n.File, Line: n.Line,
		Text: fmt.Sprintf("%s holds Kustomizations that cannot be run in order: %v", n.ID, err)}}
}

// unrun is the end of a node whose steps never were: it was found by another
// that failed before they could begin, or nothing was run at all.
func (r *run) unrun(n *node) event.NodeFinished {
	end := event.NodeFinished{At: now(), Node: n.ID.String(), Result: event.Cancelled}
	if !r.options.Command.writes() && (r.verdict == "" || r.verdict == event.VerdictRefused) {
		switch end.Result = r.options.Command.result(); {
		case n.excluded:
			end.Result = event.Excluded
		case n.Spec.Suspend:
			end.Result = event.Suspended
		}
		return end
	}
	for above := r.nodes.get(n.Parent); above != nil; above = r.nodes.get(above.Parent) {
		switch was := r.ends[above.ID]; was.Result {
		case event.Failed, event.Unhealthy:
			end.Result, end.BlockedBy = event.NotRun, above.ID.String()
			return end
		case event.NotRun:
			end.Result, end.BlockedBy = event.NotRun, was.BlockedBy
			return end
		}
	}
	return end
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
	if _, ok := as[*homeError](err); ok {
		phase = "cluster"
	}
	return []event.Failure{r.failure(ctx, phase, n, err)}
}

const (
	// diagnosed is how many objects of a Kustomization are looked into: the
	// first ones say what is wrong.
	diagnosed = 5
	// lateDiagnosis is how long a diagnosis may go on after the run's own limit
	// has passed.
	lateDiagnosis = 3 * time.Second
)

// diagnose tells why objects are not healthy, as sluice itself: the account
// that applies seldom may read pods and logs. A signal ends it at once, and
// what is not known by then stays unsaid.
func (r *run) diagnose(ctx context.Context, n *node, unready *health.NotReadyError) []event.Failure {
	causes := unready.Causes()
	if len(causes) == 0 {
		return []event.Failure{r.failure(ctx, "health", n, unready)}
	}
	looking, cancel := retry.Outlive(ctx, lateDiagnosis)
	defer cancel()
	defer context.AfterFunc(r.outside, cancel)()

	hub, err := r.hubAs(n, "")
	failures := make([]event.Failure, len(causes))
	var group sync.WaitGroup
	for i, status := range causes {
		f := &failures[i]
		*f = event.Failure{Phase: "health", Reason: "NotReady", Node: n.ID.String(), Object: status.Ref.String(), File: n.fileOf(status.Ref),
			Text: fmt.Sprintf("%s is %s", status.Ref, status.Status)}
		if status.Message != "" {
			f.Text += ": " + status.Message
		}
		if i < diagnosed && err == nil {
			group.Go(func() {
				if err := safe.Do(func() error { look(looking, hub.Clients(), status, r.began, f); return nil }); err != nil {
					f.LogsNote = "not looked for: " + err.Error()
				}
			})
		}
	}
	group.Wait()
	if unready.TimedOut {
		after := fmt.Sprintf(", after waiting %s", unready.Timeout)
		if limit, late := context.Cause(ctx).(*TimeoutError); late {
			after = fmt.Sprintf(", when the run's limit of %s had passed (%s)", limit.Limit, limit.origin())
		}
		for i := range failures[:min(len(failures), diagnosed)] {
			failures[i].Text += after
		}
	}
	return failures
}

// look completes a failure with what stands behind an object, unless the time
// for that is up.
func look(ctx context.Context, clients health.Clients, status health.Status, since time.Time, f *event.Failure) {
	d := health.Diagnose(ctx, clients, status, since)
	if ctx.Err() != nil {
		return
	}
	f.Reason, f.Container, f.Hint = d.Reason, d.Container, d.Hint
	f.Text = fmt.Sprintf("%s %s", status.Ref, d.Text)
	for _, e := range d.Events {
		f.Events = append(f.Events, event.WarningEvent{Count: e.Count, Reason: e.Reason, Message: e.Message})
	}
	f.Logs, f.LogsNote = d.Logs, d.LogsNote
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
