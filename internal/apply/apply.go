package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/ssa"
	ssaerrors "github.com/fluxcd/pkg/ssa/errors"
	"github.com/fluxcd/pkg/ssa/jsondiff"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/retry"
)

// Action is what was done to an object, in Flux's words (S4.45).
type Action string

// The actions.
const (
	Created    Action = "created"
	Configured Action = "configured"
	// Recreated: deleted and made again, by force.
	Recreated Action = "recreated"
	Unchanged Action = "unchanged"
	Skipped   Action = "skipped"
)

// Result is what became of one object.
type Result struct {
	Object flux.Object
	// Ref is the object as the cluster has it, which is what belongs in the
	// inventory: for skipped objects that of the live one, if there is one
	// (S4.26), and without a namespace for a cluster-scoped object whose
	// manifest has one (S2.23).
	Ref flux.Ref
	// Action is empty if Err is set.
	Action Action
	// Reason explains Skipped and Recreated.
	Reason string
	// Err is an [*ObjectError].
	Err error
}

// grace is how long a write that was under way when the context ended may
// still take. A run that is told to stop has five seconds.
const grace = 3 * time.Second

// objectRetry is for failures that a new reading of the object cures: another
// writer was faster, a kind was defined or a right was given a moment ago and
// not every part of the API server knows yet.
var objectRetry = retry.Policy{Attempts: 5, Base: 200 * time.Millisecond, Factor: 2}

// Apply applies objects, which must be normalised and carry their owner
// labels, with the given client.
//
// The results are in apply order. When Apply fails they are those of the
// objects that were dealt with; objects whose turn did not come have none. The
// error is of type [Errors] if objects failed, the context's cause if it ended
// before all were done, else that of the wait after a stage.
//
// When ctx ends nothing new is started, and a write that is under way may take
// another three seconds.
func Apply(ctx context.Context, c client.WithWatch, objects []flux.Object, o Options) ([]Result, error) {
	if o.Concurrency < 1 {
		o.Concurrency = defaultConcurrency
	}
	if o.RecreateTimeout <= 0 {
		o.RecreateTimeout = defaultRecreateTimeout
	}
	if _, err := jsondiff.CompileIgnoreRules(o.Ignore); err != nil {
		return nil, fmt.Errorf("spec.ignore cannot be used: %w", err)
	}
	r := &runner{client: c, options: o, ssa: o.SSA()}
	for _, s := range stages(objects, o.CustomStageKinds) {
		if err := r.stage(ctx, s); err != nil {
			return r.results, err
		}
	}
	return r.results, nil
}

type runner struct {
	client  client.WithWatch
	options Options
	ssa     ssa.ApplyOptions

	mu      sync.Mutex // for options.Report
	results []Result
}

// step is one object on its way through a stage.
type step struct {
	object flux.Object
	// final is set when result is.
	final  bool
	result Result
	// live and dryRun are the server's answers in the first pass.
	live, dryRun *rehearse.Answer
	recreate     bool
	// dying is set if somebody has deleted the object and it is not gone yet:
	// it is awaited, and then made again.
	dying bool
	// ready is set if the object is known to be Current.
	ready bool
	// absent is set for a skipped object that does not exist.
	absent bool
}

func (r *runner) stage(ctx context.Context, s stage) error {
	objects := sorted(s.objects)
	steps := make([]*step, len(objects))
	for i, o := range objects {
		steps[i] = &step{object: o}
	}
	// The first pass: nothing is written unless all of the stage can be
	// (S4.18).
	r.each(ctx, steps, func(st *step) { r.rehearse(ctx, st) })
	if err := r.failures(steps); err != nil {
		r.collect(steps, func(st *step) bool { return st.result.Err != nil })
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// The second pass, rank by rank (S4.17, S4.20).
	var err error
	for rank := range rankwise(steps) {
		r.each(ctx, rank, func(st *step) {
			if !st.final {
				r.write(ctx, st)
			}
			r.report(st)
		})
		if err = r.failures(rank); err != nil || ctx.Err() != nil {
			break
		}
	}
	r.collect(steps, func(st *step) bool { return st.final })
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.wait {
		return r.wait(ctx, s.name, steps)
	}
	return nil
}

// each runs fn for every step, some at a time, and starts none after the end
// of ctx.
func (r *runner) each(ctx context.Context, steps []*step, fn func(*step)) {
	var g errgroup.Group
	g.SetLimit(r.options.Concurrency)
	for _, st := range steps {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if ctx.Err() == nil {
				fn(st)
			}
			return nil
		})
	}
	_ = g.Wait() // fn has no error: a step keeps its own
}

