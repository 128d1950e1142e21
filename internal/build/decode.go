package build

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/yaml"
)

// decode makes objects of one built resource, by way of its text as Flux does
// (S0.14, S0.15): lists become their items, and what is no Kubernetes object
// is left out, as are kustomize's own Kustomizations.
func decode(r *resource.Resource) ([]*unstructured.Unstructured, error) {
	if r.GetName() == "" || r.GetKind() == "" || r.GetApiVersion() == "" {
		// S2.37
		return nil, fmt.Errorf("failed to decode Kubernetes apiVersion, kind and name: they are %q, %q and %q", r.GetApiVersion(), r.GetKind(), r.GetName())
	}
	text, err := r.AsYAML()
	if err != nil {
		return nil, fmt.Errorf("%s: writing as YAML: %w", r.CurId(), err)
	}
	json, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, fmt.Errorf("%s: reading its YAML: %w", r.CurId(), err)
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(json); err != nil {
		return nil, fmt.Errorf("%s: reading its JSON: %w", r.CurId(), err)
	}
	return unroll(o)
}

// unreadableObject is an error about a built object, with the file it is from
// as far as known.
type unreadableObject struct {
	file string
	err  error
}

func (e *unreadableObject) Error() string { return e.err.Error() }
func (e *unreadableObject) Unwrap() error { return e.err }

func unroll(o *unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	if !o.IsList() {
		if strings.HasPrefix(o.GetAPIVersion(), "kustomize.config.k8s.io/") && o.GetKind() == "Kustomization" {
			return nil, nil
		}
		return []*unstructured.Unstructured{o}, nil
	}
	var items []*unstructured.Unstructured
	err := o.EachListItem(func(item runtime.Object) error {
		u, ok := item.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("an item of %s %q is no object", o.GetKind(), o.GetName())
		}
		items = append(items, u)
		return nil
	})
	return items, err
}
