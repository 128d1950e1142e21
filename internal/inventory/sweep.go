package inventory

import (
	"context"
	"errors"
	"fmt"
	"sort"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
)

// separate tells the records of a list from the parts of their inventories, which it returns by name.
func separate(list *corev1.ConfigMapList) (heads []*corev1.ConfigMap, parts map[string]*corev1.ConfigMap) {
	parts = map[string]*corev1.ConfigMap{}
	for i := range list.Items {
		cm := &list.Items[i]
		kind := cm.Labels[KindLabel]
		switch {
		case kindOf(cm.Name) != "" || kind == KindKustomization || kind == KindRoot:
			heads = append(heads, cm)
		case kind == KindPart:
			parts[cm.Name] = cm
		}
		// All else is of a version that knows more kinds.
	}
	return heads, parts
}

// storedOf returns a record as it is stored, with the parts that its head names, as far as they are there. If nothing tells whose
// it is there is an error besides.
func storedOf(cm *corev1.ConfigMap, parts map[string]*corev1.ConfigMap) (stored, error) {
	o := stored{object: subject(cm), name: cm.Name, kind: cm.Labels[KindLabel], rootLabel: cm.Labels[RootLabel],
		payload: payload{data: cm.Data, binary: cm.BinaryData}, version: cm.ResourceVersion}
	if kindOf(cm.Name) == KindKustomization {
		var head recordJSON
		if decodeHead(o.object, o.payload, &head) == nil {
			o.parts = map[string][]byte{}
			for _, ref := range head.Parts {
				if part := parts[ref.Name]; part != nil {
					o.parts[ref.Name] = part.BinaryData[partKey]
				}
			}
		}
	}
	var err error
	o.id, o.root, err = identify(cm)
	return o, err
}

// saveParts writes the parts of a record that are not there yet, before the head that names them.
func (s *ClusterStore) saveParts(ctx context.Context, doing string, r *Record, p payload) error {
	there := map[string]bool{}
	for _, ref := range r.parts {
		there[ref.Name] = true
	}
	if len(there) > 0 || len(p.refs) > 0 {
		s.litter(r.Root)
	}
	for _, ref := range p.refs {
		if there[ref.Name] {
			continue
		}
		there[ref.Name] = true
		cm := s.configMap(ref.Name, KindPart, r.ID, r.Root, payload{binary: map[string][]byte{partKey: p.parts[ref.Name]}})
		never := true
		cm.Immutable = &never
		err := s.create(ctx, cm)
		if apierrors.IsAlreadyExists(err) {
			err = s.samePart(ctx, doing, cm)
		} else {
			err = Access(err, doing, "create", configMaps, s.namespace)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// samePart makes sure that a part which is there already, left by a write that was cut off or whose answer got lost, holds what it
// should.
func (s *ClusterStore) samePart(ctx context.Context, doing string, cm *corev1.ConfigMap) error {
	var live corev1.ConfigMap
	if err := s.client.Get(ctx, client.ObjectKeyFromObject(cm), &live); err != nil {
		return Access(err, doing, "get", configMaps, s.namespace)
	}
	if (payload{binary: cm.BinaryData}).equal(live.Data, live.BinaryData) && live.Labels[ManagedByLabel] == ManagedBy && live.Labels[KindLabel] == KindPart {
		return nil
	}
	return fmt.Errorf("cannot %s: %w", doing, &DamagedError{Object: subject(cm), Err: errors.New("it holds something else than the part of an inventory that it is named for"),
		Remedy: fmt.Sprintf("remove it, no record needs it: kubectl -n %s delete configmap %s", cm.Namespace, cm.Name)})
}

// litter notes that a root may have parts that no record names.
func (s *ClusterStore) litter(root flux.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.littered == nil {
		s.littered = map[flux.ID]bool{}
	}
	s.littered[root] = true
}

// Sweep implements Store, with one LIST and a DELETE for each part.
func (s *ClusterStore) Sweep(ctx context.Context, root flux.ID) error {
	s.mu.Lock()
	littered := s.littered[root]
	s.mu.Unlock()
	if !littered {
		return nil
	}
	doing := fmt.Sprintf("remove what the records of root %q no longer use", root)
	list, err := s.list(ctx, doing)
	if err != nil {
		return err
	}
	heads, parts := separate(list)
	var errs []error
	for _, cm := range strays(heads, parts, root) {
		err := s.client.Delete(ctx, cm, client.Preconditions{UID: &cm.UID})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) { // somebody else has removed it
			errs = append(errs, Access(err, doing, "delete", configMaps, s.namespace))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.littered, root)
	return nil
}

// strays returns, sorted by name, the parts that no record names: those of a root's records, and those that say to be a root's and
// of which there is no record at all. Where a record cannot be read, its parts are none: it may name them in a way not known here.
func strays(heads []*corev1.ConfigMap, parts map[string]*corev1.ConfigMap, root flux.ID) []*corev1.ConfigMap {
	named := map[string]bool{}
	owner := map[string]flux.ID{} // of records, by name; zero if the record cannot be read
	for _, cm := range heads {
		var head recordJSON
		_, of, err := identify(cm)
		if err != nil || decodeHead(subject(cm), payload{data: cm.Data}, &head) != nil {
			of = flux.ID{}
		}
		owner[cm.Name] = of
		for _, ref := range head.Parts {
			named[ref.Name] = true
		}
	}
	var found []*corev1.ConfigMap
	for _, cm := range parts {
		id, of, err := identify(cm)
		if err != nil || named[cm.Name] {
			continue
		}
		if now, ok := owner[RecordName(id)]; ok {
			of = now // a root that was renamed keeps the parts it has
		}
		if of == root {
			found = append(found, cm)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Name < found[j].Name })
	return found
}
