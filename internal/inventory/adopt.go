package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
)

var kustomizations = schema.GroupResource{Group: flux.Group, Resource: "kustomizations"}

// Reader is what Adopt needs of a controller-runtime client. Its scheme must know Deployments and Leases, as client-go's does.
type Reader interface {
	Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error
	List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error
	RESTMapper() meta.RESTMapper
}

// Question is what Adopt is asked.
type Question struct {
	// Run are the Kustomizations that the run works on.
	Run []flux.ID
	// First are those of Run that sluice has no record of and that are not suspended: what Flux recorded of them counts, and what
	// they held and no longer hold is looked for.
	First []flux.ID
	// Commit are all Kustomizations of the commit.
	Commit []flux.ID
}

// Facts is what a cluster tells about Flux's controllers and what they had done there.
type Facts struct {
	// Served says whether the cluster knows the kind Kustomization at all. If not, everything else is empty.
	Served bool
	// Live holds the Kustomization objects that were asked for and exist.
	Live map[flux.ID]Live
	// Left holds those that a Kustomization of Question.First had applied, directly or through others, and that are not part of
	// the commit: they left Git before Flux could prune them (S5.22).
	Left map[flux.ID]Live
	// Pinned lists, sorted, those that left as well and that Flux would not prune because of a marker on them (S5.9).
	Pinned []flux.ID
	// Controllers lists, sorted, what runs as a kustomize-controller, as "Deployment/namespace/name" or "Lease/namespace/name".
	Controllers []string
}

// Live is a Kustomization object in the cluster.
type Live struct {
	ID flux.ID
	// Suspended is spec.suspend; Deleting is set once its deletion was asked for.
	Suspended bool
	Deleting  bool
	// SuspendedInGit says that it is suspended because its manifest says so, and not by hand, as one does it to take over.
	SuspendedInGit bool
	// Entries is status.inventory, in the cluster that spec.kubeConfig names; without that, without Kustomizations and sources,
	// which sluice does not apply. Revision is status.lastAppliedRevision.
	Entries  []Entry
	Revision string
	// Holds are the Kustomizations of status.inventory, in its order.
	Holds []flux.ID
	// Parent is, for one of Facts.Left, the Kustomization that had applied it.
	Parent flux.ID

	spec   kustomizev1.KustomizationSpec
	owner  flux.ID
	marked bool
}

// Adopt fills, for first contact with a cluster that ran Flux, the entries and the revision of a record that has no stored form
// from the live object's status. It reports whether it did. A record that is stored knows better and is left alone.
func (f *Facts) Adopt(r *Record) bool {
	live, ok := f.Live[r.ID]
	if !ok || r.Stored() || len(live.Entries) == 0 {
		return false
	}
	r.Entries = Union(r.Entries, live.Entries)
	if r.Revision == "" {
		r.Revision = live.Revision
	}
	return true
}

// AdoptLeft returns, sorted by id, records of the Kustomizations that left Git before sluice's first run, made from the live objects as
// Flux left them. One that was suspended by hand counts as not suspended: that is how Flux is kept away while sluice takes over.
func (f *Facts) AdoptLeft(root flux.ID) []*Record {
	var records []*Record
	for _, live := range f.Left {
		r := NewRecord(root, &flux.Kustomization{ID: live.ID, Parent: live.Parent, Spec: live.spec})
		r.Suspended = live.SuspendedInGit
		r.Entries, r.Revision = Union(nil, live.Entries), live.Revision
		records = append(records, r)
	}
	sort.Slice(records, func(i, j int) bool { return records[i].ID.String() < records[j].ID.String() })
	return records
}

// Adopt reads what Flux's controllers did to the given Kustomizations and whether they still run. It only reads: one LIST if the
// cluster has Flux's kinds, three more requests if some Kustomization is not suspended, and one to learn that it has not. Where the
// account may not list in the whole cluster, it reads the objects one by one and looks for controllers in flux-system.
func Adopt(ctx context.Context, c Reader, q Question) (*Facts, error) {
	facts := &Facts{Live: map[flux.ID]Live{}, Left: map[flux.ID]Live{}}
	mapping, err := c.RESTMapper().RESTMapping(schema.GroupKind{Group: flux.Group, Kind: flux.KustomizationKind})
	if meta.IsNoMatchError(err) {
		return facts, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot find out whether the cluster has Flux's kinds: %w", err)
	}
	objects, err := readKustomizations(ctx, c, mapping.GroupVersionKind)
	if err != nil {
		return nil, err
	}
	facts.Served = true
	for _, id := range q.Run {
		live, err := objects.get(ctx, id)
		if err != nil {
			return nil, err
		}
		if live != nil {
			facts.Live[id] = *live
		}
	}
	if err := facts.follow(ctx, objects, q); err != nil {
		return nil, err
	}
	if len(facts.active()) == 0 {
		return facts, nil
	}
	facts.Controllers, err = controllers(ctx, c)
	return facts, err
}

