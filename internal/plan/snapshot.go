package plan

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
)

const (
	// worthAList is how many objects of a kind are read with a LIST: one costs a
	// single request either way, and a GET spares the server looking through
	// all objects of the kind. From two on a LIST makes the number of requests
	// that of the kinds, however many objects there are.
	worthAList = 2
	// pageSize is how many objects a LIST brings at a time.
	pageSize = 500
	// longestSelector is how many bytes of Kustomizations' names one LIST
	// selects by, as they stand in its address. Proxies before an API server
	// accept addresses of 8 KiB, sometimes no longer ones. A run of more
	// Kustomizations than that, a few hundred, asks more than once: a LIST that
	// selects less sharply would bring what other roots have.
	longestSelector = 4 << 10
)

// Unlisted tells that a user may not list a kind as widely as the plan would
// have liked to, so that more requests were needed.
type Unlisted struct {
	// User is whose rights they are, as in Node; Kind is what it may not list.
	User string
	Kind schema.GroupVersionKind
	// Everywhere is set if it was refused for the whole cluster; then lists of
	// single namespaces were tried. Else it was refused for the one Namespace.
	Everywhere bool
	Namespace  string
	// Requests is how many were sent in place of one.
	Requests int
}

// batch are items of one kind that one LIST may bring.
type batch struct {
	access, user string
	gvk          schema.GroupVersionKind
	items        []*item
}

// read fills in the live objects: as far as lists can, the others one by one. A
// list that lacks an object is not asked about it. What they show to be as
// desired is settled there and then, so that it need not be kept.
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
	unlisted := make([]*Unlisted, len(batches))
	r.each(ctx, len(batches), func(i int) { unlisted[i] = r.list(ctx, batches[i]) })
	for _, u := range unlisted {
		if u != nil {
			r.unlisted = append(r.unlisted, *u)
		}
	}
	r.each(ctx, len(items), func(i int) {
		it := items[i]
		if it.settled() || it.live != nil || it.unlisted || r.outages.spoils(it) {
			return
		}
		it.live = rehearse.Ask(ctx, it.client, it.object.Unstructured, it.key())
		if it.live.Err != nil {
			r.classify(ctx, it) // at once: it may be the end of the plan
			return
		}
		r.prove(it)
	})
}

// list brings the objects of a batch: those of the cluster, or of a namespace if
// they are all in one. Where the user may not list that widely it tries each
// namespace; where not even that, or if a list fails otherwise, the items are
// left for GETs: whatever is wrong, each object's own request will say it
// better.
func (r *run) list(ctx context.Context, b *batch) *Unlisted {
	if len(b.items) < worthAList {
		return nil
	}
	byNamespace := map[string][]*item{}
	for _, it := range b.items {
		byNamespace[it.namespace()] = append(byNamespace[it.namespace()], it)
	}
	namespaces := slices.Sorted(maps.Keys(byNamespace))
	where := ""
	if len(namespaces) == 1 {
		where = namespaces[0]
	}
	err := r.bring(ctx, b, where, b.items)
	if !apierrors.IsForbidden(err) {
		return nil
	}
	u := &Unlisted{User: b.user, Kind: b.gvk, Everywhere: where == "", Namespace: where, Requests: len(b.items)}
	if len(namespaces) == 1 {
		return u
	}
	requests := make([]int, len(namespaces))
	r.each(ctx, len(namespaces), func(i int) {
		items := byNamespace[namespaces[i]]
		requests[i] = len(items)
		if len(items) < worthAList {
			return
		}
		if r.bring(ctx, b, namespaces[i], items) == nil {
			requests[i] = 1
		}
	})
	u.Requests = 0
	for _, n := range requests {
		u.Requests += n
	}
	return u
}

