package inventory

import (
	"context"
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
)

// Versions says as of when a root was read: the version of each object that is stored of it, by the object's name. It is not to be
// changed.
type Versions map[string]string

// Same reports whether nothing was written, made or deleted between two readings, by whomever.
func (v Versions) Same(other Versions) bool { return maps.Equal(v, other) }

// Versions implements Store with one LIST that asks for no contents.
func (s *ClusterStore) Versions(ctx context.Context, root flux.ID) (Versions, error) {
	var list metav1.PartialObjectMetadataList
	list.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "ConfigMapList"})
	err := s.client.List(ctx, &list, client.InNamespace(s.namespace),
		client.MatchingLabels{ManagedByLabel: ManagedBy, RootLabel: RootLabelValue(root)}, client.HasLabels{KindLabel})
	if err != nil {
		return nil, Access(err, fmt.Sprintf("look at the records of root %q", root), "list", configMaps, s.namespace)
	}
	versions := Versions{}
	for i := range list.Items {
		versions.add(&list.Items[i], root)
	}
	return versions, nil
}

// add takes in an object if it is one of the root's.
func (v Versions) add(o metav1.Object, root flux.ID) {
	if o.GetLabels()[RootLabel] == RootLabelValue(root) && o.GetAnnotations()[RootAnnotation] == root.String() {
		v[o.GetName()] = o.GetResourceVersion()
	}
}

// Versions implements Store.
func (m *MemoryStore) Versions(_ context.Context, root flux.ID) (Versions, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.versions(root), nil
}

// versions is Versions under the store's lock.
func (m *MemoryStore) versions(root flux.ID) Versions {
	versions := Versions{}
	for name, o := range m.objects {
		if o.root == root {
			versions[name] = o.version
		}
	}
	return versions
}
