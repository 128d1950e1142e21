package prune

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
)

// Client is what pruning needs of a controller-runtime client.
type Client interface {
	Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error
	List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error
	Watch(ctx context.Context, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error)
	Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error
	RESTMapper() meta.RESTMapper
}

const (
	partOfLabel = "app.kubernetes.io/part-of"
	partOfFlux  = "flux"
)

// protected says why a live object is not to be deleted for a deletion; empty if it may be.
func protected(live *metav1.PartialObjectMetadata, d Deletion) string {
	node := d.Node
	owner := flux.ID{Namespace: live.Labels[flux.NamespaceLabel], Name: live.Labels[flux.NameLabel]}
	switch {
	case d.Cluster.IsOwn() && live.Labels[partOfLabel] == partOfFlux:
		return "it is part of Flux"
	case owner == node:
	case owner.Namespace == "" || owner.Name == "":
		return "it does not carry the owner labels"
	default:
		return fmt.Sprintf("its owner labels name Kustomization %q", owner)
	}
	if marker := flux.PruneMarker(live.Labels, live.Annotations); marker != "" {
		return "it is marked " + marker
	}
	return ""
}

// twinOf says, as half a sentence, that an object is the same as one that the commit holds, which another API group serves; empty
// if it is not. Flux deletes it then, right after it has applied it (S5.5).
func twinOf(ctx context.Context, c Client, d Deletion, e inventory.Entry, live *metav1.PartialObjectMetadata) (string, error) {
	for _, ref := range d.Twins[e.ID] {
		twin, err := lookup(ctx, c, ref)
		if err != nil {
			return "", err
		}
		if !twin.gone && live.UID != "" && twin.live.UID == live.UID {
			return fmt.Sprintf("it is the same object as %s of API group %q, which this commit holds", ref, ref.Group), nil
		}
	}
	return "", nil
}

// since is when an object's deletion was asked for, by the server's clock. Its time stamp is that of the end of the grace period.
func since(o *metav1.PartialObjectMetadata) time.Time {
	if o.DeletionTimestamp == nil {
		return time.Time{}
	}
	var period int64
	if o.DeletionGracePeriodSeconds != nil {
		period = *o.DeletionGracePeriodSeconds
	}
	return o.DeletionTimestamp.Add(-time.Duration(period) * time.Second)
}

// going says that an object is being deleted already, and what it waits for.
func going(o *metav1.PartialObjectMetadata) string {
	text := "it is being deleted since " + since(o).UTC().Format(time.RFC3339)
	if len(o.Finalizers) > 0 {
		text += " and waits for finalizers: " + strings.Join(o.Finalizers, ", ")
	}
	return text
}

// found is what lookup saw: a live object, or why there is none.
type found struct {
	live *metav1.PartialObjectMetadata
	// gone says that the object does not exist; note says why, if there is more to say than that.
	gone bool
	note string
}

// lookup reads the metadata of an object, in whatever version the server has of its kind.
func lookup(ctx context.Context, c Client, ref flux.Ref) (found, error) {
	mapping, err := mappingOf(c, ref)
	if meta.IsNoMatchError(err) {
		return unserved(ctx, c, ref)
	}
	if err != nil {
		return found{}, fmt.Errorf("%s query failed: %w", ref, err)
	}
	live := &metav1.PartialObjectMetadata{}
	live.SetGroupVersionKind(mapping.GroupVersionKind)
	err = c.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, live)
	switch {
	case apierrors.IsNotFound(err):
		return found{gone: true}, nil
	case meta.IsNoMatchError(err):
		return unserved(ctx, c, ref)
	case err != nil:
		return found{}, inventory.Access(err, fmt.Sprintf("read %s", ref), "get", mapping.Resource.GroupResource(), ref.Namespace)
	}
	// Some servers leave it out of answers to metadata requests.
	live.SetGroupVersionKind(mapping.GroupVersionKind)
	return found{live: live}, nil
}

// mappingOf prefers the version of the entry and takes any other that the server has (S5.5).
func mappingOf(c Client, ref flux.Ref) (*meta.RESTMapping, error) {
	gk := schema.GroupKind{Group: ref.Group, Kind: ref.Kind}
	if ref.Version != "" {
		mapping, err := c.RESTMapper().RESTMapping(gk, ref.Version)
		if err == nil || !meta.IsNoMatchError(err) {
			return mapping, err
		}
	}
	return c.RESTMapper().RESTMapping(gk)
}

// unserved judges an object whose kind the server does not know. Flux fails here for good (S5.11). If the definition of the kind is
// gone, so are all its objects: the server deletes them first. If the kind comes from another API server that does not answer just
// now, the object may well be there.
func unserved(ctx context.Context, c Client, ref flux.Ref) (found, error) {
	service := &unstructured.Unstructured{}
	service.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"})
	err := c.Get(ctx, client.ObjectKey{Name: ref.Version + "." + ref.Group}, service)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return found{}, fmt.Errorf("%s query failed: the server does not know its kind, nor could be asked why: %w", ref, err)
	default:
		if aggregated, _, _ := unstructured.NestedMap(service.Object, "spec", "service"); aggregated != nil {
			return found{}, fmt.Errorf("%s query failed: the server of API group %q does not answer", ref, ref.Group)
		}
	}
	return found{gone: true, note: fmt.Sprintf("the cluster no longer has the kind %s of API group %q", ref.Kind, ref.Group)}, nil
}
