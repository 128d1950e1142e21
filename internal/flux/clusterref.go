package flux

import (
	"fmt"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
)

// ClusterRef names the cluster that a Kustomization's objects live in, by the
// Secret or ConfigMap of spec.kubeConfig that says how to reach it (S4.42,
// S4.43). The zero value is the cluster of the run itself. It holds no
// credentials, so it can be stored and shown. ClusterRefs are comparable; two
// that differ may still lead to one cluster.
type ClusterRef struct {
	// Kind is "Secret" or "ConfigMap".
	Kind string
	// Namespace is the Kustomization's own: a reference never leaves it (S1.6).
	Namespace string
	Name      string
	// Key is the Secret's key as the spec names it; empty is the default.
	Key string
}

// IsOwn reports whether the reference names the cluster of the run itself.
func (r ClusterRef) IsOwn() bool { return r == ClusterRef{} }

// Object names the Secret or ConfigMap, "Kind/namespace/name"; empty for the
// run's own cluster.
func (r ClusterRef) Object() string {
	if r.IsOwn() {
		return ""
	}
	return r.Kind + "/" + r.Namespace + "/" + r.Name
}

// String returns Object, with "/key" where the spec names one.
func (r ClusterRef) String() string {
	if r.Key == "" {
		return r.Object()
	}
	return r.Object() + "/" + r.Key
}

// ParseClusterRef is the inverse of String. The error names the text.
func ParseClusterRef(s string) (ClusterRef, error) {
	if s == "" {
		return ClusterRef{}, nil
	}
	parts := strings.Split(s, "/")
	if len(parts) < 3 || len(parts) > 4 || parts[0] != "Secret" && parts[0] != "ConfigMap" {
		return ClusterRef{}, fmt.Errorf("%q does not name a Secret or ConfigMap as Kind/namespace/name", s)
	}
	r := ClusterRef{Kind: parts[0], Namespace: parts[1], Name: parts[2]}
	if len(parts) == 4 {
		r.Key = parts[3]
	}
	if r.Namespace == "" || r.Name == "" || len(parts) == 4 && r.Key == "" {
		return ClusterRef{}, fmt.Errorf("%q does not name a Secret or ConfigMap as Kind/namespace/name", s)
	}
	return r, nil
}

// MarshalText is String, for stored forms.
func (r ClusterRef) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseClusterRef.
func (r *ClusterRef) UnmarshalText(text []byte) error {
	parsed, err := ParseClusterRef(string(text))
	if err == nil {
		*r = parsed
	}
	return err
}

// Cluster returns where the Kustomization's objects live: spec.kubeConfig, in
// the Kustomization's own namespace, or the cluster of the run.
func (k *Kustomization) Cluster() ClusterRef { return ClusterOf(k.Namespace, k.Spec.KubeConfig) }

// ClusterOf returns the cluster that the kubeConfig of a Kustomization in a
// namespace names; nil is the cluster of the run.
func ClusterOf(namespace string, ref *meta.KubeConfigReference) ClusterRef {
	switch {
	case ref == nil:
		return ClusterRef{}
	case ref.SecretRef != nil:
		return ClusterRef{Kind: "Secret", Namespace: namespace, Name: ref.SecretRef.Name, Key: ref.SecretRef.Key}
	case ref.ConfigMapRef != nil:
		return ClusterRef{Kind: "ConfigMap", Namespace: namespace, Name: ref.ConfigMapRef.Name}
	}
	return ClusterRef{}
}
