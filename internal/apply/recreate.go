package apply

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/pkg/ssa/utils"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
)

// keep are the kinds that force does not make again unless told by
// [Options.AllowDelete]: with them goes what they hold, be it data or other
// people's objects.
var keep = map[schema.GroupKind]string{
	{Kind: "Namespace"}:             "everything in it",
	{Kind: "PersistentVolume"}:      "the data on it",
	{Kind: "PersistentVolumeClaim"}: "the data on it",
	{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}: "all its custom resources",
}

// immutable matches how the API server says that a field cannot change. It is
// matched against the end of a cause, after the value that it quotes, because
// the value may contain anything. Most of Kubernetes says "field is
// immutable"; the others are the kinds with words of their own: StatefulSet
// and PersistentVolumeClaim, Pod, RoleBinding, Service, StorageClass,
// PriorityClass.
var immutable = regexp.MustCompile(`(?i)\bimmutable\b` +
	`|updates to \w+ spec for fields other than` +
	`|pod updates may not (add or remove|change)` +
	`|cannot change roleRef` +
	`|may not (be changed|change|be updated)( once set| directly| in an update)?\b` +
	`|updates to \w+ are forbidden` +
	`|can ?not be (changed|updated|modified) (after|once)`)

// immutableText is what counts in an answer without a list of causes: the
// words of admission webhooks (S4.28).
var immutableText = regexp.MustCompile(`is\simmutable|immutable\sfield`)

// Recreate decides about an object whose dry run failed with err while it
// exists: whether deleting it and making it again is both the remedy and
// asked for, by Force (spec.force) or by the marker on the desired or the live
// object (S4.25). If it is not, why says what a user should know about that;
// empty if recreating has nothing to do with the failure.
//
// Flux takes every answer of "invalid" or "conflict" for an immutable field,
// so a plain mistake deletes the object and then cannot make it (S4.28).
// Here each cause that the server names has to be about an immutable field.
func (o Options) Recreate(desired, live *unstructured.Unstructured, err error) (yes bool, why string) {
	if live == nil || !onlyImmutable(err) {
		return false, ""
	}
	kind := desired.GetKind()
	allowed := slices.ContainsFunc(o.AllowDelete, func(name string) bool { return strings.EqualFold(name, kind) })
	if lost, kept := keep[desired.GroupVersionKind().GroupKind()]; kept && !allowed {
		return false, fmt.Sprintf("a field of it cannot change, and a %s is not deleted and made again, because %s would be lost; "+
			"take the change back, or force it with --allow-delete %s", kind, lost, kind)
	}
	marker := map[string]string{forceMarker: "enabled"}
	if !o.Force && !utils.AnyInMetadata(desired, marker) && !utils.AnyInMetadata(live, marker) {
		return false, fmt.Sprintf("a field of it cannot change: take the change back, or allow it to be deleted and made again with the annotation %s: enabled", forceMarker)
	}
	return true, ""
}

// onlyImmutable reports whether an answer is about immutable fields and
// nothing else.
func onlyImmutable(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	s := status.Status()
	if s.Code >= http.StatusInternalServerError || s.Code < http.StatusBadRequest {
		return false
	}
	if s.Details == nil || len(s.Details.Causes) == 0 {
		return immutableText.MatchString(s.Message)
	}
	for _, cause := range s.Details.Causes {
		message := strings.ReplaceAll(afterValue(cause.Message), "not immutable", "")
		if !immutable.MatchString(message) {
			return false
		}
	}
	return true
}

// afterValue removes the value that a cause quotes: "Invalid value: {…}: field
// is immutable". The detail never holds the sequence that ends a value; the
// value may hold the one that begins a detail, so the last one counts.
func afterValue(message string) string {
	if !strings.HasPrefix(message, "Invalid value: ") {
		return message
	}
	if i := strings.LastIndex(message, ": "); i >= 0 {
		return message[i+2:]
	}
	return message
}

