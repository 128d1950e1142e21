package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/fluxcd/pkg/ssa/jsondiff"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/plan/proof"
)

// changedFields returns the fields in which two states of an object differ, with
// paths as "spec.template.spec.containers[app].image", sorted. As in Flux's own
// comparison, of the metadata only labels and annotations count, the status not
// at all (S4.22), and ignored fields do not either (S4.33).
func changedFields(live, merged *unstructured.Unstructured, ignore []jsondiff.IgnoreRule) []Field {
	ignored := ignoredPointers(merged, ignore)
	var fields []Field
	differences(nil, nil, counted(live), counted(merged), func(f Field, pointer []string) {
		if !ignored(pointer) {
			fields = append(fields, f)
		}
	})
	return finish(merged, fields)
}

// desiredFields returns the fields of a manifest that the live object has
// otherwise, and those that the manager had applied and the manifest leaves out
// now. What else it leaves out is not compared: nobody knows what the server, or
// somebody, makes of it in an object that does not exist yet.
func desiredFields(desired, live *unstructured.Unstructured, manager string) []Field {
	var fields []Field
	owned, known := proof.OwnedFields(live, desired.GetAPIVersion(), manager)
	differences(nil, nil, counted(live), counted(desired), func(f Field, pointer []string) {
		if _, ok := lookup(desired.Object, pointer); ok || known && owns(owned, desired.Object, pointer) {
			fields = append(fields, f)
		}
	})
	return finish(desired, fields)
}

// owns reports whether a field is among those of FieldsV1, by itself or as a part
// of one that is replaced as a whole. An entry without parts can also be an empty
// map, which owns nothing of what others put there; such a one is empty in the
// manifest. Items of lists that are told apart by keys are not looked into.
func owns(owned map[string]any, desired any, pointer []string) bool {
	for i, name := range pointer {
		if len(owned) == 0 {
			whole, _ := lookup(desired, pointer[:i])
			content, _ := whole.(map[string]any)
			return len(content) > 0
		}
		next, ok := owned["f:"+name].(map[string]any)
		if !ok {
			return false
		}
		owned = next
	}
	return true
}

// counted returns the parts of an object that count in a comparison.
func counted(o *unstructured.Unstructured) map[string]any {
	out := map[string]any{}
	for k, v := range o.Object {
		switch k {
		case "metadata", "status", "apiVersion", "kind":
		default:
			out[k] = v
		}
	}
	meta := map[string]any{}
	for _, key := range []string{"labels", "annotations"} {
		if m, ok, _ := unstructured.NestedMap(o.Object, "metadata", key); ok && len(m) > 0 {
			meta[key] = m
		}
	}
	out["metadata"] = meta
	return out
}

// differences calls found for the smallest parts that differ.
func differences(path []string, pointer []string, before, after any, found func(f Field, pointer []string)) {
	if proof.EqualJSON(before, after) {
		return
	}
	switch b := before.(type) {
	case map[string]any:
		a, ok := after.(map[string]any)
		if !ok {
			break
		}
		keys := map[string]bool{}
		for k := range b {
			keys[k] = true
		}
		for k := range a {
			keys[k] = true
		}
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			differences(append(slices.Clip(path), k), append(slices.Clip(pointer), k), b[k], a[k], found)
		}
		return
	case []any:
		a, ok := after.([]any)
		if !ok {
			break
		}
		listDifferences(path, pointer, b, a, found)
		return
	}
	found(Field{Path: joinPath(path), Old: before, New: after}, pointer)
}

// listDifferences pairs items by name where all have one, else by position.
func listDifferences(path, pointer []string, before, after []any, found func(Field, []string)) {
	b, a := byName(before), byName(after)
	if b == nil || a == nil {
		for i := range max(len(before), len(after)) {
			var x, y any
			if i < len(before) {
				x = before[i]
			}
			if i < len(after) {
				y = after[i]
			}
			differences(append(slices.Clip(path), fmt.Sprintf("[%d]", i)), append(slices.Clip(pointer), strconv.Itoa(i)), x, y, found)
		}
		return
	}
	same := len(before) == len(after)
	for i, item := range after {
		name := nameOf(item)
		same = same && i < len(before) && nameOf(before[i]) == name
		differences(append(slices.Clip(path), "["+name+"]"), append(slices.Clip(pointer), strconv.Itoa(i)), b[name], item, found)
	}
	for i, item := range before {
		if name := nameOf(item); a[name] == nil {
			same = true // said by the removal
			differences(append(slices.Clip(path), "["+name+"]"), append(slices.Clip(pointer), strconv.Itoa(i)), item, nil, found)
		}
	}
	if !same && len(before) == len(after) {
		found(Field{Path: joinPath(path), Old: before, New: after}, pointer) // another order
	}
}

