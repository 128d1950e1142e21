package run

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/owned"
	"github.com/sluicerun/sluice/internal/status"
)

// seen is a live object, or why there is none.
type seen struct {
	object *unstructured.Unstructured
	err    error
}

// places are the clusters that were looked at, the run's own first.
func (r *run) places() []flux.ClusterRef {
	return slices.SortedFunc(maps.Keys(r.scanned), compareRefs)
}

// scan looks in each cluster for what carries the owner labels, one list for each
// kind, and reads by name what is on record and in no list.
func (r *run) scan(ctx context.Context) []event.Failure {
	var records []*inventory.Record
	for _, root := range r.surveyed.Roots() {
		records = append(records, r.recordsOf(root)...)
	}
	r.reachRecorded(ctx, records)
	places := []flux.ClusterRef{{}}
	wanted := map[flux.ClusterRef]map[schema.GroupKind]bool{{}: {}}
	for _, record := range records {
		for _, e := range record.Entries {
			at := r.homes.where(e.Cluster)
			if at.Lost != "" {
				continue
			}
			if wanted[at.Cluster] == nil {
				wanted[at.Cluster] = map[schema.GroupKind]bool{}
				places = append(places, at.Cluster)
			}
			if ref, err := e.Ref(); err == nil && slices.Contains(r.roots, record.Root) {
				wanted[at.Cluster][ref.GVK().GroupKind()] = true
			}
		}
	}
	slices.SortFunc(places, compareRefs)
	r.scanned = map[flux.ClusterRef]*owned.Found{}
	for _, place := range places {
		found, err := r.scanIn(ctx, place, wanted[place])
		if err != nil {
			return r.failuresOf(ctx, "cluster", nil, err)
		}
		r.scanned[place] = found
	}
	return nil
}

func (r *run) scanIn(ctx context.Context, place flux.ClusterRef, wanted map[schema.GroupKind]bool) (*owned.Found, error) {
	to := r.homes.at(place)
	c, err := to.Client("")
	if err != nil {
		return nil, err
	}
	kinds, err := to.Discovery()
	if err != nil {
		return nil, err
	}
	return owned.Find(ctx, c, kinds, func(kind schema.GroupKind) bool { return wanted[kind] && health.NeedsContent(kind) })
}

// judgeHealth tells how the objects on record are.
func (r *run) judgeHealth(ctx context.Context) []event.Failure {
	type key struct {
		place flux.ClusterRef
		ref   flux.Ref
	}
	listed := map[key]*unstructured.Unstructured{}
	for place, found := range r.scanned {
		for i := range found.Objects {
			listed[key{place, found.Objects[i].Ref.Key()}] = found.Objects[i].Content
		}
	}
	var mu sync.Mutex
	byName := map[key]seen{}
	var reads []func() error
	r.eachEntry(func(_ *status.Kustomization, e inventory.Entry, ref flux.Ref) {
		place := r.homes.where(e.Cluster)
		k := key{place.Cluster, ref.Key()}
		if place.Lost != "" || listed[k] != nil {
			return
		}
		reads = append(reads, func() error {
			o, err := r.readLive(ctx, place.Cluster, ref)
			mu.Lock()
			defer mu.Unlock()
			byName[k] = seen{o, err}
			return nil
		})
	})
	_ = inParallel(lookers, reads) // the errors are in byName
	if ctx.Err() != nil {
		return []event.Failure{interrupted(ctx)}
	}
	for i := range r.status.Roots {
		for j := range r.status.Roots[i].Kustomizations {
			r.status.Roots[i].Kustomizations[j].Health = &status.Health{}
		}
	}
	r.eachEntry(func(k *status.Kustomization, e inventory.Entry, ref flux.Ref) {
		place := r.homes.where(e.Cluster)
		at := key{place.Cluster, ref.Key()}
		state := health.Status{Ref: ref, Status: health.Unknown, Message: place.Lost}
		if o := listed[at]; place.Lost == "" && o != nil {
			state = health.Judge(ctx, o)
		} else if place.Lost == "" {
			state = judgeRead(ctx, ref, byName[at])
		}
		if state.Ready() {
			k.Health.Current++
			return
		}
		if state.Err != nil {
			state.Message = state.Err.Error()
		}
		k.Health.Objects = append(k.Health.Objects, status.Unready{Object: ref.String(), Cluster: e.Cluster.String(), Status: state.Status, Message: state.Message})
	})
	for i := range r.status.Roots {
		for j := range r.status.Roots[i].Kustomizations {
			h := r.status.Roots[i].Kustomizations[j].Health
			slices.SortStableFunc(h.Objects, func(a, b status.Unready) int {
				return cmp.Or(strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.Object, b.Object))
			})
			h.Judge()
		}
	}
	return nil
}

// eachEntry visits all objects on record of the roots, in a fixed order.
func (r *run) eachEntry(visit func(*status.Kustomization, inventory.Entry, flux.Ref)) {
	for i, root := range r.roots {
		for j, record := range r.recordsOf(root) {
			for _, e := range record.Entries {
				if ref, err := e.Ref(); err == nil { // reading the record has checked it
					visit(&r.status.Roots[i].Kustomizations[j], e, ref)
				}
			}
		}
	}
}

// readLive reads an object by name, no more of it than its health needs.
func (r *run) readLive(ctx context.Context, place flux.ClusterRef, ref flux.Ref) (*unstructured.Unstructured, error) {
	to := r.homes.at(place)
	c, err := to.Client("")
	if err != nil {
		return nil, err
	}
	mapping, err := to.Mapper().RESTMapping(ref.GVK().GroupKind())
	if err != nil {
		return nil, err
	}
	name := client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}
	if health.NeedsContent(ref.GVK().GroupKind()) {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(mapping.GroupVersionKind)
		return o, c.Get(ctx, name, o)
	}
	head := &metav1.PartialObjectMetadata{}
	head.SetGroupVersionKind(mapping.GroupVersionKind)
	if err := c.Get(ctx, name, head); err != nil {
		return nil, err
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(head)
	if err != nil {
		return nil, err
	}
	o := &unstructured.Unstructured{Object: content}
	o.SetGroupVersionKind(mapping.GroupVersionKind)
	return o, nil
}

// judgeRead judges an object that no list had: it is gone, or has lost its owner
// labels, or its kind cannot be listed.
func judgeRead(ctx context.Context, ref flux.Ref, read seen) health.Status {
	switch {
	case apierrors.IsNotFound(read.err) && ref.Group == "batch" && ref.Kind == "Job":
		// Records do not say whether a Job deletes itself (S6.12).
		return health.Status{Ref: ref, Status: health.Current}
	case apierrors.IsNotFound(read.err):
		return health.Status{Ref: ref, Status: health.NotFound, Message: "the object does not exist"}
	case meta.IsNoMatchError(read.err):
		return health.Status{Ref: ref, Status: health.NotFound, Message: "the cluster does not serve its kind"}
	case read.err != nil:
		return health.Status{Ref: ref, Status: health.Unknown, Err: read.err}
	}
	return health.Judge(ctx, read.object)
}
