package flux

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ID names a Kustomization: its namespace and its name. The zero value names
// nothing. IDs are comparable and can be map keys.
type ID struct {
	Namespace string
	Name      string
}

// String returns "namespace/name", the form used in every message.
func (id ID) String() string { return id.Namespace + "/" + id.Name }

// IsZero reports whether the id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// ParseID is the inverse of String. The error names the text that has no
// namespace or no name.
func ParseID(s string) (ID, error) {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return ID{}, fmt.Errorf("%q is not of the form namespace/name", s)
	}
	return ID{Namespace: namespace, Name: name}, nil
}

// Ref names one object in a cluster. Namespace is empty for cluster-scoped
// objects. Refs are comparable; the version is part of the value, so use
// Key to compare identities (S5.5: the version plays no part).
type Ref struct {
	Group     string
	Version   string
	Kind      string
	Namespace string
	Name      string
}

// RefOf returns the reference to an object.
func RefOf(o *unstructured.Unstructured) Ref {
	gvk := o.GroupVersionKind()
	return Ref{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}
}

// String returns Flux's subject form (S4.45): "Kind/namespace/name", or
// "Kind/name" without a namespace.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + "/" + r.Name
	}
	return r.Kind + "/" + r.Namespace + "/" + r.Name
}

// Key returns the reference without its version: the identity of the object
// within a cluster.
func (r Ref) Key() Ref {
	r.Version = ""
	return r
}

// GVK returns group, version and kind as apimachinery has them.
func (r Ref) GVK() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
}

// CompareRefs orders references by group, kind, namespace, name and version,
// for output that is the same on every run.
func CompareRefs(a, b Ref) int {
	for _, c := range []int{
		strings.Compare(a.Group, b.Group),
		strings.Compare(a.Kind, b.Kind),
		strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Name, b.Name),
	} {
		if c != 0 {
			return c
		}
	}
	return strings.Compare(a.Version, b.Version)
}