// remove deletes a live object and returns when it is gone, or another of its
// name has taken its place.
//
// A StatefulSet leaves its pods and claims to the one that follows it; all
// others take their dependents along.
func remove(ctx context.Context, c client.WithWatch, live *unstructured.Unstructured, limit time.Duration) error {
	ref := flux.RefOf(live)
	propagation := metav1.DeletePropagationBackground
	if ref.Group == "apps" && ref.Kind == "StatefulSet" {
		propagation = metav1.DeletePropagationOrphan
	}
	uid := live.GetUID()
	err := c.Delete(ctx, live.DeepCopy(), client.PropagationPolicy(propagation), client.Preconditions{UID: &uid})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another one by now
	}
	if err != nil {
		return fmt.Errorf("%s immutable field detected, failed to delete object: %w", ref, err)
	}
	err = awaitGone(ctx, c, live, limit)
	if left := (*remnant)(nil); errors.As(err, &left) {
		return fmt.Errorf("%s immutable field detected, deleted, but still there after %s%s", ref, limit, finalizers(left.object))
	}
	if err != nil {
		return fmt.Errorf("%s immutable field detected, deleted, but its end could not be awaited, so it was not made again: %w", ref, err)
	}
	return nil
}

// outlast returns when an object that somebody else has deleted is gone. It is
// not deleted again, which could change what becomes of its dependents.
func outlast(ctx context.Context, c client.WithWatch, live *unstructured.Unstructured, limit time.Duration) error {
	ref := flux.RefOf(live)
	err := awaitGone(ctx, c, live, limit)
	if left := (*remnant)(nil); errors.As(err, &left) {
		return fmt.Errorf("%s is being deleted since %s and still there after %s%s; it can only be made again once it is gone",
			ref, live.GetDeletionTimestamp().UTC().Format(time.RFC3339), limit, finalizers(left.object))
	}
	if err != nil {
		return fmt.Errorf("%s is being deleted, and its end could not be awaited: %w", ref, err)
	}
	return nil
}

// awaitGone returns nil when an object that has been deleted is gone, or
// another of its name has taken its place; a *remnant if it is not by then.
func awaitGone(ctx context.Context, c client.WithWatch, live *unstructured.Unstructured, limit time.Duration) error {
	limited, cancel := context.WithTimeoutCause(ctx, limit, errStillThere)
	defer cancel()
	for {
		current := &unstructured.Unstructured{}
		current.SetGroupVersionKind(live.GroupVersionKind())
		err := c.Get(limited, client.ObjectKeyFromObject(live), current)
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err == nil && current.GetUID() != live.GetUID():
			return nil
		case err == nil:
			err = awaitDeletion(limited, c, current)
		}
		if err == nil {
			continue
		}
		if errors.Is(context.Cause(limited), errStillThere) {
			return &remnant{current}
		}
		return err
	}
}

// remnant is the error of awaitGone for an object that is still there.
type remnant struct{ object *unstructured.Unstructured }

func (*remnant) Error() string { return errStillThere.Error() }

var errStillThere = errors.New("the object is still there")

func finalizers(o *unstructured.Unstructured) string {
	if list := o.GetFinalizers(); len(list) > 0 {
		return ", held by the finalizers " + strings.Join(list, ", ")
	}
	return ""
}

// pollInterval is used only where the account may not watch.
const pollInterval = time.Second

// awaitDeletion returns nil when the object may be gone: the next read tells.
func awaitDeletion(ctx context.Context, c client.WithWatch, live *unstructured.Unstructured) error {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(live.GroupVersionKind().GroupVersion().WithKind(live.GetKind() + "List"))
	w, err := c.Watch(ctx, list, client.InNamespace(live.GetNamespace()), client.MatchingFields{"metadata.name": live.GetName()},
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: live.GetResourceVersion()}})
	switch {
	case apierrors.IsForbidden(err) || apierrors.IsMethodNotSupported(err):
		timer := time.NewTimer(pollInterval)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	case apierrors.IsGone(err) || apierrors.IsResourceExpired(err):
		return nil
	case err != nil:
		return err
	}
	defer w.Stop()
	for {
		select {
		case event, open := <-w.ResultChan():
			if !open || event.Type == watch.Deleted || event.Type == watch.Error {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
