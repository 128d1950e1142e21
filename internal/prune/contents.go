package prune

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
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/kinds"
	"github.com/sluicerun/sluice/internal/safe"
)

const (
	namespaceKind  = "Namespace"
	definitionKind = "CustomResourceDefinition"
	claimKind      = "PersistentVolumeClaim"
	extensions     = "apiextensions.k8s.io"
)

// namespaces refuses to delete a Namespace together with what this run does not delete.
func (k *check) namespaces(ctx context.Context) error {
	var namespaced []schema.GroupVersionKind
	var blind error
	listed := false
	return k.is(namespaceKind, "", func(d Deletion, v victim) error {
		name := v.ref.Name
		if owned := k.ownedIn(func(r flux.Ref) bool { return r.Namespace == name }); len(owned) > 0 {
			k.refuse(Refusal{Guard: NamespaceInUse, Node: d.Node, Objects: owned,
				Text: fmt.Sprintf("%s would be deleted with what this commit still wants in it: %s", v.ref, someOf(owned))})
			return nil
		}
		if k.guards.allows(namespaceKind) {
			return nil
		}
		if !listed {
			listed = true
			namespaced, blind = k.namespacedKinds()
		}
		left, unseen, err := k.contents(ctx, name, namespaced)
		if err != nil {
			return err
		}
		if err := errors.Join(blind, unseen); err != nil {
			k.refuse(Refusal{Guard: NamespaceInUse, Node: d.Node, Objects: left, Override: "--allow-delete " + namespaceKind,
				Text: fmt.Sprintf("%s may hold objects that this run does not delete: %s", v.ref, oneLine(err))})
			return nil
		}
		if len(left) > 0 {
			k.refuse(Refusal{Guard: NamespaceInUse, Node: d.Node, Objects: left, Override: "--allow-delete " + namespaceKind,
				Text: fmt.Sprintf("%s holds %s that this run does not delete: %s", v.ref, plural(len(left), "object"), someOf(left))})
		}
		return nil
	})
}

// claimsIn refuses to delete a Namespace with the claims in it, those of StatefulSets for instance, that no inventory has: to let
// go of what else is in a Namespace is not to let go of data.
func (k *check) claimsIn(ctx context.Context, d Deletion, v victim) error {
	gvk := schema.GroupVersionKind{Version: "v1", Kind: claimKind}
	items, err := list(ctx, k.client, gvk, client.InNamespace(v.ref.Name))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r := Refusal{Guard: Volume, Node: d.Node, Override: "--allow-delete " + claimKind}
	if err != nil {
		r.Text = fmt.Sprintf("%s may hold data that would be deleted with it: cannot list %s: %s", v.ref, claimKind, oneLine(err))
		k.refuse(r)
		return nil
	}
	for i := range items {
		ref := refOf(gvk, &items[i])
		if items[i].DeletionTimestamp == nil && !k.gone[identity(ref, &items[i])] {
			r.Objects = append(r.Objects, ref)
		}
	}
	if len(r.Objects) > 0 {
		slices.SortFunc(r.Objects, flux.CompareRefs)
		r.Text = fmt.Sprintf("%s would be deleted with data in it: %s", v.ref, someOf(r.Objects))
		k.refuse(r)
	}
	return nil
}

// namespacedKinds asks the server for all kinds that a namespace can hold. The error says which groups did not answer.
func (k *check) namespacedKinds() ([]schema.GroupVersionKind, error) {
	lists, err := k.kinds.ServerPreferredNamespacedResources()
	var partial *discovery.ErrGroupDiscoveryFailed
	if err != nil && !errors.As(err, &partial) {
		return nil, fmt.Errorf("the server did not say which kinds it has: %w", err)
	}
	all, unread := kinds.Listable(lists)
	if unread != nil {
		return nil, unread
	}
	return slices.DeleteFunc(all, momentary), err
}

// momentary names kinds whose objects hold nothing that anybody would miss.
func momentary(gvk schema.GroupVersionKind) bool {
	return gvk.Group == "coordination.k8s.io" && (gvk.Kind == "Lease" || gvk.Kind == "LeaseCandidate")
}

