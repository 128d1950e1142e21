package plan

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/fluxcd/pkg/ssa"
	ssaerrors "github.com/fluxcd/pkg/ssa/errors"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
)

// item is one object on its way through a plan.
type item struct {
	node   *Node
	object flux.Object
	gvk    schema.GroupVersionKind
	client client.WithWatch
	// namespaced is the kind's scope, unserved the answer that the server
	// does not know the kind.
	namespaced bool
	unserved   error
	// otherwise is set if the server has an unserved kind in another version,
	// as which the object may well exist.
	otherwise bool

	// live is the object in the cluster; nil if it was not read. unlisted
	// is set if a list of what is ours did not hold it: most likely it does
	// not exist, which the dry run will tell.
	live     *rehearse.Answer
	unlisted bool
	// doubtful is set if the schema of the kind may show the object to be as
	// desired.
	doubtful bool
	dryRun   *rehearse.Answer
	// let is set if live was let go of, since it is provably as desired;
	// version is then the resource version of what was read.
	let     bool
	version string
	// absent is set if the object cannot exist, since its kind or its
	// namespace does not.
	absent bool
	// homeless is set if its namespace does not exist and may come with what
	// the run starts, so that the object may, too.
	homeless bool
	// migrates is set if the apply moves the managed fields to another
	// version before it does anything else.
	migrates bool

	change Change
	// err is an *ObjectError.
	err error
}

// namespace is where the server has the object: a namespace in the manifest of
// a cluster-scoped object means nothing (S2.23).
func (it *item) namespace() string {
	if it.namespaced {
		return it.object.GetNamespace()
	}
	return ""
}

func (it *item) key() client.ObjectKey { return client.ObjectKeyFromObject(it.object.Unstructured) }

func (it *item) set(action Action, reason string) {
	it.err = nil
	it.change = Change{Node: it.node.ID, Object: it.object, Ref: it.object.Ref(), Action: action, Reason: reason}
	if it.live != nil && it.live.Object != nil {
		it.change.Live, it.change.Version = it.live.Object, it.live.Object.GetResourceVersion()
	}
	if it.dryRun != nil && it.dryRun.Object != nil {
		it.change.Ref = flux.RefOf(it.dryRun.Object)
		it.change.Merged = it.dryRun.Object
	}
}

func (it *item) later(reason string) { it.set(Later, reason) }

func (it *item) fail(err error, hint string) {
	it.err = &ObjectError{Node: it.node.ID, Ref: it.object.Ref(), File: it.object.File, Class: classOf(err), Err: err, hint: hint}
}

// differs keeps what is different.
func (it *item) differs(fields []Field) {
	it.change.Fields = fields
	for _, f := range fields {
		it.change.Paths = append(it.change.Paths, f.Path)
	}
}

// progress counts judged objects.
type progress struct {
	mu sync.Mutex
	n  int
}

func (p *progress) step(report func(done, total int), total int) {
	if report == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	report(p.n, total)
}

// scope asks for each kind whether the server has it.
func (r *run) scope() {
	type answer struct {
		namespaced bool
		err        error
		otherwise  bool
	}
	known := map[schema.GroupVersionKind]answer{}
	for _, it := range r.items {
		a, ok := known[it.gvk]
		if !ok {
			mapping, err := it.client.RESTMapper().RESTMapping(it.gvk.GroupKind(), it.gvk.Version)
			a.err = err
			if err == nil {
				a.namespaced = mapping.Scope.Name() == meta.RESTScopeNameNamespace
			} else if meta.IsNoMatchError(err) {
				_, err := it.client.RESTMapper().RESTMapping(it.gvk.GroupKind())
				a.otherwise = err == nil
			}
			known[it.gvk] = a
		}
		it.namespaced = a.namespaced
		switch {
		case a.err == nil && a.namespaced && it.object.GetNamespace() == "":
			// The request could not even be written (S4.48).
			it.err = &ObjectError{Node: it.node.ID, Ref: it.object.Ref(), File: it.object.File, Class: Invalid,
				Err: fmt.Errorf("%s namespace not specified", it.object.Ref()), hint: "set metadata.namespace in the manifest, or spec.targetNamespace of the Kustomization"}
		case a.err == nil:
		case meta.IsNoMatchError(a.err):
			it.unserved, it.otherwise = a.err, a.otherwise
			hint := ""
			if more := (interface{ Hint() string })(nil); errors.As(a.err, &more) {
				hint = more.Hint()
			}
			it.fail(ssaerrors.NewDryRunErr(a.err, it.object.Unstructured), hint)
		default:
			it.fail(fmt.Errorf("%s query failed: %w", it.object.Ref(), a.err), "")
			r.stop(a.err)
			return
		}
	}
}

