package build

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/flux"
)

// Label returns copies of the objects with the owner labels (S4.1) and then
// spec.commonMetadata (S1.9, which can override them). The input stays as it
// is.
//
// A label or annotation whose value is not a string is an error here. Flux
// would silently replace the whole map (S3.26). All such values are reported,
// each as an *flux.Problem that names the object, the key and the file.
func Label(k *flux.Kustomization, objects []flux.Object) ([]flux.Object, error) {
	owner := map[string]string{flux.NameLabel: k.Name, flux.NamespaceLabel: k.Namespace}
	var labels, annotations map[string]string
	if c := k.Spec.CommonMetadata; c != nil {
		labels, annotations = c.Labels, c.Annotations
	}
	var problems []*flux.Problem
	out := make([]flux.Object, 0, len(objects))
	for _, o := range objects {
		o = o.DeepCopy()
		for _, set := range []struct {
			field string
			maps  []map[string]string
		}{{"labels", []map[string]string{owner, labels}}, {"annotations", []map[string]string{annotations}}} {
			for _, err := range merge(o.Unstructured, set.field, set.maps) {
				problems = append(problems, &flux.Problem{
					Kustomization: k.ID,
					File:          o.File,
					Object:        o.Ref().String(),
					Err:           err,
					Remedy:        "put the value in quotes; after a substitution the variable's value needs quotes of its own",
				})
			}
		}
		out = append(out, o)
	}
	if err := flux.JoinProblems(problems); err != nil {
		return nil, err
	}
	return out, nil
}

// merge sets metadata.<field> to what it holds plus the maps, later ones
// winning. Without anything to add the object keeps the form it has.
func merge(o *unstructured.Unstructured, field string, more []map[string]string) []error {
	metadata, ok := o.Object["metadata"].(map[string]any)
	if !ok {
		return []error{errors.New("metadata is no map")}
	}
	var errs []error
	var values map[string]any
	switch have := metadata[field].(type) {
	case nil:
		values = map[string]any{}
	case map[string]any:
		values = have
	default:
		return []error{fmt.Errorf("metadata.%s is %s, not a map", field, typeName(have))}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		switch values[key].(type) {
		case string, nil: // Flux reads null as "" (S3.26)
		default:
			errs = append(errs, fmt.Errorf("metadata.%s: the value of %q is %s, not a string", field, key, typeName(values[key])))
		}
	}
	added := false
	for _, m := range more {
		for key, value := range m {
			values[key], added = value, true
		}
	}
	if added {
		for key, value := range values {
			if value == nil {
				values[key] = ""
			}
		}
		metadata[field] = values
	}
	return errs
}

// typeName says in YAML's words what a value is, without showing it: after a
// substitution it may be a secret.
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return fmt.Sprintf("a %T", v)
}
