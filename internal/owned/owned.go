// Package owned finds in a cluster what carries Flux's owner labels, whatever any record says: what a Kustomization has
// applied can be found by them alone. Records are rebuilt from it, and what is in no record is told as an orphan.
//
// It only reads: one LIST for each kind that can be listed, by label, of the metadata alone unless the caller wants more of a kind.
package owned

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kinds"
	"github.com/sluicerun/sluice/internal/safe"
)

const (
	// listers is how many LISTs are in flight at once.
	listers = 16
	// pageSize is how many objects one answer holds at most.
	pageSize = 500
)

// Client is what Find needs of a controller-runtime client.
type Client interface {
	List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error
}

// Kinds tells which kinds a server has; discovery clients do.
type Kinds interface {
	ServerPreferredResources() ([]*metav1.APIResourceList, error)
}

// Object is a live object that carries the owner labels.
type Object struct {
	Ref flux.Ref
	// Owner is the Kustomization that the labels name.
	Owner flux.ID
	UID   types.UID
	// Derived says that the cluster made it from another object, whose labels it got: it has a controller, or it is the Endpoints
	// of a Service.
	Derived bool
	// Content is the object, of which only the metadata is there unless more was wanted.
	Content *unstructured.Unstructured
}

// Found is what Find saw.
type Found struct {
	// Objects are sorted by reference, each once.
	Objects []Object
	// Unlisted are the kinds that could not be listed, sorted.
	Unlisted []Unlisted
	listed   map[schema.GroupKind]bool
}

// Unlisted is a kind, or a whole API group, that could not be listed.
type Unlisted struct {
	// Kind is as "Deployment.apps", or the group alone if the server did not say which kinds it has.
	Kind string
	// Forbidden says that the account may not; else Err is something else.
	Forbidden bool
	Err       error
}

// Listed reports whether all objects of a kind were seen.
func (f *Found) Listed(kind schema.GroupKind) bool { return f.listed[kind] }