// bring lists what is ours of a kind in a namespace, or everywhere if that is
// empty, and hands it to the items that it is about. Those that no list holds
// are marked so, if all lists came to their end.
func (r *run) bring(ctx context.Context, b *batch, namespace string, items []*item) error {
	w := wants(items)
	selectors, err := ownerSelectors(items)
	if err != nil {
		return err
	}
	errs := make([]error, len(selectors))
	r.each(ctx, len(selectors), func(i int) {
		errs[i] = r.pages(ctx, b.gvk, items[0].client, namespace, selectors[i], func(page []unstructured.Unstructured) {
			r.receive(ctx, b.gvk, page, w)
		})
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, it := range items {
		it.unlisted = it.live == nil && !it.settled()
	}
	return nil
}

// wanted are items that lists may hold. It is safe for concurrent use.
type wanted struct {
	mu    sync.Mutex
	items map[client.ObjectKey][]*item
	// all are the keys of items as they were, owners the nodes whose objects are selected. They do not change.
	all    map[client.ObjectKey]bool
	owners map[flux.ID]bool
}

func wants(items []*item) *wanted {
	w := &wanted{items: map[client.ObjectKey][]*item{}, all: map[client.ObjectKey]bool{}, owners: map[flux.ID]bool{}}
	for _, it := range items {
		key := client.ObjectKey{Namespace: it.namespace(), Name: it.object.GetName()}
		w.items[key] = append(w.items[key], it)
		w.all[key], w.owners[it.node.ID] = true, true
	}
	return w
}

// claim hands out the items that an object is for, once: two selectors may match
// the same object, and a list that is begun anew brings some a second time, by
// when somebody else works on its items, or is done with them.
func (w *wanted) claim(key client.ObjectKey) []*item {
	w.mu.Lock()
	defer w.mu.Unlock()
	its := w.items[key]
	delete(w.items, key)
	return its
}

// receive takes from a page what is wanted and lets go of the rest.
func (r *run) receive(ctx context.Context, gvk schema.GroupVersionKind, page []unstructured.Unstructured, w *wanted) {
	var found []*item
	for i := range page {
		its := w.claim(client.ObjectKeyFromObject(&page[i]))
		if len(its) == 0 {
			r.stray(gvk, &page[i], w)
			continue
		}
		// Not a pointer into the page, which would keep all of it.
		live := &unstructured.Unstructured{Object: page[i].Object}
		// A list's items need not name their kind.
		live.SetGroupVersionKind(gvk)
		for _, it := range its {
			it.live = &rehearse.Answer{Object: live}
			found = append(found, it)
		}
	}
	r.each(ctx, len(found), func(i int) { r.prove(found[i]) })
}

// Stray is an object that carries the owner labels of a node and that no node
// asked for.
type Stray struct {
	Ref   flux.Ref
	Owner flux.ID
}

// stray notes an object of a page that nobody asked for, unless the cluster made it
// from another: it has the labels of that one then.
func (r *run) stray(gvk schema.GroupVersionKind, o *unstructured.Unstructured, w *wanted) {
	labels := o.GetLabels()
	owner := flux.ID{Namespace: labels[flux.NamespaceLabel], Name: labels[flux.NameLabel]}
	if !w.owners[owner] || w.all[client.ObjectKeyFromObject(o)] || metav1.GetControllerOf(o) != nil || gvk.Group == "" && gvk.Kind == "Endpoints" {
		return
	}
	ref := flux.Ref{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}
	r.straying.Lock()
	defer r.straying.Unlock()
	r.strays = append(r.strays, Stray{ref, owner})
}

// sortedStrays are all strays, each once: a list that is begun anew brings some
// again.
func (r *run) sortedStrays() []Stray {
	slices.SortFunc(r.strays, func(a, b Stray) int { return flux.CompareRefs(a.Ref, b.Ref) })
	return slices.CompactFunc(r.strays, func(a, b Stray) bool { return a.Ref == b.Ref })
}

// pages lists page by page. When the server has forgotten the state that a list
// began with it goes on with the present one, or from the start if the server
// offers no way to: whatever is missed or seen twice by that is found out by the
// object's own dry run.
func (r *run) pages(ctx context.Context, gvk schema.GroupVersionKind, c client.Client, namespace string, selector labels.Selector, take func([]unstructured.Unstructured)) error {
	limit, token := int64(pageSize), ""
	for {
		page := &unstructured.UnstructuredList{}
		page.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		err := c.List(ctx, page, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: selector},
			client.Limit(limit), client.Continue(token))
		switch {
		case token != "" && (apierrors.IsResourceExpired(err) || apierrors.IsGone(err)):
			if token = resumption(err); token == "" {
				limit = 0 // all at once, which cannot expire
			}
			continue
		case err != nil:
			return err
		}
		take(page.Items)
		if token = page.GetContinue(); token == "" {
			return nil
		}
	}
}

// resumption is the token with which a list that has expired can be gone on with
// in the present state; empty if the server gave none.
func resumption(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return status.Status().Continue
	}
	return ""
}

// ownerSelectors match what the nodes of the items own, each some of them, and
// together all but those whose name no label can have.
func ownerSelectors(items []*item) ([]labels.Selector, error) {
	seen := map[flux.ID]bool{}
	var ids []flux.ID
	for _, it := range items {
		if id := it.node.ID; !seen[id] && len(validation.IsValidLabelValue(id.Name)) == 0 {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b flux.ID) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace))
	})
	var selectors []labels.Selector
	for len(ids) > 0 {
		names, namespaces := map[string]bool{}, map[string]bool{}
		n, length := 0, 0
		for ; n < len(ids); n++ {
			id := ids[n]
			more := 0
			if !names[id.Name] {
				more += len(url.QueryEscape("," + id.Name))
			}
			if !namespaces[id.Namespace] {
				more += len(url.QueryEscape("," + id.Namespace))
			}
			if n > 0 && length+more > longestSelector {
				break
			}
			names[id.Name], namespaces[id.Namespace] = true, true
			length += more
		}
		ids = ids[n:]
		selector := labels.NewSelector()
		for key, values := range map[string]map[string]bool{flux.NameLabel: names, flux.NamespaceLabel: namespaces} {
			requirement, err := labels.NewRequirement(key, selection.In, slices.Collect(maps.Keys(values)))
			if err != nil {
				return nil, err
			}
			selector = selector.Add(*requirement)
		}
		selectors = append(selectors, selector)
	}
	return selectors, nil
}
