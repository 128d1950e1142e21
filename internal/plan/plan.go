package plan

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/jsondiff"
	"github.com/fluxcd/pkg/ssa/utils"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/plan/proof"
	"github.com/sluicerun/sluice/internal/safe"
)

const defaultConcurrency = 16

// Action is what a run would do to an object.
type Action string

// The actions.
const (
	Create    Action = "create"
	Configure Action = "configure"
	// Recreate: delete and make again, because a field changes that cannot
	// and force allows it (S4.28).
	Recreate  Action = "recreate"
	Unchanged Action = "unchanged"
	// Skipped: a marker says not to touch it (S4.25).
	Skipped Action = "skipped"
	// Later: it can be judged only when its turn comes.
	Later Action = "later"
)

// Node is one Kustomization's share of a plan.
type Node struct {
	ID flux.ID
	// User is who applies (S4.40); empty is sluice itself.
	User string
	// Access names the credentials with which User is reached; nodes with the
	// same credentials and user have the same client.
	Access string
	// After are the Kustomizations whose objects are ready before these
	// are applied: its dependencies and its parent. Nodes without objects
	// here, such as those of another cluster, are links between others.
	After []flux.ID
	// Objects are what is applied, labelled and normalised ([Normalize]).
	Objects []flux.Object
	Rules   Rules
}

// Rules say how the apply of a node judges its objects. They come from the
// apply's own options, so that plan and apply agree.
type Rules struct {
	// SSA are markers, clean-up, and ignore rules.
	SSA ssa.ApplyOptions
	// Recreate decides about an existing object whose dry run failed.
	Recreate func(desired, live *unstructured.Unstructured, err error) (yes bool, why string)
}

// Options are what a plan works with.
type Options struct {
	// Client returns the client that a node's objects are applied with. All
	// lead to one cluster.
	Client func(n *Node) (client.WithWatch, error)
	// Owner is who applies.
	Owner ssa.Owner
	// Schemas loads the types of some kinds of a group version from the
	// server's OpenAPI ([schemas.Loader.Load]). It must be safe for concurrent
	// use. Nil, or an error, means that what cannot be told without them is
	// dry-run.
	Schemas func(ctx context.Context, gv schema.GroupVersion, kinds []string) (proof.Types, error)
	// Namespaces are those that the caller will have created before the
	// first apply.
	Namespaces []string
	// Concurrency is how many requests may be under way; 0 means 16.
	Concurrency int
	// Progress gets the number of objects that are judged, and of all.
	// Calls do not overlap.
	Progress func(done, total int)
}

// Change is what a run would do to one object.
type Change struct {
	Node   flux.ID
	Object flux.Object
	// Ref is the object as the cluster has it or will have it, which for a
	// skipped one is the live object's (S4.26).
	Ref    flux.Ref
	Action Action
	// Reason explains Recreate, Skipped, Later, a Configure that changes only
	// who owns the fields, and a Create of what the server itself could not be
	// asked about, since its namespace or its kind comes with the run.
	Reason string
	// Paths are the fields that differ between Live and Merged, sorted; for
	// a re-created object, between Live and the manifest.
	Paths []string
	// Fields are the same with their values. Those of Secrets are masked.
	Fields []Field
	// Images are the container images that differ.
	Images []Image
	// Live is the object in the cluster, nil if there is none, if it was not
	// read, or if nothing but that it is unchanged had to be known of it. Merged
	// is what the apply would make of it, as the server says; nil if it has not
	// said. Both may hold secret values, and neither may be changed.
	Live, Merged *unstructured.Unstructured
	// Version is the resource version of the object in the cluster, also of one
	// that Live does not hold; empty if there is none, or it was not read.
	Version string
}

// Image is a container whose image changes. Old is empty for a new container.
type Image struct {
	Container string
	Old, New  string
}

// Plan is what a run would do.
type Plan struct {
	// Changes holds every object, in the order of the nodes and of their
	// objects. Objects that could not be judged are missing.
	Changes []Change
	// Unlisted tells where users may not list, in a fixed order.
	Unlisted []Unlisted
	// Strays are objects that carry the owner labels of one of the nodes and that the lists happened to bring, though none of the
	// nodes asked for them. They are sorted, each once. There may be more: of kinds and in namespaces that were not listed.
	Strays []Stray

	memos map[flux.ID]*memo
}

// Count returns how many changes there are of each action.
func (p *Plan) Count() map[Action]int {
	n := map[Action]int{}
	for _, c := range p.Changes {
		n[c.Action]++
	}
	return n
}