// postpone plans an object as Later that the server cannot judge for a reason
// that is known without asking.
func (r *run) postpone(it *item) {
	if it.err == nil && it.namespaced && r.supply.newNamespace(it.object.GetNamespace()) {
		it.absent = true
		it.later(fmt.Sprintf("its namespace %s comes with this run", it.object.GetNamespace()))
	}
}

// settled reports whether there is nothing more to find out.
func (it *item) settled() bool { return it.err != nil || it.change.Action != "" }

// waits reports whether the server cannot be asked about the object yet, so
// that it is left to foresee.
func (it *item) waits() bool { return it.absent || it.homeless || it.unserved != nil }

// judge classifies items.
func (r *run) judge(ctx context.Context, items []*item) {
	r.each(ctx, len(items), func(i int) {
		it := items[i]
		if !it.settled() && !r.outages.spoils(it) {
			r.classify(ctx, it)
		}
		if !it.waits() {
			r.done.step(r.options.Progress, len(r.items))
		}
	})
}

// letGo forgets the live object of an item that is as desired: of thousands, it
// is most of what a plan would hold in memory. Those that apply may have to wait
// for are kept, none of which is in a namespace (S4.11), and those whose values
// reports must know in order to hide them.
func (it *item) letGo() {
	if !it.namespaced || it.gvk == secretGVK {
		return
	}
	it.let, it.version = true, it.live.Object.GetResourceVersion()
	it.live, it.dryRun, it.change.Live, it.change.Merged = nil, nil, nil, nil
}

// classify finds out what the apply of one object would do.
func (r *run) classify(ctx context.Context, it *item) {
	live := it.live
	if live == nil {
		live = &rehearse.Answer{} // so far as the list tells
	}
	entry, err := r.rehearse(ctx, it, live)
	if it.unlisted && it.exists(err) {
		// It is there, but was not marked as ours. What has to be done
		// about it depends on how it is.
		it.live = rehearse.Ask(ctx, it.client, it.object.Unstructured, it.key())
		entry, err = r.rehearse(ctx, it, it.live)
	} else if it.live == nil {
		it.live = live
	}
	if ctx.Err() != nil {
		return
	}
	r.conclude(it, entry, err)
}

// exists reports whether a dry run that took the object for missing shows that
// it is not, or leaves it open.
func (it *item) exists(err error) bool {
	if it.dryRun == nil {
		return false
	}
	return it.dryRun.Err != nil || it.dryRun.Object.GetResourceVersion() != ""
}

// rehearse plays the apply; a dry run that was made before is not repeated.
func (r *run) rehearse(ctx context.Context, it *item, live *rehearse.Answer) (*ssa.ChangeSetEntry, error) {
	for attempt := 1; ; attempt++ {
		rc := rehearse.New(it.client, live, it.dryRun)
		entry, err := ssa.NewResourceManager(rc, nil, r.options.Owner).Apply(ctx, it.object.DeepCopy().Unstructured, it.node.Rules.SSA)
		it.dryRun, it.migrates = rc.DryRun, rc.Migrated
		if !errors.Is(err, rehearse.ErrWrite) || !rc.Stale() || attempt == rehearse.Again {
			return entry, err
		}
		// What the list brought is older than the dry run. Another reading
		// may well be of the state that the dry run saw.
		live = rehearse.Ask(ctx, it.client, it.object.Unstructured, it.key())
		it.live = live
		if live.Object == nil || live.Object.GetResourceVersion() != it.dryRun.Object.GetResourceVersion() {
			it.dryRun = nil
		}
	}
}

