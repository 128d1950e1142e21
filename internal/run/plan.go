package run

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/plan"
)

// plan asks the server about every object that can be judged now, and refuses
// the run if one of them would be refused later.
func (r *run) plan(ctx context.Context) []event.Failure {
	shared := r.shared()
	var nodes []plan.Node
	for _, n := range r.sorted() {
		if n.built && !n.excluded && !n.Spec.Suspend {
			nodes = append(nodes, r.toPlan(n))
		}
	}
	made, err := plan.Make(ctx, r.planOptions(), nodes)
	if err != nil {
		return append(shared, r.planFailures(ctx, err)...)
	}
	for _, n := range nodes {
		r.nodes.get(n.ID).take(made)
	}
	r.tellTakenOver(made)
	return shared
}

// tellTakenOver warns of objects that carry the owner labels of a Kustomization
// which is neither in this run nor on its record: another root holds them, or a
// controller, and would take them back.
func (r *run) tellTakenOver(made *plan.Plan) {
	for _, c := range made.Changes {
		if c.Live == nil || c.Action == plan.Skipped {
			continue
		}
		labels := c.Live.GetLabels()
		owner := flux.ID{Namespace: labels[flux.NamespaceLabel], Name: labels[flux.NameLabel]}
		if owner.Namespace == "" || owner.Name == "" || r.nodes.get(owner) != nil || r.state.Records[owner] != nil {
			continue
		}
		r.notice(event.Notice{Level: event.Warning, Code: "taken-over", Node: c.Node.String(), Object: c.Ref.String(), File: c.Object.File,
			Text: fmt.Sprintf("%s belongs to %s so far, which is not part of this run: it is taken over", c.Ref, owner),
			Hint: "if that one is still run, leave the object out of one of the two"})
	}
}

// shared looks for objects that two Kustomizations hold (S16.8). In Flux each
// run of either takes the object over with its own labels and content. With
// equal content only the labels change hands, which is said; with different
// content it would be chance which one is live, which is refused.
func (r *run) shared() []event.Failure {
	type holder struct {
		*node
		object flux.Object
	}
	holders := map[flux.Ref]holder{}
	var failures []event.Failure
	for _, n := range r.sorted() {
		if n.excluded || n.Spec.Suspend {
			continue
		}
		for _, o := range n.objects {
			first, held := holders[o.Ref().Key()]
			if !held {
				holders[o.Ref().Key()] = holder{n, o}
			}
			if !held || first.node == n || meantToBeShared(o) || meantToBeShared(first.object) {
				continue
			}
			text := fmt.Sprintf("%s is part of %s and of %s", o.Ref(), first.ID, n.ID)
			const hint = "leave it in one of them, and let the other depend on that one"
			if reflect.DeepEqual(bare(first.object), bare(o)) {
				r.notice(event.Notice{Level: event.Warning, Code: "shared-object", Node: n.ID.String(), Object: o.Ref().String(), File: o.File,
					Text: text + ": each run it changes hands", Hint: hint})
				continue
			}
			failures = append(failures, event.Failure{Phase: "plan", Reason: "SharedObject", Node: n.ID.String(), Object: o.Ref().String(), File: o.File,
				Text: fmt.Sprintf("%s with different content (%s and %s)", text, position(first.object.File, 0), position(o.File, 0)), Hint: hint})
		}
	}
	return failures
}

// bare is an object without the owner labels, in which two holders always differ.
func bare(o flux.Object) map[string]any {
	content := o.DeepCopy()
	labels := content.GetLabels()
	delete(labels, flux.NameLabel)
	delete(labels, flux.NamespaceLabel)
	content.SetLabels(labels)
	return content.Object
}

