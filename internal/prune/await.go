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
	// since is when an earlier run deleted it, or somebody else; zero if this one has.
	since time.Time

	// gone is the answer; finalizers are those it had last, err is why it could not be watched.
	gone       bool
	finalizers []string
	err        error
	// remains says, of a Namespace, what the server says is left in it.
	remains string
}

// failure says that it is not known to be gone, after it was waited for that long.
func (t *target) failure(ctx context.Context, waited time.Duration) *LingerError {
	e := &LingerError{Object: t.ref, Finalizers: t.finalizers, Remains: t.remains}
	switch {
	case ctx.Err() != nil:
		e.err = context.Cause(ctx)
	case t.err != nil && !errors.Is(t.err, context.DeadlineExceeded):
		e.err = t.err
	}
	e.ago = fmt.Sprintf("%s after it was deleted", waited)
	if !t.since.IsZero() {
		e.ago = "though it was deleted at " + t.since.UTC().Format(time.RFC3339)
	}
	return e
}

// LingerError says that an object was deleted and is not gone.
type LingerError struct {
	Object flux.Ref
	// Finalizers are what it waits for, as far as that was seen; Remains is what the server says is left in it, if it is a Namespace.
	Finalizers []string
	Remains    string

	ago string
	err error
}

func (e *LingerError) Error() string { return fmt.Sprintf("%s %s", e.Object, e.why()) }

// why is what there is to say of the object.
func (e *LingerError) why() string {
	switch {
	case e.err != nil:
		return fmt.Sprintf("was deleted and is not known to be gone: %v", e.err)
	case len(e.Finalizers) > 0:
		return fmt.Sprintf("is still there %s; it waits for finalizers: %s", e.ago, strings.Join(e.Finalizers, ", "))
	case e.Remains != "":
		return fmt.Sprintf("is still there %s: %s", e.ago, e.Remains)
	}
	return "is still there " + e.ago
}

func (e *LingerError) Unwrap() error { return e.err }

// Hint says what to do.
func (e *LingerError) Hint() string {
	switch {
	case e.err != nil:
		return ""
	case len(e.Finalizers) > 0:
		return "see that the controllers run that serve these finalizers; what nobody serves any more can be taken away, at the price of what it would have cleaned up: " +
			e.kubectl("patch") + ` --type=merge -p '{"metadata":{"finalizers":null}}'`
	case e.Remains != "":
		return "put right what is named there, or what holds the objects in it"
	}
	return "see what the cluster does with it: " + e.kubectl("get") + " -o yaml"
}

// kubectl is a command for the object.
func (e *LingerError) kubectl(verb string) string {
	kind := strings.ToLower(e.Object.Kind)
	if e.Object.Group != "" {
		kind += "." + e.Object.Group
	}
	command := "kubectl"
	if e.Object.Namespace != "" {
		command += " -n " + e.Object.Namespace
	}
	return fmt.Sprintf("%s %s %s %s", command, verb, kind, e.Object.Name)
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
	if refused(err) {
		askGone(ctx, c, targets)
		return true
	}
	if err != nil {
		return failed(ctx, targets, err)
	}
	there := map[string]*metav1.PartialObjectMetadata{}
	for i := range page.Items {
		there[page.Items[i].Name] = &page.Items[i]
	}
	left := 0
	for _, t := range targets {
		o := there[t.ref.Name]
		t.gone = o == nil || o.UID != t.uid
		if !t.gone {
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
	if refused(err) {
		askGone(ctx, c, targets)
		return true
	}
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
				if t.gone || t.ref.Name != o.Name || t.uid != o.UID {
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

// refused says that listing or watching will not do, however often it is tried.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsMethodNotSupported(err)
}

// askGone asks for each target again and again until all are gone or ctx ends: an account that may delete an object may read it,
// and need not be allowed to list or watch its kind.
func askGone(ctx context.Context, c Client, targets []*target) {
	for {
		left := 0
		for _, t := range targets {
			if t.gone || ctx.Err() != nil {
				continue
			}
			o := &metav1.PartialObjectMetadata{}
			o.SetGroupVersionKind(t.gvk)
			err := c.Get(ctx, client.ObjectKey{Namespace: t.ref.Namespace, Name: t.ref.Name}, o)
			switch {
			case apierrors.IsNotFound(err), meta.IsNoMatchError(err), err == nil && o.UID != t.uid:
				t.gone = true
				continue
			case err == nil:
				t.finalizers, t.err = o.Finalizers, nil
			case ctx.Err() == nil:
				t.err = err
			}
			left++
		}
		if left == 0 || ctx.Err() != nil {
			return
		}
		pause(ctx)
	}
}

// failed notes an error, which may pass, on what is not gone.
func failed(ctx context.Context, targets []*target, err error) bool {
	for _, t := range targets {
		if !t.gone {
			t.err = err
		}
	}
	if apierrors.IsUnauthorized(err) {
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
