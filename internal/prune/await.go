package prune

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/safe"
)

// watchPause is how long to wait before a watch that failed is opened again.
const watchPause = time.Second

// target is an object that is waited for to be gone.
type target struct {
	ref flux.Ref
	gvk schema.GroupVersionKind
	uid types.UID

	// gone is the answer; finalizers are those it had last, err is why it could not be watched.
	gone       bool
	finalizers []string
	err        error
	// remains says, of a Namespace, what the server says is left in it.
	remains string
}

func (t *target) failure(ctx context.Context, timeout time.Duration) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s was deleted and is not known to be gone: %w", t.ref, context.Cause(ctx))
	}
	if t.err != nil && !errors.Is(t.err, context.DeadlineExceeded) {
		return fmt.Errorf("%s was deleted and is not known to be gone: %w", t.ref, t.err)
	}
	if len(t.finalizers) > 0 {
		return fmt.Errorf("%s is still there %s after it was deleted; it waits for finalizers: %s", t.ref, timeout, strings.Join(t.finalizers, ", "))
	}
	if t.remains != "" {
		return fmt.Errorf("%s is still there %s after it was deleted: %s", t.ref, timeout, t.remains)
	}
	return fmt.Errorf("%s is still there %s after it was deleted", t.ref, timeout)
}

// remaining asks what keeps a Namespace from going: the finalizers that hang are those of the objects in it. Empty if the server
// does not say.
func remaining(ctx context.Context, c Client, t *target) string {
	if t.ref.Group != "" || t.ref.Kind != namespaceKind {
		return ""
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(t.gvk)
	if err := c.Get(ctx, client.ObjectKey{Name: t.ref.Name}, o); err != nil {
		return ""
	}
	var texts []string
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, each := range conditions {
		condition, _ := each.(map[string]any)
		if text, _ := condition["message"].(string); condition["status"] == "True" && text != "" {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, "; ")
}

// awaitGone watches until all targets are gone or ctx ends, one watch per kind and namespace.
func awaitGone(ctx context.Context, c Client, targets []*target) {
	type place struct {
		gvk       schema.GroupVersionKind
		namespace string
	}
	groups := map[place][]*target{}
	for _, t := range targets {
		p := place{t.gvk, t.ref.Namespace}
		groups[p] = append(groups[p], t)
	}
	var watches errgroup.Group
	for p, group := range groups {
		watches.Go(func() (err error) {
			defer safe.Recover(&err)
			for ctx.Err() == nil && !watchGone(ctx, c, p.gvk, p.namespace, group) {
			}
			return nil
		})
	}
	safe.Raise(watches.Wait()) // there is no other error: a target keeps its own
}

// watchGone lists and then watches one kind in one namespace. It reports whether there is nothing left to wait for, because all are
// gone or because watching them can never succeed.
func watchGone(ctx context.Context, c Client, gvk schema.GroupVersionKind, namespace string, targets []*target) bool {
	opts := []client.ListOption{client.InNamespace(namespace)}
	if len(targets) == 1 {
		opts = append(opts, client.MatchingFields{"metadata.name": targets[0].ref.Name})
	}
	page := &metav1.PartialObjectMetadataList{}
	page.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	err := c.List(ctx, page, opts...)
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		// The kind itself is gone, and all its objects were before it.
		for _, t := range targets {
			t.gone = true
		}
		return true
	}
	if err != nil {
		return failed(ctx, targets, err)
	}
	there := map[types.UID]*metav1.PartialObjectMetadata{}
	for i := range page.Items {
		there[page.Items[i].UID] = &page.Items[i]
	}
	left := 0
	for _, t := range targets {
		o := there[t.uid]
		t.gone = o == nil
		if o != nil {
			t.finalizers, t.err = o.Finalizers, nil
			left++
		}
	}
	if left == 0 {
		return true
	}
	opts = append(opts, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: page.ResourceVersion}})
	stream := &metav1.PartialObjectMetadataList{}
	stream.SetGroupVersionKind(page.GroupVersionKind())
	w, err := c.Watch(ctx, stream, opts...)
	if err != nil {
		return failed(ctx, targets, err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return true
		case e, ok := <-w.ResultChan():
			if !ok || e.Type == watch.Error {
				pause(ctx)
				return false
			}
			o, ok := e.Object.(*metav1.PartialObjectMetadata)
			if !ok {
				continue
			}
			for _, t := range targets {
				if t.gone || t.uid != o.UID {
					continue
				}
				t.finalizers = o.Finalizers
				if e.Type == watch.Deleted {
					t.gone = true
					left--
				}
			}
			if left == 0 {
				return true
			}
		}
	}
}

// failed notes an error on what is not gone. A refusal is final; anything else may pass.
func failed(ctx context.Context, targets []*target, err error) bool {
	for _, t := range targets {
		if !t.gone {
			t.err = err
		}
	}
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsMethodNotSupported(err) {
		return true
	}
	pause(ctx)
	return ctx.Err() != nil
}

func pause(ctx context.Context) {
	timer := time.NewTimer(watchPause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