// rankwise yields runs of steps of equal rank.
func rankwise(steps []*step) func(yield func([]*step) bool) {
	return func(yield func([]*step) bool) {
		for start := 0; start < len(steps); {
			end := start + 1
			for end < len(steps) && ranks[steps[end].object.GetKind()] == ranks[steps[start].object.GetKind()] {
				end++
			}
			if !yield(steps[start:end]) {
				return
			}
			start = end
		}
	}
}

func (r *runner) failures(steps []*step) error {
	var list Errors
	for _, st := range steps {
		if e := (*ObjectError)(nil); errors.As(st.result.Err, &e) {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list
}

func (r *runner) collect(steps []*step, which func(*step) bool) {
	for _, st := range steps {
		if which(st) {
			r.results = append(r.results, st.result)
		}
	}
}

func (r *runner) report(st *step) {
	if r.options.Report == nil || !st.final {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.options.Report(st.result)
}

func (r *runner) fail(st *step, err error, hint string) {
	ref := st.object.Ref()
	st.final = true
	st.result = Result{Object: st.object, Ref: ref, Err: &ObjectError{Ref: ref, File: st.object.File, Err: err, hint: hint}}
}

// done makes the result of a step from ssa's entry.
func (r *runner) done(st *step, action Action, reason string, id flux.Ref) {
	st.final = true
	st.result = Result{Object: st.object, Ref: id, Action: action, Reason: reason}
}

// rehearse decides what has to be done to an object, writing nothing.
func (r *runner) rehearse(ctx context.Context, st *step) {
	var rc *rehearse.Client
	var entry *ssa.ChangeSetEntry
	err := retry.Do(ctx, objectRetry, func(ctx context.Context, _ int) error {
		var err error
		for range rehearse.Again {
			rc = rehearse.New(r.client, nil, nil)
			entry, err = ssa.NewResourceManager(rc, nil, Owner()).Apply(ctx, st.object.DeepCopy().Unstructured, r.ssa)
			if !errors.Is(err, rehearse.ErrWrite) || !rc.Stale() {
				break
			}
		}
		if err != nil && !r.passes(st.object, err) {
			return retry.Permanent(err)
		}
		return err
	})
	if rc == nil {
		return // ctx ended before the first question
	}
	st.live, st.dryRun = rc.Live, rc.DryRun
	skipped := err == nil && entry.Action == ssa.SkippedAction
	if !skipped && rc.Exists() && rc.Live.Object.GetDeletionTimestamp() != nil {
		// To write to it, or to find it unchanged, would be no lasting
		// success.
		st.recreate, st.dying = true, true
		return
	}
	switch {
	case errors.Is(err, rehearse.ErrWrite):
		return // the second pass writes
	case err != nil && rc.Migrated && rehearse.IsSchemaError(err):
		return // as above: the server cannot judge it before the migration
	case err == nil:
		r.settled(st, entry)
		return
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return // not decided; Apply returns the cause
	}
	if namespaced, scopeErr := r.client.IsObjectNamespaced(st.object.Unstructured); scopeErr == nil && namespaced && st.object.GetNamespace() == "" {
		r.fail(st, fmt.Errorf("%s namespace not specified", st.object.Ref()), "set metadata.namespace in the manifest, or spec.targetNamespace of the Kustomization")
		return
	}
	if rc.Live != nil && rc.Live.Err != nil && !rehearse.IsUnknownResource(rc.Live.Err) {
		r.fail(st, queryError(st.object.Ref(), rc.Live.Err), "")
		return
	}
	hint := ""
	if dryRunErr := (*ssaerrors.DryRunErr)(nil); errors.As(err, &dryRunErr) && rc.Exists() {
		yes, why := r.options.Recreate(st.object.Unstructured, rc.Live.Object, dryRunErr.Unwrap())
		if st.recreate = yes; yes {
			return
		}
		hint = why
	}
	r.fail(st, err, hint)
}

// settled ends a step that needs no write.
func (r *runner) settled(st *step, entry *ssa.ChangeSetEntry) {
	action, reason := Unchanged, ""
	id := st.ref()
	if entry.Action == ssa.SkippedAction {
		action = Skipped
		m := entry.ObjMetadata
		id = flux.Ref{Group: m.GroupKind.Group, Version: entry.GroupVersion, Kind: m.GroupKind.Kind, Namespace: m.Namespace, Name: m.Name}
		var live *unstructured.Unstructured
		if st.live != nil {
			live = st.live.Object
		}
		st.absent = live == nil
		reason = skipReason(st.object.Unstructured, live)
	}
	if st.live != nil && st.live.Object != nil {
		st.ready = isCurrent(st.live.Object)
	}
	r.done(st, action, reason, id)
}

// ref is the object as the server names it.
func (st *step) ref() flux.Ref {
	if st.dryRun != nil && st.dryRun.Object != nil {
		return flux.RefOf(st.dryRun.Object)
	}
	return st.object.Ref()
}

// skipReason names the marker that keeps an object from being applied.
func skipReason(desired, live *unstructured.Unstructured) string {
	for _, m := range []struct{ key, value string }{{reconcileMarker, "disabled"}, {ssaMarker, "Ignore"}} {
		if marked(desired, m.key, m.value) {
			return fmt.Sprintf("its manifest has %s: %s", m.key, m.value)
		}
		if live != nil && marked(live, m.key, m.value) {
			return fmt.Sprintf("the object in the cluster has %s: %s", m.key, m.value)
		}
	}
	return fmt.Sprintf("it exists, and its manifest has %s: IfNotPresent", ssaMarker)
}

func marked(o *unstructured.Unstructured, key, value string) bool {
	return strings.EqualFold(o.GetLabels()[key], value) || strings.EqualFold(o.GetAnnotations()[key], value)
}

// write brings one object to what is desired.
func (r *runner) write(ctx context.Context, st *step) {
	ctx, cancel := retry.Outlive(ctx, grace)
	defer cancel()
	if st.recreate {
		if !r.makeWay(ctx, st) {
			return
		}
	}
	live, dryRun := st.live, st.dryRun
	if st.recreate || len(r.options.Ignore) > 0 {
		// An ignored field is written with its live value (S4.34), which
		// must not be an old one.
		live, dryRun = nil, nil
	}
	var pc *rehearse.Client
	var entry *ssa.ChangeSetEntry
	err := retry.Do(ctx, objectRetry, func(ctx context.Context, attempt int) error {
		if attempt > 1 {
			live, dryRun = nil, nil
		}
		var err error
		pc = rehearse.Perform(r.client, live, dryRun)
		entry, err = ssa.NewResourceManager(pc, nil, Owner()).Apply(ctx, st.object.DeepCopy().Unstructured, r.ssa)
		if err != nil && !r.passes(st.object, err) && !lostClean(pc, err) {
			return retry.Permanent(err)
		}
		return err
	})
	if err != nil {
		hint := ""
		if st.recreate && !st.dying {
			err = fmt.Errorf("%w; the old one has been deleted because a field of it cannot change", err)
			hint = "the object is missing now; correct the manifest and run again"
		}
		r.fail(st, err, hint)
		return
	}
	if entry.Action == ssa.SkippedAction {
		st.live = pc.Live
		r.settled(st, entry)
		return
	}
	action, reason := Configured, ""
	switch {
	case st.dying:
		action, reason = Recreated, "the one before was being deleted"
	case st.recreate:
		action, reason = Recreated, "it changes a field that cannot change"
	case st.live == nil || st.live.Object == nil:
		action = Created
	}
	if pc.Written != nil && pc.Written.Object != nil {
		st.dryRun = pc.Written
		st.ready = isCurrent(pc.Written.Object)
	}
	r.done(st, action, reason, st.ref())
}

// makeWay deletes an object that has to be made again, after a second look:
// the first may be as old as a plan. It reports whether to go on.
func (r *runner) makeWay(ctx context.Context, st *step) bool {
	again := &step{object: st.object}
	r.rehearse(ctx, again)
	if again.final {
		st.final, st.result = true, again.result
		return false
	}
	if again.live == nil {
		r.fail(st, fmt.Errorf("%s query failed: %w", st.object.Ref(), context.Cause(ctx)), "")
		return false
	}
	st.live, st.dryRun, st.recreate = again.live, again.dryRun, again.recreate
	if again.dying {
		st.dying = true
		if err := outlast(ctx, r.client, st.live.Object, r.options.RecreateTimeout); err != nil {
			r.fail(st, err, "see what holds it, or remove its finalizers if what they stand for is done")
			return false
		}
		return true
	}
	if !st.recreate {
		return true
	}
	if err := remove(ctx, r.client, st.live.Object, r.options.RecreateTimeout); err != nil {
		r.fail(st, err, "")
		return false
	}
	return true
}

// passes reports whether a failure is worth a second look at the object.
func (r *runner) passes(o flux.Object, err error) bool {
	_, owned := apierrors.StatusCause(err, metav1.CauseTypeFieldManagerConflict)
	switch {
	case owned:
		return false // a new reading does not change who owns a field
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return true
	case rehearse.IsUnknownResource(err):
		// A definition may be new. Where a namespace is missing the same
		// answer will never change.
		namespaced, scopeErr := r.client.IsObjectNamespaced(o.Unstructured)
		return scopeErr != nil || !namespaced || o.GetNamespace() != ""
	case apierrors.IsForbidden(err):
		// What the authorizer says, not an admission plug-in: a binding may
		// be new.
		return strings.Contains(err.Error(), " cannot ")
	}
	return false
}

// lostClean reports whether the clean-up of metadata failed, which is a patch
// of what was read: another writer may have been faster.
func lostClean(c *rehearse.Client, err error) bool {
	return c.Cleaned && apierrors.IsInvalid(err) && (c.Written == nil || c.Written.Err != nil)
}

func isCurrent(o *unstructured.Unstructured) bool {
	result, err := status.Compute(o)
	return err == nil && result.Status == status.CurrentStatus
}

// wait returns when the objects of a stage are ready (S4.11). Skipped objects
// count too (S4.12), but not those that do not exist: waiting for them would
// only cost the minute.
func (r *runner) wait(ctx context.Context, name string, steps []*step) error {
	var refs []flux.Ref
	for _, st := range steps {
		if !st.ready && !st.absent {
			refs = append(refs, st.result.Ref)
		}
	}
	if len(refs) == 0 || r.options.StageWait == nil {
		return nil
	}
	slices.SortFunc(refs, flux.CompareRefs)
	limited, cancel := context.WithTimeoutCause(ctx, stageTimeout, fmt.Errorf("not ready after %s", stageTimeout))
	defer cancel()
	err := r.options.StageWait(limited, refs)
	if err == nil || ctx.Err() != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
	names := make([]string, len(refs))
	for i, ref := range refs {
		names[i] = ref.String()
	}
	return fmt.Errorf("timeout waiting for the stage of %s [%s]: %w", name, strings.Join(names, ", "), err)
}