// contents lists, by their metadata alone, the objects in a namespace that neither this run deletes nor the cluster with them.
// unseen says what could not be listed.
func (k *check) contents(ctx context.Context, namespace string, kinds []schema.GroupVersionKind) (left []flux.Ref, unseen, err error) {
	items := make([][]metav1.PartialObjectMetadata, len(kinds))
	failures := make([]error, len(kinds))
	unknown := make([]bool, len(kinds))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for i, gvk := range kinds {
		group.Go(func() (err error) {
			defer safe.Recover(&err)
			items[i], err = list(ctx, k.client, gvk, client.InNamespace(namespace))
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			// The server says that the kind can be listed, and this one cannot after all.
			case apierrors.IsMethodNotSupported(err):
			case err != nil:
				failures[i] = fmt.Errorf("cannot list %s: %w", gvk.GroupKind(), err)
				unknown[i] = apierrors.IsNotFound(err) || meta.IsNoMatchError(err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	if slices.Contains(unknown, true) {
		k.forgetGone(kinds, unknown, failures)
	}
	return k.remaining(kinds, items), errors.Join(failures...), nil
}

// forgetGone takes back the failures of kinds that the server has no longer: somebody deletes their definitions at this moment, and a
// definition goes after its objects. A kind that is only no longer served in one version may have objects.
func (k *check) forgetGone(kinds []schema.GroupVersionKind, unknown []bool, failures []error) {
	now, err := k.namespacedKinds()
	if err != nil {
		return // what cannot be seen is not taken for empty
	}
	for i, gvk := range kinds {
		if unknown[i] && !slices.ContainsFunc(now, func(other schema.GroupVersionKind) bool { return other.GroupKind() == gvk.GroupKind() }) {
			failures[i] = nil
		}
	}
}

// remaining leaves out what goes with the objects that are deleted, through any number of owners, and what every namespace has.
func (k *check) remaining(kinds []schema.GroupVersionKind, items [][]metav1.PartialObjectMetadata) []flux.Ref {
	gone := map[string]bool{}
	for uid := range k.gone {
		gone[uid] = true
	}
	doomed := func(o *metav1.PartialObjectMetadata, ref flux.Ref) bool {
		return gone[identity(ref, o)] || o.DeletionTimestamp != nil || k.ids[inventory.EntryOf(ref).ID] || allOwnersGone(o, gone) ||
			k.everywhere(ref, o)
	}
	for changed := true; changed; {
		changed = false
		for i := range items {
			for j := range items[i] {
				o := &items[i][j]
				ref := refOf(kinds[i], o)
				if key := identity(ref, o); !gone[key] && doomed(o, ref) {
					gone[key] = true
					changed = true
				}
			}
		}
	}
	seen := map[string]bool{}
	var left []flux.Ref
	for i := range items {
		for j := range items[i] {
			ref := refOf(kinds[i], &items[i][j])
			// One object can be served by two groups.
			if key := identity(ref, &items[i][j]); !gone[key] && !seen[key] {
				seen[key] = true
				left = append(left, ref)
			}
		}
	}
	slices.SortFunc(left, flux.CompareRefs)
	return left
}

// identity is an object's uid. Some aggregated servers give none; nothing else is then known to be the same object.
func identity(ref flux.Ref, o *metav1.PartialObjectMetadata) string {
	if o.UID != "" {
		return string(o.UID)
	}
	return ref.GVK().GroupKind().String() + " " + ref.String()
}

func allOwnersGone(o *metav1.PartialObjectMetadata, gone map[string]bool) bool {
	for _, owner := range o.OwnerReferences {
		if owner.UID == "" || !gone[string(owner.UID)] {
			return false
		}
	}
	return len(o.OwnerReferences) > 0
}

// everywhere recognises what controllers put into every namespace, or beside every Service.
func (k *check) everywhere(ref flux.Ref, o *metav1.PartialObjectMetadata) bool {
	if ref.Group != "" {
		return false
	}
	switch ref.Kind {
	case "ConfigMap":
		return ref.Name == "kube-root-ca.crt" || ref.Name == "openshift-service-ca.crt" || ref.Name == "istio-ca-root-cert"
	case "ServiceAccount":
		return ref.Name == "default"
	case "Secret":
		// The token of the default account, on old clusters.
		return o.Annotations["kubernetes.io/service-account.name"] == "default"
	case "Endpoints":
		return k.ids[inventory.EntryOf(flux.Ref{Kind: "Service", Namespace: ref.Namespace, Name: ref.Name}).ID]
	}
	return false
}

// definitions refuses to delete a CustomResourceDefinition together with objects that this run does not delete.
func (k *check) definitions(ctx context.Context) error {
	doomedNamespaces := map[string]bool{}
	if err := k.is(namespaceKind, "", func(_ Deletion, v victim) error {
		doomedNamespaces[v.ref.Name] = true
		return nil
	}); err != nil {
		return err
	}
	return k.is(definitionKind, extensions, func(d Deletion, v victim) error {
		gvk, ok, err := k.defined(ctx, v)
		if err != nil || !ok {
			return err
		}
		if owned := k.ownedIn(func(r flux.Ref) bool { return r.Group == gvk.Group && r.Kind == gvk.Kind }); len(owned) > 0 {
			k.refuse(Refusal{Guard: DefinitionInUse, Node: d.Node, Objects: owned,
				Text: fmt.Sprintf("%s would be deleted with what this commit still wants of its kind: %s", v.ref, someOf(owned))})
			return nil
		}
		if k.guards.allows(definitionKind) {
			return nil
		}
		items, err := list(ctx, k.client, gvk)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case meta.IsNoMatchError(err), apierrors.IsNotFound(err):
			// Defined and not served: there can be no objects.
			return nil
		case err != nil:
			k.refuse(Refusal{Guard: DefinitionInUse, Node: d.Node, Override: "--allow-delete " + definitionKind,
				Text: fmt.Sprintf("%s may have objects that this run does not delete: cannot list %s: %v", v.ref, gvk.GroupKind(), err)})
			return nil
		}
		items = slices.DeleteFunc(items, func(o metav1.PartialObjectMetadata) bool { return doomedNamespaces[o.Namespace] && o.Namespace != "" })
		if left := k.remaining([]schema.GroupVersionKind{gvk}, [][]metav1.PartialObjectMetadata{items}); len(left) > 0 {
			k.refuse(Refusal{Guard: DefinitionInUse, Node: d.Node, Objects: left, Override: "--allow-delete " + definitionKind,
				Text: fmt.Sprintf("%s has %s that this run does not delete: %s", v.ref, plural(len(left), "object"), someOf(left))})
		}
		return nil
	})
}

// defined returns the kind that a definition defines, in a version that is served; false if none is.
func (k *check) defined(ctx context.Context, v victim) (schema.GroupVersionKind, bool, error) {
	none := schema.GroupVersionKind{}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(v.meta.GroupVersionKind())
	err := k.client.Get(ctx, client.ObjectKey{Name: v.ref.Name}, o)
	if apierrors.IsNotFound(err) {
		return none, false, nil
	}
	if err != nil {
		return none, false, inventory.Access(err, fmt.Sprintf("read %s", v.ref), "get",
			schema.GroupResource{Group: extensions, Resource: "customresourcedefinitions"}, "")
	}
	group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
	versions, _, _ := unstructured.NestedSlice(o.Object, "spec", "versions")
	for _, each := range versions {
		version, _ := each.(map[string]any)
		if served, _ := version["served"].(bool); served {
			name, _ := version["name"].(string)
			return schema.GroupVersionKind{Group: group, Version: name, Kind: kind}, true, nil
		}
	}
	return none, false, nil
}

// list reads the metadata of all objects of a kind, page by page.
func list(ctx context.Context, c Client, gvk schema.GroupVersionKind, opts ...client.ListOption) ([]metav1.PartialObjectMetadata, error) {
	var all []metav1.PartialObjectMetadata
	err := kinds.Pages(500, func(limit int64, token string) (string, error) {
		if token == "" {
			all = nil
		}
		page := &metav1.PartialObjectMetadataList{}
		page.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		if err := c.List(ctx, page, append([]client.ListOption{client.Limit(limit), client.Continue(token)}, opts...)...); err != nil {
			return "", err
		}
		all = append(all, page.Items...)
		return page.Continue, nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

func refOf(gvk schema.GroupVersionKind, o *metav1.PartialObjectMetadata) flux.Ref {
	return flux.Ref{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Namespace: o.Namespace, Name: o.Name}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
