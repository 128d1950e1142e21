package inventory

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
)

var (
	configMaps = schema.GroupResource{Resource: "configmaps"}
	namespaces = schema.GroupResource{Resource: "namespaces"}
)

// fieldOwner is the field manager of everything in the state namespace. It is not Flux's: nothing here is applied for a user.
const fieldOwner = client.FieldOwner("sluice")

// Client is what ClusterStore needs of a controller-runtime client. The client's scheme must know the core types, as
// client-go's does.
type Client interface {
	Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error
	List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error
	Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error
	Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error
	Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error
}

// ClusterStore keeps records in ConfigMaps of one namespace, one each, and the inventory of a very large one in further ones. It needs get, list, create, update and delete for ConfigMaps there, and
// create for Namespaces if that namespace does not exist yet. It is safe for concurrent use.
type ClusterStore struct {
	client    Client
	namespace string

	mu sync.Mutex
	// littered are the roots of which there may be parts that no record names.
	littered map[flux.ID]bool
}

var (
	_ Store = (*ClusterStore)(nil)
	_ Store = (*MemoryStore)(nil)
)

// NewClusterStore returns a store in the given namespace. It sends no request.
func NewClusterStore(c Client, namespace string) *ClusterStore {
	return &ClusterStore{client: c, namespace: namespace}
}

// Load implements Store with one LIST. A namespace that does not exist holds nothing. All records that cannot be read are
// reported together.
func (s *ClusterStore) Load(ctx context.Context, root flux.ID) (*State, error) {
	doing := fmt.Sprintf("read the records of root %q", root)
	list, err := s.list(ctx, doing)
	if err != nil {
		return nil, err
	}
	state := newState()
	state.Versions = Versions{}
	var errs []error
	for i := range list.Items {
		state.Versions.add(&list.Items[i], root)
	}
	heads, parts := separate(list)
	for _, cm := range heads {
		o, err := storedOf(cm, parts)
		if err == nil {
			err = state.add(o, root)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("cannot %s: %w", doing, err)
	}
	state.fold()
	if len(strays(heads, parts, root)) > 0 {
		s.litter(root)
	}
	return state, nil
}

// Save implements Store. The first write of all creates the namespace if it is missing.
func (s *ClusterStore) Save(ctx context.Context, r *Record) error {
	p, err := r.encode()
	if err != nil {
		return err
	}
	doing := fmt.Sprintf("save the record of Kustomization %q", r.ID)
	if err := s.saveParts(ctx, doing, r, p); err != nil {
		return err
	}
	cm := s.configMap(RecordName(r.ID), KindKustomization, r.ID, r.Root, p)
	if err := s.write(ctx, doing, cm, &r.stored); err != nil {
		return err
	}
	r.parts = p.refs
	r.keep()
	return nil
}

// SaveRoot implements Store. The first write of all creates the namespace if it is missing.
func (s *ClusterStore) SaveRoot(ctx context.Context, r *Root) error {
	p, err := r.encode()
	if err != nil {
		return err
	}
	cm := s.configMap(RootName(r.ID), KindRoot, r.ID, r.ID, p)
	return s.write(ctx, fmt.Sprintf("save the record of root %q", r.ID), cm, &r.stored)
}

// Delete implements Store.
func (s *ClusterStore) Delete(ctx context.Context, r *Record) error {
	if err := s.remove(ctx, fmt.Sprintf("delete the record of Kustomization %q", r.ID), RecordName(r.ID), &r.stored); err != nil {
		return err
	}
	if len(r.parts) > 0 {
		s.litter(r.Root)
		r.parts = nil
	}
	return nil
}

// DeleteRoot implements Store.
func (s *ClusterStore) DeleteRoot(ctx context.Context, r *Root) error {
	return s.remove(ctx, fmt.Sprintf("delete the record of root %q", r.ID), RootName(r.ID), &r.stored)
}

// EnsureNamespace creates the state namespace if it is missing. Save and SaveRoot do so by themselves; this is for others who
// write there before.
func (s *ClusterStore) EnsureNamespace(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace, Labels: map[string]string{ManagedByLabel: ManagedBy}}}
	err := s.client.Create(ctx, ns, fieldOwner)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return Access(err, fmt.Sprintf("create the state namespace %q", s.namespace), "create", namespaces, "")
}

func (s *ClusterStore) configMap(name, kind string, id, root flux.ID, p payload) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   s.namespace,
			Name:        name,
			Labels:      map[string]string{ManagedByLabel: ManagedBy, KindLabel: kind, RootLabel: RootLabelValue(root)},
			Annotations: map[string]string{IDAnnotation: id.String(), RootAnnotation: root.String()},
		},
		Data:       p.data,
		BinaryData: p.binary,
	}
}

