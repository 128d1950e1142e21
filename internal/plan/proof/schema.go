package proof

import (
	"bytes"
	"math"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// Types are the types of a server, from its OpenAPI.
type Types interface {
	// ObjectToTyped gives an object its type. It fails if the kind is
	// unknown or the object is not as the type says.
	ObjectToTyped(object runtime.Object, options ...typed.ValidationOptions) (*typed.TypedValue, error)
}

// BySchema repeats the server's own merge: the manifest into the object, both
// with the types that the server uses. types must be safe for concurrent use.
//
// Whatever is odd, a kind that is not there, an object that does not fit,
// means that there is no proof.
func BySchema(desired, live *unstructured.Unstructured, r Rules, types Types) bool {
	c, ok := r.claim(desired, live)
	if !ok {
		return false
	}
	have := withoutManagedFields(live)
	patch, object, ok := typedPair(c, desired, have, types)
	if !ok || !sameFields(patch, c.raw) {
		return false
	}
	mergedValue, err := object.Merge(patch)
	if err != nil {
		return false
	}
	merged, ok := mergedValue.AsValue().Unstructured().(map[string]any)
	switch {
	case !ok:
		return false
	case EqualJSON(merged, have):
		return true
	}
	gvk := desired.GroupVersionKind()
	if _, builtIn := goType(gvk); builtIn {
		settled, ok := settle(gvk, merged)
		return ok && settlesAs(merged, settled, have)
	}
	return EqualJSON(complete(merged, mergedValue.Schema(), mergedValue.TypeRef()), have)
}

// withoutManagedFields returns a shallow copy; a merge does not look at the
// managed fields.
func withoutManagedFields(live *unstructured.Unstructured) map[string]any {
	have := map[string]any{}
	for key, value := range live.Object {
		have[key] = value
	}
	if all, ok := have["metadata"].(map[string]any); ok {
		meta := map[string]any{}
		for key, value := range all {
			if key != "managedFields" {
				meta[key] = value
			}
		}
		have["metadata"] = meta
	}
	return have
}

func typedPair(c *claim, desired *unstructured.Unstructured, have map[string]any, types Types) (patch, object *typed.TypedValue, ok bool) {
	applied := map[string]any{"apiVersion": desired.GetAPIVersion(), "kind": desired.GetKind()}
	for key, value := range c.want {
		applied[key] = value
	}
	if c.status != nil {
		// It is refused like any other part that does not fit.
		if _, err := types.ObjectToTyped(desired); err != nil {
			return nil, nil, false
		}
	}
	patch, err := types.ObjectToTyped(&unstructured.Unstructured{Object: applied})
	if err != nil {
		return nil, nil, false
	}
	object, err = types.ObjectToTyped(&unstructured.Unstructured{Object: have}, typed.AllowDuplicates)
	return patch, object, err == nil
}

// unowned are the fields of a manifest that no entry holds, as far as
// [withoutIdentity] leaves them.
var unowned = fieldpath.NewSet(fieldpath.MakePathOrDie("apiVersion"), fieldpath.MakePathOrDie("kind"), fieldpath.MakePathOrDie("metadata"))

// sameFields reports whether a managed fields entry holds exactly the fields of
// the patch.
func sameFields(patch *typed.TypedValue, entry []byte) bool {
	set, err := patch.ToFieldSet()
	if err != nil {
		return false
	}
	owned := &fieldpath.Set{}
	if err := owned.FromJSON(bytes.NewReader(entry)); err != nil {
		return false
	}
	return !owned.Empty() && owned.Equals(set.Difference(unowned))
}

// settlesAs compares what merging gives with the object, and where they differ
// what the server makes of it.
func settlesAs(merged, settled, have any) bool {
	if EqualJSON(merged, have) {
		return true
	}
	switch m := merged.(type) {
	case map[string]any:
		s, settledOK := settled.(map[string]any)
		h, haveOK := have.(map[string]any)
		if !settledOK || !haveOK {
			break
		}
		for key := range m {
			if _, both := h[key]; both {
				if !settlesAs(m[key], at(s, key), h[key]) {
					return false
				}
			} else if !equalSettled(at(s, key), none{}) {
				return false
			}
		}
		for key := range h {
			if _, both := m[key]; !both && !equalSettled(at(s, key), h[key]) {
				return false
			}
		}
		return true
	case []any:
		s, settledOK := settled.([]any)
		h, haveOK := have.([]any)
		if !settledOK || !haveOK || len(m) != len(h) || len(m) != len(s) {
			break
		}
		for i := range m {
			if !settlesAs(m[i], s[i], h[i]) {
				return false
			}
		}
		return true
	}
	return equalSettled(settled, have)
}

// complete returns what the server makes of a custom resource after a merge: a
// null is left out where the schema allows none, and a default is filled in
// where a field is not there then. The value is not changed.
func complete(v any, s *schema.Schema, t schema.TypeRef) any {
	atom, ok := s.Resolve(t)
	if !ok {
		return v
	}
	switch v := v.(type) {
	case map[string]any:
		if atom.Map == nil {
			return v
		}
		return completeMap(v, s, atom.Map)
	case []any:
		if atom.List == nil {
			return v
		}
		out := make([]any, len(v))
		for i := range v {
			out[i] = complete(v[i], s, atom.List.ElementType)
		}
		return out
	}
	return v
}

func completeMap(v map[string]any, s *schema.Schema, m *schema.Map) map[string]any {
	out := make(map[string]any, len(v))
	for key, value := range v {
		field, named := m.FindField(key)
		switch {
		case !named:
			out[key] = complete(value, s, m.ElementType)
		case value != nil || field.Type.Nullable:
			out[key] = complete(value, s, field.Type)
		}
	}
	for _, field := range m.Fields {
		if _, there := out[field.Name]; !there && field.Default != nil {
			out[field.Name] = complete(jsonValue(field.Default), s, field.Type)
		}
	}
	return out
}

// jsonValue copies a default and gives whole numbers the type that an object
// has them in.
func jsonValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[key] = jsonValue(value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = jsonValue(v[i])
		}
		return out
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v)
		}
	}
	return v
}