// meantToBeShared says whether a marker of S4.25 makes sharing the point: the
// object leaves to others what it does not set, or is left alone.
func meantToBeShared(o flux.Object) bool {
	for _, marks := range []map[string]string{o.GetLabels(), o.GetAnnotations()} {
		switch strings.ToLower(marks[flux.Group+"/ssa"]) {
		case "merge", "ifnotpresent", "ignore":
			return true
		}
		if strings.EqualFold(marks[flux.Group+"/reconcile"], "disabled") {
			return true
		}
	}
	return false
}

// planLate plans a node that was built at its turn.
func (r *run) planLate(ctx context.Context, n *node) []event.Failure {
	made, err := plan.Make(ctx, r.planOptions(), []plan.Node{r.toPlan(n)})
	if err != nil {
		return r.planFailures(ctx, err)
	}
	n.take(made)
	return nil
}

func (r *run) planOptions() plan.Options {
	return plan.Options{Client: r.cluster.Client, Owner: apply.Owner(), Namespaces: []string{r.options.StateNamespace}}
}

func (r *run) toPlan(n *node) plan.Node {
	after := n.Dependencies()
	if !n.Parent.IsZero() {
		after = append(after, n.Parent)
	}
	options := r.applyOptions(n)
	return plan.Node{ID: n.ID, User: r.user(n), After: after, Objects: n.objects,
		Rules: plan.Rules{SSA: options.SSA(), Recreate: options.Recreate}}
}

// applyOptions are what plan and apply of a node have in common.
func (r *run) applyOptions(n *node) apply.Options {
	return apply.Options{
		Force: n.Spec.Force, Ignore: apply.IgnoreRules(n.Spec), AllowDelete: r.options.AllowDelete,
		CustomStageKinds: r.options.CustomStageKinds, OverrideManagers: r.options.OverrideManagers,
		MigrateAPIVersion: r.options.MigrateAPIVersion,
	}
}

// planFailures tells the objects that the server would refuse. One that it
// could not be asked about makes the run no less impossible.
func (r *run) planFailures(ctx context.Context, err error) []event.Failure {
	objects, ok := as[plan.Errors](err)
	if !ok {
		return r.failuresOf(ctx, "plan", nil, err)
	}
	var failures []event.Failure
	for _, e := range objects {
		f := r.failure(ctx, "plan", r.nodes.get(e.Node), e)
		f.Reason = planReasons[e.Class]
		failures = append(failures, f)
	}
	return failures
}

var planReasons = map[plan.Class]string{plan.Invalid: "DryRunFailed", plan.Forbidden: "Forbidden", plan.Failed: "ServerFailed"}

// memo returns the client for a node's apply, which answers from the plan what
// the plan has asked already.
func (n *node) memo(c client.WithWatch) client.WithWatch {
	if n.plan == nil {
		return c
	}
	return n.plan.Client(n.ID, c)
}

// take hands a node its part of a plan.
func (n *node) take(made *plan.Plan) {
	n.plan, n.changes = made, nil
	n.images = map[flux.Ref][]event.Image{}
	for _, c := range made.Of(n.ID) {
		change := event.Change{Node: n.ID.String(), Object: c.Ref.String(), APIVersion: c.Object.GetAPIVersion(), File: c.Object.File,
			Action: event.Action(c.Action), Reason: c.Reason}
		for _, image := range c.Images {
			change.Images = append(change.Images, event.Image{Container: image.Container, Old: image.Old, New: image.New})
		}
		n.images[c.Object.Ref()] = change.Images
		n.changes = append(n.changes, change)
	}
}

// change describes an object after its apply, with the images that the plan
// saw change.
func (n *node) change(o flux.Object, action event.Action, reason string) event.Change {
	return event.Change{Node: n.ID.String(), Object: o.Ref().String(), APIVersion: o.GetAPIVersion(), File: o.File,
		Action: action, Reason: reason, Images: n.images[o.Ref()]}
}

// willChange says whether the plan has anything to do for the node.
func (n *node) willChange() bool {
	return slices.ContainsFunc(n.changes, func(c event.Change) bool { return c.Action != event.Unchanged && c.Action != event.Skipped })
}