// follow finds the Kustomizations that left Git, as Flux's own pruning would: by the inventory of the one that held them, if they
// carry its owner labels and no marker (S5.5, S5.8, S5.9).
func (f *Facts) follow(ctx context.Context, objects *liveObjects, q Question) error {
	commit := map[flux.ID]bool{}
	for _, id := range q.Commit {
		commit[id] = true
	}
	var from []Live
	for _, id := range q.First {
		if live, ok := f.Live[id]; ok {
			from = append(from, live)
		}
	}
	for len(from) > 0 {
		parent := from[0]
		from = from[1:]
		for _, id := range parent.Holds {
			if _, known := f.Left[id]; known || commit[id] {
				continue
			}
			live, err := objects.get(ctx, id)
			if err != nil {
				return err
			}
			if live == nil || live.owner != parent.ID {
				continue
			}
			if live.marked {
				f.Pinned = append(f.Pinned, id)
				continue
			}
			live.Parent = parent.ID
			f.Left[id] = *live
			from = append(from, *live)
		}
	}
	sortIDs(f.Pinned)
	return nil
}

// liveObjects are the Kustomization objects of a cluster: all of them, or, where the account may not list them, those that are asked
// for.
type liveObjects struct {
	client Reader
	gvk    schema.GroupVersionKind
	all    map[flux.ID]*unstructured.Unstructured // nil if each is read when it is asked for
}

func readKustomizations(ctx context.Context, c Reader, gvk schema.GroupVersionKind) (*liveObjects, error) {
	objects := &liveObjects{client: c, gvk: gvk}
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	err := c.List(ctx, list)
	switch {
	case forbidden(err):
		return objects, nil
	// The mapper may remember a kind whose definition is gone.
	case err != nil && !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err):
		return nil, Access(err, "read Flux's Kustomizations", "list", kustomizations, "")
	}
	objects.all = map[flux.ID]*unstructured.Unstructured{}
	for i := range list.Items {
		o := &list.Items[i]
		objects.all[flux.ID{Namespace: o.GetNamespace(), Name: o.GetName()}] = o
	}
	return objects, nil
}

// get returns nil if there is no such object.
func (l *liveObjects) get(ctx context.Context, id flux.ID) (*Live, error) {
	o := l.all[id]
	if l.all == nil {
		o = &unstructured.Unstructured{}
		o.SetGroupVersionKind(l.gvk)
		err := l.client.Get(ctx, client.ObjectKey{Namespace: id.Namespace, Name: id.Name}, o)
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, Access(err, "read Flux's Kustomizations", "get", kustomizations, id.Namespace)
		}
	}
	if o == nil {
		return nil, nil
	}
	live, err := readLive(o)
	if err != nil {
		return nil, err
	}
	return &live, nil
}

func readLive(o *unstructured.Unstructured) (Live, error) {
	live := Live{ID: flux.ID{Namespace: o.GetNamespace(), Name: o.GetName()}, Deleting: o.GetDeletionTimestamp() != nil}
	var parsed kustomizev1.Kustomization
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &parsed); err != nil {
		return Live{}, fmt.Errorf("read the live Kustomization %q: %w", live.ID, err)
	}
	live.spec = parsed.Spec
	live.Suspended = parsed.Spec.Suspend
	live.SuspendedInGit = parsed.Spec.Suspend && suspendedByManifest(o.GetManagedFields())
	live.Revision = parsed.Status.LastAppliedRevision
	live.owner = flux.ID{Namespace: parsed.Labels[flux.NamespaceLabel], Name: parsed.Labels[flux.NameLabel]}
	live.marked = flux.PruneMarker(parsed.Labels, parsed.Annotations) != ""
	if parsed.Status.Inventory == nil {
		return live, nil
	}
	var errs []error
	cluster := flux.ClusterOf(live.ID.Namespace, parsed.Spec.KubeConfig)
	for _, each := range parsed.Status.Inventory.Entries {
		e := Entry{ID: each.ID, Version: each.Version, Cluster: cluster}
		ref, err := e.Ref()
		switch {
		case err != nil:
			errs = append(errs, err)
		case !cluster.IsOwn():
			live.Entries = append(live.Entries, e)
		case ref.Group == flux.Group && ref.Kind == flux.KustomizationKind:
			if id := (flux.ID{Namespace: ref.Namespace, Name: ref.Name}); id != live.ID {
				live.Holds = append(live.Holds, id)
			}
		case flux.IsSource(ref):
		default:
			live.Entries = append(live.Entries, e)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Live{}, fmt.Errorf("read the inventory of the live Kustomization %q: %w", live.ID, err)
	}
	return live, nil
}

// suspendedByManifest reports whether spec.suspend belongs to Flux's own field manager, which applies what is in Git. The flux
// command and kubectl write under names of their own.
func suspendedByManifest(managed []metav1.ManagedFieldsEntry) bool {
	for _, m := range managed {
		if m.Manager != flux.FieldManager || m.Operation != metav1.ManagedFieldsOperationApply || m.FieldsV1 == nil {
			continue
		}
		var fields struct {
			Spec map[string]any `json:"f:spec"`
		}
		// What the server keeps is JSON; what is not says nothing of Git.
		if err := json.Unmarshal(m.FieldsV1.GetRawBytes(), &fields); err == nil && fields.Spec["f:suspend"] != nil {
			return true
		}
	}
	return false
}

func sortIDs(ids []flux.ID) {
	sort.Slice(ids, func(i, j int) bool { return ids[i].String() < ids[j].String() })
}
