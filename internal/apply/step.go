package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/ssa"
	ssaerrors "github.com/fluxcd/pkg/ssa/errors"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/retry"
)

// step is one object on its way through a stage.
type step struct {
	object flux.Object
	// final is set when result is.
	final  bool
	result Result
	// live and dryRun are the server's answers in the first pass.
	live, dryRun *rehearse.Answer
	recreate     bool
	// reason is told with the result.
	reason string
	// dying is set if somebody has deleted the object and it is not gone yet:
	// it is awaited, and then made again.
	dying bool
	// ready is set if the object is known to be Current.
	ready bool
	// absent is set for a skipped object that does not exist.
	absent bool
	// written is the server's answer to the last write.
	written *rehearse.Answer
}

// version is that of the object as it is known last.
func (st *step) version() string {
	for _, answer := range []*rehearse.Answer{st.written, st.live} {
		if answer != nil && answer.Object != nil {
			return answer.Object.GetResourceVersion()
		}
	}
	return ""
}

// rehearse decides what has to be done to an object, writing nothing. live is
// what was read just now, nil if nothing was.
func (r *runner) rehearse(ctx context.Context, st *step, live *rehearse.Answer) {
	if r.options.Known != nil {
		if ref, version, ok := r.options.Known(st.object); ok {
			r.done(st, Unchanged, "", ref)
			st.result.Version = version
			return
		}
	}
	var rc *rehearse.Client
	var entry *ssa.ChangeSetEntry
	err := retry.Do(ctx, objectRetry, func(ctx context.Context, _ int) error {
		var err error
		for range rehearse.Again {
			rc = rehearse.New(r.client, live, nil)
			live = nil
			entry, err = ssa.NewResourceManager(rc, nil, Owner()).Apply(ctx, st.object.DeepCopy().Unstructured, r.ssa)
			if !errors.Is(err, rehearse.ErrWrite) || !rc.Stale() && !rc.Appeared() {
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
	case err != nil && rc.Migrated && faults.IsSchema(err):
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
	if rehearse.IsUnplaced(err) {
		r.fail(st, fmt.Errorf("%s: %w", st.object.Ref(), err), rehearse.UnplacedHint)
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
	var pc *rehearse.Client
	var entry *ssa.ChangeSetEntry
	err := retry.Do(ctx, objectRetry, func(ctx context.Context, attempt int) error {
		if attempt > 1 && !r.again(ctx, st) {
			return nil
		}
		live, dryRun := st.live, st.dryRun
		if st.recreate {
			live, dryRun = nil, nil // those of the one before
		}
		var err error
		pc = rehearse.Perform(r.client, live, dryRun)
		// An object that somebody writes to all the time is written to all the
		// same in the end, as it was just read.
		pc.Firm = attempt < objectRetry.Attempts
		entry, err = ssa.NewResourceManager(pc, nil, Owner()).Apply(ctx, st.object.DeepCopy().Unstructured, r.ssa)
		switch {
		case err == nil && created(entry, st) && foreign(pc.Written):
			st.live, st.dryRun = &rehearse.Answer{}, nil
			return retry.After(errAppeared, 0)
		case err == nil || r.passes(st.object, err) || lostClean(pc, err) || pc.Firm && isOwned(err):
			return err
		}
		return retry.Permanent(err)
	})
	if st.final {
		return
	}
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
	action, reason := st.action()
	if pc.Live != nil {
		st.live = pc.Live
	}
	if pc.Written != nil && pc.Written.Object != nil {
		st.written, st.dryRun = pc.Written, pc.Written
		st.ready = isCurrent(pc.Written.Object)
	}
	r.done(st, action, reason, st.ref())
}

// action is what is done to an object that is written, and why.
func (st *step) action() (Action, string) {
	switch {
	case st.dying:
		return Recreated, "the one before was being deleted"
	case st.recreate:
		return Recreated, "it changes a field that cannot change"
	case st.live == nil || st.live.Object == nil:
		return Created, st.reason
	}
	return Configured, st.reason
}

// makeWay deletes an object that has to be made again, after a second look:
// the first may be as old as a plan. It reports whether to go on.
func (r *runner) makeWay(ctx context.Context, st *step) bool {
	again := &step{object: st.object}
	r.rehearse(ctx, again, nil)
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
	switch {
	case isOwned(err):
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
