package run

import (
	"context"
	"fmt"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/owned"
	"github.com/sluicerun/sluice/internal/plan"
	"github.com/sluicerun/sluice/internal/status"
)

// findOrphans tells what carries owner labels and is in no record. What Flux itself runs
// in the same cluster is none.
func (r *run) findOrphans(ctx context.Context) []event.Failure {
	recorded := recordings{}
	r.addRecords(recorded, r.surveyed)
	controlled, err := r.controlled(ctx)
	if err != nil {
		return r.failuresOf(ctx, "cluster", nil, err)
	}
	var candidates []orphan
	for _, place := range r.places() {
		found := r.scanned[place]
		for i := range found.Objects {
			o := &found.Objects[i]
			if o.Derived || recorded.has(place, o.Ref) || place.IsOwn() && o.Flux() || !r.concerns(o.Owner, controlled) {
				continue
			}
			candidates = append(candidates, orphan{place, o})
		}
		for _, u := range found.Unlisted {
			reason := "not allowed to list it"
			if !u.Forbidden {
				reason = u.Err.Error()
			}
			r.status.Unlisted = append(r.status.Unlisted, status.Unlisted{Kind: u.Kind, Cluster: place.String(), Reason: reason})
		}
	}
	r.status.Orphans = []status.Orphan{}
	if len(candidates) == 0 {
		return nil
	}
	others, failures := r.elsewhere(ctx)
	if len(failures) > 0 {
		return failures
	}
	for _, survey := range others {
		r.addRecords(recorded, survey)
	}
	for _, c := range candidates {
		if recorded.has(c.place, c.object.Ref) || slices.ContainsFunc(others, func(s *inventory.Survey) bool { return unreadableIn(s, c.object.Owner) }) {
			continue
		}
		r.status.Orphans = append(r.status.Orphans, status.Orphan{Object: c.object.Ref.String(), APIVersion: c.object.Ref.GVK().GroupVersion().String(),
			Kustomization: c.object.Owner.String(), Cluster: c.place.String()})
	}
	return nil
}

// strays are what the lists of a plan brought that none of its nodes asked for, by
// cluster.
type strays map[flux.ClusterRef][]plan.Stray

// tellStrays tells what carries the owner labels of a Kustomization of this run and is
// neither in the commit nor on record, as far as the plan came across it: it costs no
// request, and so says nothing of kinds that the commit does not hold.
func (r *run) tellStrays() {
	known := recordings{}
	for _, record := range r.records() {
		r.addEntries(known, record.Entries)
	}
	for _, n := range r.sorted() {
		if !n.built && !n.Spec.Suspend {
			return // it may want any of them
		}
		r.addEntries(known, n.desiredEntries())
	}
	found := map[flux.ID][]string{}
	for _, place := range slices.SortedFunc(maps.Keys(r.strays), compareRefs) {
		for _, s := range r.strays[place] {
			if known.has(place, s.Ref) {
				continue
			}
			name := s.Ref.String()
			if !place.IsOwn() {
				name += " in the cluster of " + place.String()
			}
			found[s.Owner] = append(found[s.Owner], name)
		}
	}
	for _, n := range r.sorted() {
		if objects := found[n.ID]; len(objects) > 0 {
			r.noticeOnce("orphans\x00"+n.ID.String(), event.Notice{Level: event.Info, Code: "orphans", Node: n.ID.String(),
				Text: fmt.Sprintf("%s the owner labels of %s without being on record: %s", count(len(objects), "object carries", "objects carry"), n.ID, list(objects, 50)),
				Hint: "no run deletes them: delete what nobody needs, put back into Git what is to be kept up to date; sluice status looks for all there are"})
		}
	}
}

// orphan is an object that may be one.
type orphan struct {
	place  flux.ClusterRef
	object *owned.Object
}

// recordings are objects on record, by their cluster.
type recordings map[flux.ClusterRef]map[flux.Ref]bool

func (r recordings) has(place flux.ClusterRef, ref flux.Ref) bool { return r[place][ref.Key()] }

func (r recordings) add(place flux.ClusterRef, ref flux.Ref) {
	if r[place] == nil {
		r[place] = map[flux.Ref]bool{}
	}
	r[place][ref.Key()] = true
}

