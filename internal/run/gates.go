package run

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/gate"
	"github.com/sluicerun/sluice/internal/schedule"
)

// A dependency with a readyExpr is no edge of the graph but a gate: a vertex of
// its own, which the dependent's applied needs, and which opens as soon as the
// expression is true (S7.7). It is looked at when the dependency is applied, when
// an attempt of it has failed, and when it has come to its end: not before, as its
// status then tells of an earlier commit. So a dependent may start while its
// dependency is still unhealthy, or although it has failed, if the expression says
// so. At the dependency's end nothing will change any more: a gate that is not
// open then stays shut, and the dependent is not run.
//
// A gate comes after the dependency's applied in the order of the graph, so that
// cycles are found as without it (S7.11).

const gatePrefix = "gate "

// gateName names the gate of a node's i-th expression.
func gateName(n *node, i int) string {
	return fmt.Sprintf("%s%s %s %d", gatePrefix, n.gates[i].Dep, n.ID, i)
}

func isGate(vertex string) bool { return strings.HasPrefix(vertex, gatePrefix) }

// gateNeeds is a gate and what it waits for before it is looked at.
type gateNeeds struct {
	name string
	gate.Expression
	toAsk, after []string
}

// gateSteps are a node's gates as steps.
func (r *run) gateSteps(n *node, gates []gateNeeds) []schedule.Step {
	var steps []schedule.Step
	for _, g := range gates {
		seen := 0
		steps = append(steps, schedule.Step{Name: g.name, Needs: g.toAsk, After: g.after, Open: func(ctx context.Context, last bool) (bool, error) {
			dep := r.nodes.get(g.Dep)
			if dep == nil {
				return true, nil // missing: found at the node's turn
			}
			_, over := r.ends[g.Dep]
			moment := dep.live.Moment()
			if !over && !last && moment == seen {
				return false, nil
			}
			seen = moment
			shut := r.ask(ctx, n, dep, g.Expression)
			switch {
			case shut == nil:
				return true, nil
			case ctx.Err() != nil:
				return false, context.Cause(ctx)
			case !over && !last:
				return false, nil
			}
			shut.stuck = !over
			return false, shut
		}})
	}
	return steps
}

// ask evaluates an expression of a node; nil if it is true.
func (r *run) ask(ctx context.Context, n, dep *node, e gate.Expression) *shutError {
	open, err := e.Evaluate(ctx, n.live, dep.live)
	if err == nil && open {
		return nil
	}
	return &shutError{node: n, dep: dep, text: e.Text, err: err, state: dep.live.State()}
}

// shutError says that a readyExpr is not true. It unwraps to errSuspended if
// the dependency is suspended, which is no failure of the run.
type shutError struct {
	node, dep *node
	text      string
	err       error  // of the evaluation; nil if it is false
	state     string // the dependency's conditions
	stuck     bool   // the dependency waits in turn for the node
}

func (e *shutError) Error() string {
	text := fmt.Sprintf("%s depends on %s, whose readyExpr is false: %s", e.node.ID, e.dep.ID, oneLine(e.text))
	if e.err != nil {
		text = fmt.Sprintf("%s depends on %s, whose readyExpr cannot be evaluated: %s", e.node.ID, e.dep.ID, oneLine(e.err.Error()))
	}
	text = fmt.Sprintf("%s; the status of %s was %s", text, e.dep.ID, e.state)
	if e.stuck {
		text += fmt.Sprintf(", and %s becomes ready only after %s", e.dep.ID, e.node.ID)
	}
	return text
}

func (e *shutError) Unwrap() error {
	if e.dep.Spec.Suspend {
		return errSuspended
	}
	return nil
}

// Hint says what to do.
func (e *shutError) Hint() string {
	switch {
	case e.stuck:
		return fmt.Sprintf("each waits for the other: the expression must be true of %s when it is applied, or %s must not wait for what it contains", e.dep.ID, e.dep.ID)
	case e.err != nil:
		return "test fields that may be missing with has(…), as in has(dep.status.lastAppliedRevision) && …"
	}
	return "correct the expression, or what keeps it from being true (docs/dependencies.md says what it sees)"
}

// oneLine makes an expression of several lines fit into a message.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// shutFailure tells why a node is not run.
func (r *run) shutFailure(n *node, shut *shutError) event.Failure {
	return event.Failure{Phase: "graph", Reason: "DependencyNotReady", Node: n.ID.String(), File: n.File, Line: n.Line,
		Text: shut.Error(), Hint: shut.Hint()}
}

// culprit names the node that is to blame for one that did not run, given the
// step whose failure was the cause. Behind a gate that is the dependency, if that
// did not become ready; else, to all but itself, the dependent that was kept from
// running.
func (r *run) culprit(n *node, cause string) string {
	shut := r.shut[cause]
	if shut == nil {
		return nodeOf(cause)
	}
	if end, over := r.ends[shut.dep.ID]; over && end.Result != event.Ready {
		if end.BlockedBy != "" {
			return end.BlockedBy
		}
		return shut.dep.ID.String()
	}
	if n == shut.node {
		return shut.dep.ID.String()
	}
	return shut.node.ID.String()
}

// newNode makes a node of a Kustomization that was found in the build of another,
// or of the root, which has none.
func (r *run) newNode(k *flux.Kustomization) *node {
	n := &node{Kustomization: k, excluded: !r.options.selects(k.ID), deferred: openSpec(k)}
	var parent *flux.Kustomization
	if above := r.nodes.get(k.Parent); above != nil {
		parent = above.Kustomization
	}
	n.live = gate.New(k, parent)
	return n
}

// show brings the object that expressions see to the node's end. err is that of its last step.
func (r *run) show(n *node, end event.NodeFinished, err error) {
	if digest, ok := "", false; r.gated.Load() && snapshotStatus[end.Result] != "" {
		if digest, ok = n.digest(); ok {
			n.live.Attempted(digest, end.Duration, snapshotStatus[end.Result], n.revision)
		}
	}
	switch end.Result {
	case event.Ready:
		n.live.Succeeded(n.revision, n.waited.Round(time.Millisecond))
	case event.Failed, event.Unhealthy:
		text := ""
		if err != nil {
			text = err.Error()
		} else if len(end.Failures) > 0 {
			text = end.Failures[0].Text
		}
		reason := meta.HealthCheckFailedReason
		if end.Result == event.Failed && len(end.Failures) > 0 {
			reason = fluxReason(end.Failures[0])
		}
		n.live.Failed(reason, text)
	case event.NotRun:
		n.live.Failed(meta.DependencyNotReadyReason, fmt.Sprintf("dependency '%s' is not ready", end.BlockedBy))
	}
}

// fluxReason is Flux's reason on the condition Ready for a failure (S9.2).
func fluxReason(f event.Failure) string {
	switch f.Phase {
	case "source":
		return meta.ArtifactFailedReason
	case "discover", "build", "substitute":
		return meta.BuildFailedReason
	case "health":
		return meta.HealthCheckFailedReason
	}
	return meta.ReconciliationFailedReason
}
