package inventory

import (
	"context"
	"errors"
	"fmt"
	"sort"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
)

var (
	kustomizations = schema.GroupResource{Group: flux.Group, Resource: "kustomizations"}
	deployments    = schema.GroupResource{Group: "apps", Resource: "deployments"}
)

// controllerNamespace is where Flux installs its controllers by default.
const controllerNamespace = "flux-system"

// Reader is what Adopt needs of a controller-runtime client. Its scheme must know Deployments, as client-go's does.
type Reader interface {
	Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error
	List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error
	RESTMapper() meta.RESTMapper
}

// Facts is what a cluster tells about Flux's controllers and what they had done there.
type Facts struct {
	// Served says whether the cluster knows the kind Kustomization at all. If not, everything else is empty.
	Served bool
	// Live holds the Kustomization objects that were asked for and exist.
	Live map[flux.ID]Live
	// Controllers lists, sorted, the kustomize-controllers that have ready replicas, as "Deployment/namespace/name".
	Controllers []string
}

// Live is a Kustomization object in the cluster.
type Live struct {
	ID flux.ID
	// Suspended is spec.suspend; Deleting is set once its deletion was asked for.
	Suspended bool
	Deleting  bool
	// Entries is status.inventory, Revision status.lastAppliedRevision.
	Entries  []Entry
	Revision string
}

// ControllerError says that a controller in the cluster reconciles the same Kustomizations. Both would act (S16.6).
type ControllerError struct {
	// Controllers are the Deployments, Kustomizations what they reconcile, both sorted.
	Controllers    []string
	Kustomizations []flux.ID
}

func (e *ControllerError) Error() string {
	return fmt.Sprintf("%s is reconciling %s", join(e.Controllers), join(idStrings(e.Kustomizations)))
}

// Hint is the command to run.
func (e *ControllerError) Hint() string {
	first := e.Kustomizations[0]
	hint := fmt.Sprintf("suspend it first: flux suspend kustomization %s --namespace %s", first.Name, first.Namespace)
	if len(e.Kustomizations) > 1 {
		hint += "; and the others likewise (flux suspend kustomization --all --namespace …)"
	}
	return hint
}

func join(texts []string) string {
	const most = 5
	out := ""
	for i, t := range texts {
		switch {
		case i == most:
			return out + fmt.Sprintf(" and %d more", len(texts)-most)
		case i > 0:
			out += ", "
		}
		out += t
	}
	return out
}

// Reconciling returns a *ControllerError if a live controller reconciles any of the Kustomizations asked for: the object exists,
// is neither suspended nor being deleted, and a kustomize-controller has ready replicas. Else nil.
func (f *Facts) Reconciling() error {
	if len(f.Controllers) == 0 {
		return nil
	}
	var ids []flux.ID
	for id, live := range f.Live {
		if !live.Suspended && !live.Deleting {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	sortIDs(ids)
	return &ControllerError{Controllers: f.Controllers, Kustomizations: ids}
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

// Adopt reads what Flux's controllers did to the given Kustomizations and whether they still run. It only reads: two LISTs where
// the cluster has Flux's kinds, none where it has not. Where the account may not list in the whole cluster, it reads the objects
// one by one and looks for controllers in flux-system.
func Adopt(ctx context.Context, c Reader, ids []flux.ID) (*Facts, error) {
	facts := &Facts{Live: map[flux.ID]Live{}}
	mapping, err := c.RESTMapper().RESTMapping(schema.GroupKind{Group: flux.Group, Kind: flux.KustomizationKind})
	if meta.IsNoMatchError(err) {
		return facts, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot find out whether the cluster has Flux's kinds: %w", err)
	}
	objects, err := listKustomizations(ctx, c, mapping.GroupVersionKind, ids)
	if err != nil {
		return nil, err
	}
	facts.Served = true
	wanted := make(map[flux.ID]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	active := false
	for i := range objects {
		live, err := readLive(&objects[i])
		if err != nil {
			return nil, err
		}
		if !wanted[live.ID] {
			continue
		}
		facts.Live[live.ID] = live
		active = active || !live.Suspended && !live.Deleting
	}
	if !active {
		return facts, nil
	}
	facts.Controllers, err = readyControllers(ctx, c)
	return facts, err
}

func listKustomizations(ctx context.Context, c Reader, gvk schema.GroupVersionKind, ids []flux.ID) ([]unstructured.Unstructured, error) {
	const doing = "read Flux's Kustomizations"
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	err := c.List(ctx, list)
	if err == nil {
		return list.Items, nil
	}
	// The mapper may remember a kind whose definition is gone.
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil, nil
	}
	if !forbidden(err) {
		return nil, Access(err, doing, "list", kustomizations, "")
	}
	var objects []unstructured.Unstructured
	for _, id := range ids {
		var o unstructured.Unstructured
		o.SetGroupVersionKind(gvk)
		err := c.Get(ctx, client.ObjectKey{Namespace: id.Namespace, Name: id.Name}, &o)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, Access(err, doing, "get", kustomizations, id.Namespace)
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func readLive(o *unstructured.Unstructured) (Live, error) {
	live := Live{ID: flux.ID{Namespace: o.GetNamespace(), Name: o.GetName()}, Deleting: o.GetDeletionTimestamp() != nil}
	var parsed struct {
		Spec struct {
			Suspend bool `json:"suspend"`
		} `json:"spec"`
		Status struct {
			LastAppliedRevision string                         `json:"lastAppliedRevision"`
			Inventory           *kustomizev1.ResourceInventory `json:"inventory"`
		} `json:"status"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &parsed); err != nil {
		return Live{}, fmt.Errorf("read the live Kustomization %q: %w", live.ID, err)
	}
	live.Suspended = parsed.Spec.Suspend
	live.Revision = parsed.Status.LastAppliedRevision
	if parsed.Status.Inventory == nil {
		return live, nil
	}
	var errs []error
	for _, ref := range parsed.Status.Inventory.Entries {
		e := Entry{ID: ref.ID, Version: ref.Version}
		if _, err := e.Ref(); err != nil {
			errs = append(errs, err)
			continue
		}
		live.Entries = append(live.Entries, e)
	}
	if err := errors.Join(errs...); err != nil {
		return Live{}, fmt.Errorf("read the inventory of the live Kustomization %q: %w", live.ID, err)
	}
	return live, nil
}

// readyControllers looks for both labels that Flux's own manifests carry: the first is the Deployment's selector, the second is
// kept by installations that rename the Deployment, as sharding does.
func readyControllers(ctx context.Context, c Reader) ([]string, error) {
	const doing = "find out whether Flux's kustomize-controller runs"
	found := map[string]bool{}
	for _, selector := range []client.MatchingLabels{
		{"app": "kustomize-controller"},
		{"app.kubernetes.io/component": "kustomize-controller"},
	} {
		var list appsv1.DeploymentList
		err := c.List(ctx, &list, selector)
		namespace := ""
		if forbidden(err) {
			namespace = controllerNamespace
			err = c.List(ctx, &list, selector, client.InNamespace(namespace))
		}
		if err != nil {
			return nil, Access(err, doing, "list", deployments, namespace)
		}
		for i := range list.Items {
			if d := &list.Items[i]; d.Status.ReadyReplicas > 0 {
				found["Deployment/"+d.Namespace+"/"+d.Name] = true
			}
		}
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	sort.Strings(names)
	return names, nil
}

func sortIDs(ids []flux.ID) {
	sort.Slice(ids, func(i, j int) bool { return ids[i].String() < ids[j].String() })
}