func (r *run) conclude(it *item, entry *ssa.ChangeSetEntry, err error) {
	live := it.live.Object
	switch {
	case err == nil && entry.Action == ssa.SkippedAction:
		it.set(Skipped, skipReason(it, live))
		m := entry.ObjMetadata
		it.change.Ref = flux.Ref{Group: m.GroupKind.Group, Version: entry.GroupVersion, Kind: m.GroupKind.Kind, Namespace: m.Namespace, Name: m.Name}
		it.change.Merged = nil
	case live != nil && live.GetDeletionTimestamp() != nil && it.live.Err == nil:
		// What the server says of it now says nothing of the one that
		// follows it.
		it.set(Recreate, "it is being deleted")
		it.change.Merged = nil
	case err == nil:
		it.set(Unchanged, "")
	case errors.Is(err, rehearse.ErrWrite) && live == nil:
		it.set(Create, "")
		it.change.Images = imageChanges(nil, it.dryRun.Object)
	case errors.Is(err, rehearse.ErrWrite):
		it.set(Configure, "")
		it.differs(changedFields(live, it.dryRun.Object, it.node.Rules.SSA.DriftIgnoreRules))
		it.change.Images = imageChanges(live, it.dryRun.Object)
		switch {
		case it.migrates:
			it.change.Reason = "its managed fields move to " + it.object.GetAPIVersion()
		case len(it.change.Paths) == 0:
			it.change.Reason = "takes over fields that others manage"
		}
	case it.live.Err != nil:
		it.fail(fmt.Errorf("%s query failed: %w", it.object.Ref(), it.live.Err), "")
		r.giveUp(it)
	case it.migrates && faults.IsSchema(err):
		// What the migration is there for: the server cannot read the managed
		// fields as they are.
		it.later("its managed fields have to move to " + it.object.GetAPIVersion() + " first")
	case rehearse.IsUnplaced(err):
		it.fail(fmt.Errorf("%s: %w", it.object.Ref(), err), rehearse.UnplacedHint)
	default:
		r.refused(it, live, err)
	}
}

// refused deals with a failed dry run.
func (r *run) refused(it *item, live *unstructured.Unstructured, err error) {
	hint := ""
	if dryRunErr := (*ssaerrors.DryRunErr)(nil); errors.As(err, &dryRunErr) && live != nil && it.node.Rules.Recreate != nil {
		yes, why := it.node.Rules.Recreate(it.object.Unstructured, live, dryRunErr.Unwrap())
		if yes {
			it.set(Recreate, "it changes a field that cannot change")
			it.differs(desiredFields(it.object.Unstructured, live, r.options.Owner.Field))
			it.change.Images = imageChanges(live, it.object.Unstructured)
			return
		}
		hint = why
	}
	it.fail(err, hint)
	r.giveUp(it)
}

// giveUp ends the plan if the server cannot be asked, or only the asking for
// objects of one group version if that alone is down.
func (r *run) giveUp(it *item) {
	var failed *ObjectError
	switch {
	case !errors.As(it.err, &failed) || failed.Class != Failed || isWebhook(failed.Err):
	case r.outages.note(it, answer(failed.Err)):
		if failed.hint == "" {
			failed.hint = outageHint(it)
		}
	default:
		r.stop(failed)
	}
}

// answer is what the server itself said, without the words about the object that
// it was asked for.
func answer(err error) error {
	if status := (*apierrors.StatusError)(nil); errors.As(err, &status) {
		return status
	}
	return err
}

func isWebhook(err error) bool { _, ok := faults.Webhook(err); return ok }

// skipReason names the marker that keeps an object from being applied.
func skipReason(it *item, live *unstructured.Unstructured) string {
	for _, where := range []struct {
		what string
		in   *unstructured.Unstructured
	}{{"its manifest", it.object.Unstructured}, {"the object in the cluster", live}} {
		if where.in == nil {
			continue
		}
		if m := markerIn(where.in, it.node.Rules.SSA.ExclusionSelector); m != "" {
			return where.what + " has " + m
		}
	}
	return "it exists, and its manifest has " + markerIn(it.object.Unstructured, it.node.Rules.SSA.IfNotPresentSelector)
}