// Find lists what carries the owner labels, kind by kind. whole says of which kinds the whole content is wanted. What
// cannot be listed is part of the answer; the error is that the server did not say at all which kinds it has, or the
// context's cause.
func Find(ctx context.Context, c Client, k Kinds, whole func(schema.GroupKind) bool) (*Found, error) {
	found := &Found{listed: map[schema.GroupKind]bool{}}
	kinds, err := found.kinds(k)
	if err != nil {
		return nil, err
	}
	items := make([][]unstructured.Unstructured, len(kinds))
	errs := make([]error, len(kinds))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(listers)
	for i, gvk := range kinds {
		group.Go(func() (err error) {
			defer safe.Recover(&err)
			items[i], errs[i] = list(ctx, c, gvk, whole(gvk.GroupKind()))
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	services := map[flux.Ref]flux.ID{}
	for i, gvk := range kinds {
		switch {
		// The server says that the kind can be listed, and it cannot after all, or is no longer there.
		case apierrors.IsMethodNotSupported(errs[i]), apierrors.IsNotFound(errs[i]), meta.IsNoMatchError(errs[i]):
			continue
		case errs[i] != nil:
			found.Unlisted = append(found.Unlisted, Unlisted{Kind: gvk.GroupKind().String(), Forbidden: apierrors.IsForbidden(errs[i]), Err: errs[i]})
			continue
		}
		found.listed[gvk.GroupKind()] = true
		for j := range items[i] {
			o := objectOf(gvk, &items[i][j])
			// One object can be served by two groups.
			if o.Owner.Namespace == "" || o.Owner.Name == "" || seen[o.identity()] {
				continue
			}
			seen[o.identity()] = true
			if gvk.Group == "" && gvk.Kind == "Service" {
				services[o.Ref.Key()] = o.Owner
			}
			found.Objects = append(found.Objects, o)
		}
	}
	for i := range found.Objects {
		o := &found.Objects[i]
		if o.Ref.Group == "" && o.Ref.Kind == "Endpoints" {
			service := flux.Ref{Kind: "Service", Namespace: o.Ref.Namespace, Name: o.Ref.Name}
			o.Derived = o.Derived || services[service] == o.Owner
		}
	}
	slices.SortFunc(found.Objects, func(a, b Object) int { return flux.CompareRefs(a.Ref, b.Ref) })
	slices.SortFunc(found.Unlisted, func(a, b Unlisted) int { return strings.Compare(a.Kind, b.Kind) })
	return found, nil
}

// kinds asks the server for all kinds that can be listed, in the version that it prefers. Groups that do not answer are noted.
func (f *Found) kinds(k Kinds) ([]schema.GroupVersionKind, error) {
	lists, err := k.ServerPreferredResources()
	var partial *discovery.ErrGroupDiscoveryFailed
	switch {
	case errors.As(err, &partial):
		for gv, err := range partial.Groups {
			f.Unlisted = append(f.Unlisted, Unlisted{Kind: gv.String(), Err: err})
		}
	case err != nil:
		return nil, fmt.Errorf("the server did not say which kinds it has: %w", err)
	}
	all, err := kinds.Listable(lists)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(all), nil
}

// list reads all objects of a kind that carry both labels, page by page.
func list(ctx context.Context, c Client, gvk schema.GroupVersionKind, whole bool) ([]unstructured.Unstructured, error) {
	var all []unstructured.Unstructured
	listKind := gvk.GroupVersion().WithKind(gvk.Kind + "List")
	err := kinds.Pages(pageSize, func(limit int64, token string) (string, error) {
		if token == "" {
			all = nil
		}
		opts := []client.ListOption{client.HasLabels{flux.NameLabel, flux.NamespaceLabel}, client.Limit(limit), client.Continue(token)}
		if whole {
			page := &unstructured.UnstructuredList{}
			page.SetGroupVersionKind(listKind)
			if err := c.List(ctx, page, opts...); err != nil {
				return "", err
			}
			all = append(all, page.Items...)
			return page.GetContinue(), nil
		}
		page := &metav1.PartialObjectMetadataList{}
		page.SetGroupVersionKind(listKind)
		if err := c.List(ctx, page, opts...); err != nil {
			return "", err
		}
		for i := range page.Items {
			content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&page.Items[i])
			if err != nil {
				return "", err
			}
			all = append(all, unstructured.Unstructured{Object: content})
		}
		return page.Continue, nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

func objectOf(gvk schema.GroupVersionKind, content *unstructured.Unstructured) Object {
	// A list's items need not name their kind.
	content.SetGroupVersionKind(gvk)
	labels := content.GetLabels()
	return Object{
		Ref: flux.RefOf(content), Owner: flux.ID{Namespace: labels[flux.NamespaceLabel], Name: labels[flux.NameLabel]},
		UID: content.GetUID(), Derived: metav1.GetControllerOf(content) != nil, Content: content,
	}
}

// identity tells objects apart, and knows one that is served by two groups. Some aggregated servers give no uids.
func (o *Object) identity() string {
	if o.UID != "" {
		return string(o.UID)
	}
	return o.Ref.GVK().GroupKind().String() + " " + o.Ref.String()
}

// Flux reports whether an object belongs to Flux itself: a Kustomization, a source, a definition of its kinds, one of its components.
// sluice neither applies nor deletes those in the cluster of a run.
func (o *Object) Flux() bool {
	switch {
	case o.Ref.Group == flux.Group && o.Ref.Kind == flux.KustomizationKind, flux.IsSource(o.Ref):
		return true
	case o.Ref.Kind == "CustomResourceDefinition" && strings.HasSuffix(o.Ref.Name, flux.GroupSuffix):
		return true
	}
	return o.Content.GetLabels()["app.kubernetes.io/part-of"] == "flux"
}
