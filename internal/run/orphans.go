package run

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/status"
)

// findOrphans tells what carries owner labels and is in no record. What Flux itself runs
// in the same cluster is none.
func (r *run) findOrphans(ctx context.Context) []event.Failure {
	recorded := map[flux.ClusterRef]map[flux.Ref]bool{}
	for _, root := range r.surveyed.Roots() {
		for _, record := range r.recordsOf(root) {
			for _, e := range record.Entries {
				place := r.homes.where(e.Cluster).Cluster
				if recorded[place] == nil {
					recorded[place] = map[flux.Ref]bool{}
				}
				if ref, err := e.Ref(); err == nil {
					recorded[place][ref.Key()] = true
				}
			}
		}
	}
	controlled, err := r.controlled(ctx)
	if err != nil {
		return r.failuresOf(ctx, "cluster", nil, err)
	}
	r.status.Orphans = []status.Orphan{}
	for _, place := range r.places() {
		found := r.scanned[place]
		for i := range found.Objects {
			o := &found.Objects[i]
			if o.Derived || recorded[place][o.Ref.Key()] || place.IsOwn() && o.Flux() || !r.concerns(o.Owner, controlled) {
				continue
			}
			r.status.Orphans = append(r.status.Orphans, status.Orphan{Object: o.Ref.String(), APIVersion: o.Ref.GVK().GroupVersion().String(),
				Kustomization: o.Owner.String(), Cluster: place.String()})
		}
		for _, u := range found.Unlisted {
			reason := "not allowed to list it"
			if !u.Forbidden {
				reason = u.Err.Error()
			}
			r.status.Unlisted = append(r.status.Unlisted, status.Unlisted{Kind: u.Kind, Cluster: place.String(), Reason: reason})
		}
	}
	return nil
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
	for i := range r.surveyed.Unreadable {
		if u := &r.surveyed.Unreadable[i]; u.Kind == inventory.KindKustomization && u.ID == owner {
			return false
		}
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
