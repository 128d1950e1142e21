package apply

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"

	"github.com/fluxcd/pkg/ssa"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
)

// Reasons of results.
const (
	changedSince  = "somebody else changed it after it was planned, so it was planned again"
	appearedSince = "somebody else made it after it was planned, so it was planned again"
)

// errAppeared is why a write is repeated that created what it should have met.
var errAppeared = errors.New("the object was made by somebody else at the same moment")

// isOwned reports whether a field belongs to others and was not forced.
func isOwned(err error) bool {
	_, owned := apierrors.StatusCause(err, metav1.CauseTypeFieldManagerConflict)
	return owned
}

// created reports whether ssa believes that it made an object.
func created(entry *ssa.ChangeSetEntry, st *step) bool {
	return entry.Action == ssa.CreatedAction && !st.recreate
}

// foreign reports whether an object that was made just now has fields of others,
// and so had been there before.
func foreign(written *rehearse.Answer) bool {
	if written == nil || written.Object == nil {
		return false
	}
	return slices.ContainsFunc(written.Object.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager != flux.FieldManager && m.Subresource == ""
	})
}

// again looks at an object once more whose write was refused because it is not as
// it was when it was judged. If only its status moved, which controllers write as
// often as they like, the judgement holds; else it is made anew. It reports
// whether there is still something to write.
func (r *runner) again(ctx context.Context, st *step) bool {
	if st.recreate {
		return true // the one before is gone; whatever is there now is applied to
	}
	live := rehearse.Ask(ctx, r.client, st.object.Unstructured, client.ObjectKeyFromObject(st.object.Unstructured))
	if unmoved(st.live, live) {
		st.live = live
		return true
	}
	action, _ := st.action()
	fresh := &step{object: st.object}
	r.rehearse(ctx, fresh, live)
	reason := changedSince
	if st.live == nil || st.live.Object == nil {
		action, reason = Configured, appearedSince
	}
	switch {
	case fresh.final && fresh.result.Action == Unchanged:
		// What this run wants was done after the plan. If the object is what
		// the dry run foretold, it was by a request of this run whose answer
		// got lost.
		if st.dryRun != nil && st.dryRun.Object != nil && live.Object != nil && reflect.DeepEqual(content(st.dryRun.Object), content(live.Object)) {
			reason = st.reason
		}
		st.live, st.ready = fresh.live, fresh.ready
		r.done(st, action, reason, fresh.result.Ref)
	case fresh.final:
		st.final, st.result = true, fresh.result
		st.ready, st.absent = fresh.ready, fresh.absent
	default:
		st.live, st.dryRun, st.recreate, st.dying, st.reason = fresh.live, fresh.dryRun, fresh.recreate, fresh.dying, reason
		if st.recreate {
			return r.makeWay(ctx, st)
		}
	}
	return !st.final
}

// unmoved reports whether two readings of an object differ at most in what has no
// bearing on an apply: status, and the server's own counting.
func unmoved(before, now *rehearse.Answer) bool {
	switch {
	case before == nil || before.Err != nil || now.Err != nil:
		return false
	case before.Object == nil || now.Object == nil:
		return before.Object == nil && now.Object == nil
	}
	return reflect.DeepEqual(essence(before.Object), essence(now.Object))
}

// essence is an object without what writers of its status change.
func essence(o *unstructured.Unstructured) map[string]any {
	parts := content(o)
	var managers []any
	entries, _, _ := unstructured.NestedFieldNoCopy(o.Object, "metadata", "managedFields")
	list, _ := entries.([]any)
	for _, entry := range list {
		fields, ok := entry.(map[string]any)
		if !ok || fields["subresource"] == nil {
			managers = append(managers, entry)
		}
	}
	parts["managedFields"] = managers
	return parts
}

// content is an object without its status and what the server notes down of it.
func content(o *unstructured.Unstructured) map[string]any {
	parts := maps.Clone(o.Object)
	delete(parts, "status")
	if metadata, ok := parts["metadata"].(map[string]any); ok {
		metadata = maps.Clone(metadata)
		delete(metadata, "resourceVersion")
		delete(metadata, "generation")
		delete(metadata, "managedFields")
		parts["metadata"] = metadata
	}
	return parts
}