func byName(list []any) map[string]any {
	out := map[string]any{}
	for _, item := range list {
		name := nameOf(item)
		if name == "" || out[name] != nil {
			return nil
		}
		out[name] = item
	}
	return out
}

func nameOf(item any) string {
	m, _ := item.(map[string]any)
	name, _ := m["name"].(string)
	return name
}

func joinPath(path []string) string {
	var b strings.Builder
	for _, p := range path {
		switch {
		case strings.HasPrefix(p, "["):
			b.WriteString(p)
		case strings.ContainsAny(p, "./"):
			// A label's key is not a path.
			b.WriteString("[" + p + "]")
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(p)
		}
	}
	return b.String()
}

// lookup follows a pointer.
func lookup(v any, pointer []string) (any, bool) {
	for _, p := range pointer {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[p]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(at) {
				return nil, false
			}
			v = at[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// ignoredPointers returns whether a field is one that rules ignore. The rules
// have been compiled before; one that cannot be matches nothing.
func ignoredPointers(o *unstructured.Unstructured, rules []jsondiff.IgnoreRule) func(pointer []string) bool {
	compiled, err := jsondiff.CompileIgnoreRules(rules)
	if err != nil {
		return func([]string) bool { return false }
	}
	var ignored [][]string
	for selector, paths := range compiled {
		if !selector.MatchUnstructured(o) {
			continue
		}
		for _, p := range paths {
			parts := strings.Split(strings.TrimPrefix(p, "/"), "/")
			for i := range parts {
				parts[i] = strings.ReplaceAll(strings.ReplaceAll(parts[i], "~1", "/"), "~0", "~")
			}
			ignored = append(ignored, parts)
		}
	}
	return func(pointer []string) bool {
		return slices.ContainsFunc(ignored, func(prefix []string) bool {
			return len(pointer) >= len(prefix) && slices.Equal(pointer[:len(prefix)], prefix)
		})
	}
}

// podSpecs is where the kinds that hold containers have them.
var podSpecs = [][]string{
	{"spec", "template", "spec"},
	{"spec", "jobTemplate", "spec", "template", "spec"},
	{"spec"},
}

// imageChanges returns the containers whose image differs; live is nil for a
// new object.
func imageChanges(live, merged *unstructured.Unstructured) []Image {
	was := map[string]string{}
	if live != nil {
		for _, i := range images(live) {
			was[i.Container] = i.New
		}
	}
	var out []Image
	for _, i := range images(merged) {
		if old := was[i.Container]; old != i.New {
			out = append(out, Image{Container: i.Container, Old: old, New: i.New})
		}
	}
	return out
}

// images returns the containers of an object, in order, with New set.
func images(o *unstructured.Unstructured) []Image {
	var out []Image
	for _, at := range podSpecs {
		spec, ok := lookup(o.Object, at)
		if !ok {
			continue
		}
		m, _ := spec.(map[string]any)
		for _, field := range []string{"initContainers", "containers"} {
			list, _ := m[field].([]any)
			for _, c := range list {
				container, _ := c.(map[string]any)
				name, _ := container["name"].(string)
				image, _ := container["image"].(string)
				if name != "" && image != "" {
					out = append(out, Image{Container: name, New: image})
				}
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return out
}

// markerIn returns the first of the markers that an object has, as "key: value".
func markerIn(o *unstructured.Unstructured, markers map[string]string) string {
	for _, key := range slices.Sorted(maps.Keys(markers)) {
		for _, in := range []map[string]string{o.GetLabels(), o.GetAnnotations()} {
			if value := in[key]; value != "" && strings.EqualFold(value, markers[key]) {
				return key + ": " + value
			}
		}
	}
	return ""
}
