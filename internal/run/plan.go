package run

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/plan"
	"github.com/sluicerun/sluice/internal/plan/proof"
)

// plan asks the server about every object that can be judged now, and refuses
// the run if one of them would be refused later. All that is wrong is told at
// once, by Kustomization; an object that a cluster has nobody for is told as that
// only.
func (r *run) plan(ctx context.Context) []event.Failure {
	failures := r.unserved(r.toolkit)
	type place struct{ node, object string }
	told := map[place]bool{}
	for _, f := range failures {
		told[place{f.Node, f.Object}] = true
	}
	planned := slices.DeleteFunc(r.planAll(ctx), func(f event.Failure) bool { return f.Object != "" && told[place{f.Node, f.Object}] })
	failures = slices.Concat(r.shared(), failures, planned)
	slices.SortStableFunc(failures, func(a, b event.Failure) int { return strings.Compare(a.Node, b.Node) })
	return failures
}

func (r *run) planAll(ctx context.Context) (failures []event.Failure) {
	var places []flux.ClusterRef
	for _, n := range r.sorted() {
		if place, ok := r.placeOf(n); ok && !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	slices.SortFunc(places, compareRefs)
	r.strays = map[flux.ClusterRef][]plan.Stray{}
	for _, place := range places {
		failures = append(failures, r.planIn(ctx, place)...)
	}
	return failures
}

// placeOf returns the cluster that a node is planned in, false if it is not.
func (r *run) placeOf(n *node) (flux.ClusterRef, bool) {
	to := r.homes.at(n.Cluster())
	if to == nil || !n.built || n.excluded || n.Spec.Suspend {
		return flux.ClusterRef{}, false
	}
	return to.place, true
}

// planIn plans what goes to one cluster. The nodes of others are part of it
// without their objects: what comes before what is told by all of them.
func (r *run) planIn(ctx context.Context, at flux.ClusterRef) []event.Failure {
	var nodes []plan.Node
	var here []*node
	for _, n := range r.sorted() {
		place, ok := r.placeOf(n)
		if !ok {
			continue
		}
		share := r.toPlan(n)
		if place == at {
			here = append(here, n)
		} else {
			share.Objects = nil
		}
		nodes = append(nodes, share)
	}
	options := r.planOptions(at)
	options.Schemas = r.schemas(at)
	made, err := plan.Make(ctx, options, nodes)
	r.tellUnlisted(at, made)
	if err != nil {
		return r.planFailures(ctx, err)
	}
	r.strays[at] = made.Strays
	detailed := !r.options.Command.writes()
	if detailed {
		r.learnLive(made)
	}
	for _, n := range here {
		n.take(made, detailed)
	}
	r.tellTakenOver(made)
	return nil
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

// tellUnlisted says who may not list what, so that the plan took more requests
// than it would have to.
func (r *run) tellUnlisted(at flux.ClusterRef, made *plan.Plan) {
	if made == nil {
		return
	}
	byUser := map[string][]plan.Unlisted{}
	for _, u := range made.Unlisted {
		byUser[u.User] = append(byUser[u.User], u)
	}
	for _, user := range slices.Sorted(maps.Keys(byUser)) {
		var kinds []string
		requests, where := 0, "in the whole cluster"
		for _, u := range byUser[user] {
			kinds = append(kinds, u.Kind.Kind)
			requests += u.Requests
			if !u.Everywhere {
				where = "where objects of them are"
			}
		}
		who := user
		if who == "" {
			who = "the account that sluice runs as"
		}
		if !at.IsOwn() {
			where += " (the cluster of " + at.String() + ")"
		}
		r.notice(event.Notice{Level: event.Info, Code: "list-refused",
			Text: fmt.Sprintf("%s may not list %s %s: they were read with %s in place of %d", who, list(kinds, 5), where, count(requests, "request", "requests"), len(kinds)),
			Hint: "to save requests, grant the verb list on these kinds (docs/permissions.md)"})
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
	type held struct {
		place flux.ClusterRef
		ref   flux.Ref
	}
	holders := map[held]holder{}
	var failures []event.Failure
	for _, n := range r.sorted() {
		if n.excluded || n.Spec.Suspend {
			continue
		}
		place := r.homes.where(n.Cluster()).Cluster // the reference itself, if no cluster was looked at
		for _, o := range n.objects {
			key := held{place, o.Ref().Key()}
			first, twice := holders[key]
			if !twice {
				holders[key] = holder{n, o}
			}
			if !twice || first.node == n || meantToBeShared(o) || meantToBeShared(first.object) {
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
	to, err := r.homeOf(n)
	if err != nil {
		return r.failuresOf(ctx, "cluster", n, err)
	}
	made, err := plan.Make(ctx, r.planOptions(to.place), []plan.Node{r.toPlan(n)})
	r.tellUnlisted(to.place, made)
	if err != nil {
		return r.planFailures(ctx, err)
	}
	n.take(made, false)
	return nil
}

// schemas returns what loads the types of a cluster's kinds. It is for plans
// that are made before the first write: later, definitions may have changed,
// and a server publishes their schema some time after it begins to use it.
func (r *run) schemas(at flux.ClusterRef) func(context.Context, schema.GroupVersion, []string) (proof.Types, error) {
	loader := r.homes.at(at).Schemas()
	return func(ctx context.Context, gv schema.GroupVersion, kinds []string) (proof.Types, error) {
		return loader.Load(ctx, gv, kinds)
	}
}

func (r *run) planOptions(at flux.ClusterRef) plan.Options {
	options := plan.Options{Owner: apply.Owner(), Concurrency: cluster.MaxRequests, Client: func(n *plan.Node) (client.WithWatch, error) {
		return r.clientFor(r.nodes.get(n.ID))
	}}
	if at.IsOwn() {
		options.Namespaces = []string{r.options.StateNamespace}
	}
	return options
}

func (r *run) toPlan(n *node) plan.Node {
	after := n.Dependencies()
	if !n.Parent.IsZero() {
		after = append(after, n.Parent)
	}
	options := r.applyOptions(n)
	return plan.Node{ID: n.ID, User: r.user(n), Access: n.Cluster().String(), After: after, Objects: n.objects,
		Rules: plan.Rules{SSA: options.SSA(), Recreate: options.Recreate}}
}

// applyOptions are what plan and apply of a node have in common.
func (r *run) applyOptions(n *node) apply.Options {
	return apply.Options{
		Force: n.Spec.Force, Ignore: apply.IgnoreRules(n.Spec), AllowDelete: r.options.AllowDelete,
		CustomStageKinds: r.options.CustomStageKinds, OverrideManagers: r.options.OverrideManagers,
		MigrateAPIVersion: r.options.MigrateAPIVersion, Concurrency: cluster.MaxRequests,
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
		if trouble, _ := faults.Advice(e); trouble == faults.NoTrouble {
			f.Reason = planReasons[e.Class]
		}
		failures = append(failures, f)
	}
	return failures
}

var planReasons = map[plan.Class]string{plan.Invalid: "DryRunFailed", plan.Forbidden: "Forbidden", plan.Failed: "ServerFailed"}

// take hands a node its part of a plan, if wanted with the fields that change.
func (n *node) take(made *plan.Plan, detailed bool) {
	n.plan, n.changes = made, nil
	n.images = map[flux.Ref][]event.Image{}
	for _, c := range made.Of(n.ID) {
		change := event.Change{Node: n.ID.String(), Object: c.Ref.String(), APIVersion: c.Object.GetAPIVersion(), File: c.Object.File,
			Action: event.Action(c.Action), Reason: why(c)}
		if detailed {
			change.Fields = fieldsOf(c)
		}
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