// addRecords adds what all records of a state namespace name.
func (r *run) addRecords(to recordings, survey *inventory.Survey) {
	for _, state := range survey.States {
		for _, record := range state.Records {
			r.addEntries(to, record.Entries)
		}
	}
}

func (r *run) addEntries(to recordings, entries []inventory.Entry) {
	for _, e := range entries {
		if ref, err := e.Ref(); err == nil { // reading the record has checked it
			to.add(r.homes.where(e.Cluster).Cluster, ref)
		}
	}
}

// elsewhere is what the other state namespaces of the cluster hold: what is on record
// there is no orphan here. Where it cannot be read, that is told.
func (r *run) elsewhere(ctx context.Context) ([]*inventory.Survey, []event.Failure) {
	c, err := r.cluster.Client("")
	if err != nil {
		return nil, r.failuresOf(ctx, "cluster", nil, err)
	}
	var surveys []*inventory.Survey
	namespaces, err := inventory.StateNamespaces(ctx, c)
	for _, namespace := range namespaces {
		if namespace == r.options.StateNamespace {
			continue
		}
		var survey *inventory.Survey
		if survey, err = inventory.NewClusterStore(c, namespace).Survey(ctx); err != nil {
			break
		}
		surveys = append(surveys, survey)
	}
	switch access, denied := as[*inventory.AccessError](err); {
	case err == nil:
	case denied:
		r.notice(event.Notice{Level: event.Warning, Code: "orphans-unsure",
			Text: "not allowed to read records in other namespaces: what is on record in another state namespace is told as orphans here",
			Hint: access.Hint()})
	default:
		return nil, r.failuresOf(ctx, "record", nil, err)
	}
	return surveys, nil
}

// unreadableIn says whether the record of a Kustomization is there and cannot be read:
// nobody knows then what is in it.
func unreadableIn(survey *inventory.Survey, owner flux.ID) bool {
	return slices.ContainsFunc(survey.Unreadable, func(u inventory.Unreadable) bool {
		return u.Kind == inventory.KindKustomization && u.ID == owner
	})
}

// concerns says whether an object of a Kustomization that is in no record is to be
// told: not if its record is there but cannot be read, nor if it is one that Flux
// runs, nor one of another root than was asked for.
func (r *run) concerns(owner flux.ID, controlled map[flux.ID]bool) bool {
	root, known := r.surveyed.Owner(owner)
	if !known {
		for _, id := range r.surveyed.Roots() {
			if state := r.surveyed.States[id]; state != nil && state.Root != nil && slices.Contains(state.Root.Nodes, owner) {
				root, known = id, true
			}
		}
	}
	if unreadableIn(r.surveyed, owner) {
		return false
	}
	if !known && controlled[owner] {
		return false
	}
	return r.wanted() == "" || known && slices.Contains(r.roots, root)
}

// controlled are the Kustomization objects in the cluster, which one of Flux's
// controllers runs, or did.
func (r *run) controlled(ctx context.Context) (map[flux.ID]bool, error) {
	kind := schema.GroupKind{Group: flux.Group, Kind: flux.KustomizationKind}
	mapping, err := r.cluster.Mapper().RESTMapping(kind)
	if meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := r.cluster.Client("")
	if err != nil {
		return nil, err
	}
	page := &metav1.PartialObjectMetadataList{}
	page.SetGroupVersionKind(mapping.GroupVersionKind.GroupVersion().WithKind(kind.Kind + "List"))
	err = c.List(ctx, page)
	switch {
	case apierrors.IsForbidden(err):
		r.notice(event.Notice{Level: event.Warning, Code: "orphans-unsure",
			Text: "not allowed to list Flux's Kustomizations: what Flux has applied may be told as orphans",
			Hint: fmt.Sprintf("grant the verb list on kustomizations of API group %s", flux.Group)})
		return nil, nil
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("cannot read Flux's Kustomizations: %w", err)
	}
	ids := map[flux.ID]bool{}
	for i := range page.Items {
		ids[flux.ID{Namespace: page.Items[i].Namespace, Name: page.Items[i].Name}] = true
	}
	return ids, nil
}