// Of returns the changes of one node, in order.
func (p *Plan) Of(id flux.ID) []Change {
	var out []Change
	for i := range p.Changes {
		if p.Changes[i].Node == id {
			out = append(out, p.Changes[i])
		}
	}
	return out
}

// Make plans the nodes against the cluster as it is now.
//
// If objects cannot be planned the error is of type [Errors], and the plan
// holds the others. When the server cannot be reached it asks no further. The
// end of ctx gives its cause.
func Make(ctx context.Context, o Options, nodes []Node) (*Plan, error) {
	if o.Concurrency < 1 {
		o.Concurrency = defaultConcurrency
	}
	r := &run{options: o}
	for i := range nodes {
		if err := r.add(&nodes[i]); err != nil {
			return nil, err
		}
	}
	r.supply = newSupply(nodes, r.items, o.Namespaces)

	// What the server could not be asked ends the whole: two thousand
	// objects need not each find out.
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r.stop = stop
	r.scope()
	// Namespaces first: what is in one that does not exist need not be read.
	// And definitions: a schema that the run changes proves nothing.
	var first, rest []*item
	for _, it := range r.items {
		if it.gvk == namespaceGVK || utils.IsCRD(it.object.Unstructured) {
			first = append(first, it)
		} else {
			rest = append(rest, it)
		}
	}
	r.look(working, first)
	r.supply.learnNamespaces(first)
	r.supply.learn(first)
	for _, it := range rest {
		r.postpone(it)
	}
	r.look(working, rest)
	r.excuse()
	r.foresee(working)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return r.result()
}

// look finds out about items: what the cluster has, what of it is as it should
// be, and what the server says to the rest.
func (r *run) look(ctx context.Context, items []*item) {
	r.read(ctx, items)
	r.settleDoubts(ctx, items)
	r.judge(ctx, items)
}

// run is one making of a plan.
type run struct {
	options Options
	items   []*item
	supply  *supply
	// unlisted is for Plan.Unlisted.
	unlisted []Unlisted
	// strays are for Plan.Strays; straying guards them.
	strays   []Stray
	straying sync.Mutex
	outages  outages
	stop     context.CancelCauseFunc
	done     progress
}

func (r *run) add(n *Node) error {
	if _, err := jsondiff.CompileIgnoreRules(n.Rules.SSA.DriftIgnoreRules); err != nil {
		return fmt.Errorf("%s: spec.ignore cannot be used: %w", n.ID, err)
	}
	if len(n.Objects) == 0 {
		return nil
	}
	c, err := r.options.Client(n)
	if err != nil {
		return fmt.Errorf("%s: %w", n.ID, err)
	}
	for _, o := range n.Objects {
		r.items = append(r.items, &item{node: n, object: o, gvk: o.GroupVersionKind(), client: c})
	}
	return nil
}

// each runs fn for the items, some at a time, and starts none after the end of
// ctx.
func (r *run) each(ctx context.Context, n int, fn func(i int)) {
	r.eachOf(ctx, r.options.Concurrency, n, fn)
}

func (r *run) eachOf(ctx context.Context, limit, n int, fn func(i int)) {
	var g errgroup.Group
	g.SetLimit(limit)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() (err error) {
			defer safe.Recover(&err)
			if ctx.Err() == nil {
				fn(i)
			}
			return nil
		})
	}
	safe.Raise(g.Wait()) // fn has no other error: an item keeps its own
}

// excuse plans for later what may be accepted at its turn.
func (r *run) excuse() {
	r.supply.learn(r.items)
	for _, it := range r.items {
		if it.err != nil {
			if reason, ok := r.supply.excuse(it); ok {
				it.later(reason)
			} else if e := (*ObjectError)(nil); it.unserved != nil && errors.As(it.err, &e) && e.hint == "" {
				e.hint = unservedHint(it)
			}
		}
	}
}

// result collects what was found out.
func (r *run) result() (*Plan, error) {
	p := &Plan{memos: map[flux.ID]*memo{}, Unlisted: r.unlisted, Strays: r.sortedStrays()}
	var errs Errors
	for _, it := range r.items {
		var failed *ObjectError
		switch {
		case errors.As(it.err, &failed):
			errs = append(errs, failed)
		case it.change.Action == "":
			// The plan was given up before its turn, for an error above.
		default:
			p.Changes = append(p.Changes, it.change)
			p.remember(it, r.supply)
		}
	}
	if len(errs) > 0 {
		return p, errs
	}
	return p, nil
}