func (s *ClusterStore) write(ctx context.Context, doing string, cm *corev1.ConfigMap, stored *string) error {
	want := payload{data: cm.Data, binary: cm.BinaryData}
	verb := "update"
	var err error
	if *stored == "" {
		verb = "create"
		err = s.create(ctx, cm)
	} else {
		// The resource version is the optimistic lock: the server refuses the write if it is not the stored one.
		cm.ResourceVersion = *stored
		err = s.client.Update(ctx, cm, fieldOwner)
	}
	switch {
	case err == nil:
		*stored = cm.ResourceVersion
		return nil
	case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err), verb == "update" && apierrors.IsNotFound(err):
		return s.conflict(ctx, doing, cm, want, stored, err)
	}
	return Access(err, doing, verb, configMaps, s.namespace)
}

// create creates a ConfigMap, and the namespace if that is missing.
func (s *ClusterStore) create(ctx context.Context, cm *corev1.ConfigMap) error {
	err := s.client.Create(ctx, cm, fieldOwner)
	if !namespaceMissing(err) {
		return err
	}
	if err := s.EnsureNamespace(ctx); err != nil {
		return err
	}
	cm.ResourceVersion = ""
	return s.client.Create(ctx, cm, fieldOwner)
}

// conflict tells the cases apart that the server answers alike. One of them is no conflict: a write that was repeated because
// the answer to the first got lost finds its own content.
func (s *ClusterStore) conflict(ctx context.Context, doing string, cm *corev1.ConfigMap, want payload, stored *string, cause error) error {
	var live corev1.ConfigMap
	err := s.client.Get(ctx, client.ObjectKeyFromObject(cm), &live)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("cannot %s: %w", doing, &ConflictError{Object: subject(cm), Err: cause})
	}
	if err != nil {
		return Access(err, doing, "get", configMaps, s.namespace)
	}
	for _, key := range []string{ManagedByLabel, KindLabel} {
		if want := cm.Labels[key]; live.Labels[key] != want {
			// By these it is found, so it must have had them once.
			return fmt.Errorf("cannot %s: %w", doing, &DamagedError{Object: subject(cm), Err: fmt.Errorf("label %q is %q, not %q", key, live.Labels[key], want),
				Remedy: fmt.Sprintf("put it back: kubectl -n %s label --overwrite configmap %s %s=%s", cm.Namespace, cm.Name, key, want)})
		}
	}
	root, id := cm.Annotations[RootAnnotation], cm.Annotations[IDAnnotation]
	if liveRoot := live.Annotations[RootAnnotation]; liveRoot != root {
		gotID, gotRoot, err := identify(&live)
		if err != nil {
			return fmt.Errorf("cannot %s: %w", doing, err)
		}
		if gotID.String() == id {
			return fmt.Errorf("cannot %s: %w", doing, &OwnedError{ID: gotID, Root: gotRoot})
		}
	}
	if want.equal(live.Data, live.BinaryData) {
		*stored = live.ResourceVersion
		return nil
	}
	return fmt.Errorf("cannot %s: %w", doing, &ConflictError{Object: subject(cm), Err: cause})
}

func (s *ClusterStore) remove(ctx context.Context, doing, name string, stored *string) error {
	if *stored == "" {
		return nil
	}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
	err := s.client.Delete(ctx, cm, client.Preconditions{ResourceVersion: stored})
	switch {
	case err == nil, apierrors.IsNotFound(err):
		*stored = ""
		return nil
	case apierrors.IsConflict(err):
		return fmt.Errorf("cannot %s: %w", doing, &ConflictError{Object: subject(cm), Err: err})
	}
	return Access(err, doing, "delete", configMaps, s.namespace)
}

func identify(cm *corev1.ConfigMap) (id, root flux.ID, err error) {
	id, err1 := flux.ParseID(cm.Annotations[IDAnnotation])
	root, err2 := flux.ParseID(cm.Annotations[RootAnnotation])
	if err := errors.Join(err1, err2); err != nil {
		return flux.ID{}, flux.ID{}, &DamagedError{Object: subject(cm), Err: fmt.Errorf("annotations %q and %q: %w", IDAnnotation, RootAnnotation, err)}
	}
	return id, root, nil
}

func subject(cm *corev1.ConfigMap) string { return "ConfigMap/" + cm.Namespace + "/" + cm.Name }

// namespaceMissing recognises the answer to a create in a namespace that does not exist: not found, though nothing was looked for.
func namespaceMissing(err error) bool {
	if !apierrors.IsNotFound(err) {
		return false
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	return details != nil && details.Kind == "namespaces"
}
