package plan

import (
	"cmp"
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
)

const (
	// worthAList is how many objects of a kind make one LIST cheaper than as
	// many GETs, for which the server need not look through all objects of
	// the kind.
	worthAList = 4
	// pageSize is how many objects a LIST brings at a time.
	pageSize = 500
	// maxNames is how many Kustomizations a selector names; the address of a
	// request has a limit.
	maxNames = 50
)

// batch are items of one kind that one LIST may bring.
type batch struct {
	access, user string
	gvk          schema.GroupVersionKind
	items        []*item
}

// read fills in the live objects, as far as lists can.
func (r *run) read(ctx context.Context, items []*item) {
	type id struct {
		access, user string
		gvk          schema.GroupVersionKind
	}
	byID := map[id]*batch{}
	var batches []*batch
	for _, it := range items {
		if it.settled() {
			continue
		}
		k := id{it.node.Access, it.node.User, it.gvk}
		if byID[k] == nil {
			byID[k] = &batch{access: k.access, user: k.user, gvk: k.gvk}
			batches = append(batches, byID[k])
		}
		byID[k].items = append(byID[k].items, it)
	}
	slices.SortStableFunc(batches, func(a, b *batch) int {
		return cmp.Or(cmp.Compare(a.access, b.access), cmp.Compare(a.user, b.user), cmp.Compare(a.gvk.String(), b.gvk.String()))
	})
	r.each(ctx, len(batches), func(i int) { r.list(ctx, batches[i]) })
}

// list brings the objects of a batch with one LIST: of the cluster, or of a
// namespace if they are all in one. Where the user may not list that widely it
// tries each namespace; where not even that, the items are left for GETs.
func (r *run) list(ctx context.Context, b *batch) {
	if len(b.items) < worthAList {
		return
	}
	byNamespace := map[string][]*item{}
	for _, it := range b.items {
		byNamespace[it.namespace()] = append(byNamespace[it.namespace()], it)
	}
	where := ""
	if len(byNamespace) == 1 {
		where = b.items[0].namespace()
	}
	live, err := r.ours(ctx, b, where)
	switch {
	case err == nil:
		fill(b.items, live)
		return
	case !apierrors.IsForbidden(err) || len(byNamespace) == 1:
		// Whatever is wrong, each object's own request will say it better.
		return
	}
	for namespace, items := range byNamespace {
		if namespace == "" || len(items) < worthAList {
			continue
		}
		if live, err := r.ours(ctx, b, namespace); err == nil {
			fill(items, live)
		}
	}
}

func fill(items []*item, live map[client.ObjectKey]*unstructured.Unstructured) {
	for _, it := range items {
		if o := live[client.ObjectKey{Namespace: it.namespace(), Name: it.object.GetName()}]; o != nil {
			it.live = &rehearse.Answer{Object: o}
		} else {
			it.unlisted = true
		}
	}
}

// ours lists the objects of a kind that carry the owner label, and keeps those
// that the plan is about.
func (r *run) ours(ctx context.Context, b *batch, namespace string) (map[client.ObjectKey]*unstructured.Unstructured, error) {
	selector, err := ownerSelector(b.items)
	if err != nil {
		return nil, err
	}
	wanted := map[client.ObjectKey]bool{}
	for _, it := range b.items {
		wanted[client.ObjectKey{Namespace: it.namespace(), Name: it.object.GetName()}] = true
	}
	live := map[client.ObjectKey]*unstructured.Unstructured{}
	page := &unstructured.UnstructuredList{}
	for {
		token := page.GetContinue()
		page = &unstructured.UnstructuredList{}
		page.SetGroupVersionKind(b.gvk.GroupVersion().WithKind(b.gvk.Kind + "List"))
		err := b.items[0].client.List(ctx, page, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: selector},
			client.Limit(pageSize), client.Continue(token))
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			if key := client.ObjectKeyFromObject(&page.Items[i]); wanted[key] {
				// A list's items need not name their kind.
				page.Items[i].SetGroupVersionKind(b.gvk)
				live[key] = &page.Items[i]
			}
		}
		if page.GetContinue() == "" {
			return live, nil
		}
	}
}

// ownerSelector matches what the nodes of the items own.
func ownerSelector(items []*item) (labels.Selector, error) {
	seen := map[string]bool{}
	var names []string
	for _, it := range items {
		if name := it.node.ID.Name; !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	operator := selection.In
	if len(names) > maxNames {
		operator, names = selection.Exists, nil
	}
	requirement, err := labels.NewRequirement(flux.NameLabel, operator, names)
	if err != nil {
		// A name that is no label value: nothing can carry it, all can be
		// looked at.
		requirement, err = labels.NewRequirement(flux.NameLabel, selection.Exists, nil)
		if err != nil {
			return nil, err
		}
	}
	return labels.NewSelector().Add(*requirement), nil
}
