// Package compare tells how two objects of a cluster differ: field by field,
// and owner by owner as their managed fields say. It is for tests that hold two
// ways to the same state against each other, so it leaves out what the server
// makes up anew for each object, and what controllers do in their own time.
//
// All functions are pure, leave the objects alone, and may be called
// concurrently.
package compare

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Options say what does not count as a difference.
type Options struct {
	// Names are texts, one for each of the two objects, that mean the same
	// wherever they occur, such as the namespaces that they are in.
	Names [2]string
	// Managers are the field managers that write in their own time. Their
	// entries are left out, and so are the fields that nobody else owns.
	Managers []string
	// Made are fields whose value the server makes up, as [Fields] writes
	// them; what is below them is left out too.
	Made []string
}

// Controllers are the managers of a control plane, for [Options].
var Controllers = []string{"kube-controller-manager", "kube-scheduler", "kube-apiserver", "kwok", "kwok-controller"}

// made are fields that differ between any two objects.
var made = []string{
	".metadata.uid", ".metadata.resourceVersion", ".metadata.creationTimestamp", ".metadata.deletionTimestamp",
	".metadata.managedFields", ".status",
}

// Fields returns the values of an object: the leaves, and what is empty, as
// JSON by path, such as ".spec.ports[0].port".
func Fields(o *unstructured.Unstructured) map[string]string {
	out := map[string]string{}
	flatten("", o.Object, out)
	return out
}

func flatten(path string, value any, out map[string]string) {
	switch v := value.(type) {
	case map[string]any:
		if len(v) > 0 {
			for key, item := range v {
				flatten(path+"."+key, item, out)
			}
			return
		}
	case []any:
		if len(v) > 0 {
			for i, item := range v {
				flatten(fmt.Sprintf("%s[%d]", path, i), item, out)
			}
			return
		}
	}
	text, err := json.Marshal(value)
	if err != nil {
		text = fmt.Appendf(nil, "%v", value) // not of JSON, so never equal to what is
	}
	out[path] = string(text)
}

// Owners returns who owns each field, by its path in the notation of managed
// fields, such as `.spec.template.spec.containers[name="app"].image`: the
// managers with their operation and, for a subresource, its name, as
// "kubectl-edit Update" and "kubelet Update status", sorted.
func Owners(o *unstructured.Unstructured) (map[string][]string, error) {
	return owners(o, nil)
}

func owners(o *unstructured.Unstructured, without []string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, entry := range o.GetManagedFields() {
		if entry.FieldsV1 == nil || slices.Contains(without, entry.Manager) {
			continue
		}
		var set fieldpath.Set
		if err := set.FromJSON(bytes.NewReader(entry.FieldsV1.GetRawBytes())); err != nil {
			return nil, fmt.Errorf("the managed fields of %s in %s/%s cannot be read: %w", entry.Manager, o.GetKind(), o.GetName(), err)
		}
		owner := entry.Manager + " " + string(entry.Operation)
		if entry.Subresource != "" {
			owner += " " + entry.Subresource
		}
		set.Iterate(func(path fieldpath.Path) {
			key := path.String()
			out[key] = append(out[key], owner)
		})
	}
	for _, list := range out {
		slices.Sort(list)
	}
	return out, nil
}

// Objects returns how two objects differ, one line for each field, sorted;
// nothing if they do not. Either may be nil, if it does not exist.
func Objects(a, b *unstructured.Unstructured, o Options) ([]string, error) {
	if a == nil || b == nil {
		switch {
		case a == nil && b == nil:
			return nil, nil
		case a == nil:
			return []string{"only the second exists"}, nil
		}
		return []string{"only the first exists"}, nil
	}
	sides := [2]side{}
	for i, object := range []*unstructured.Unstructured{a, b} {
		var err error
		if sides[i], err = newSide(object, o, o.Names[i]); err != nil {
			return nil, err
		}
	}
	lines := different("", sides[0].fields, sides[1].fields)
	lines = append(lines, different("owners of ", sides[0].owners, sides[1].owners)...)
	lines = append(lines, different("version of ", sides[0].versions, sides[1].versions)...)
	return lines, nil
}

// side is one object as it is compared.
type side struct{ fields, owners, versions map[string]string }

func newSide(o *unstructured.Unstructured, options Options, name string) (side, error) {
	var same []string
	for _, text := range []string{string(o.GetUID()), name} {
		if text != "" {
			same = append(same, text, "*")
		}
	}
	mask := strings.NewReplacer(same...).Replace
	s := side{fields: map[string]string{}, owners: map[string]string{}, versions: map[string]string{}}
	all, err := owners(o, nil)
	if err != nil {
		return s, err
	}
	settled, err := owners(o, options.Managers)
	if err != nil {
		return s, err
	}
	foreign := func(field string) bool {
		_, owned := all[field]
		_, left := settled[field]
		return owned && !left
	}
	for path, value := range Fields(o) {
		if under(path, made) || under(path, options.Made) || foreign(path) {
			continue
		}
		s.fields[mask(path)] = mask(value)
	}
	for path, list := range settled {
		if !under(path, made) {
			s.owners[mask(path)] = strings.Join(list, ", ")
		}
	}
	for _, entry := range o.GetManagedFields() {
		if !slices.Contains(options.Managers, entry.Manager) {
			key := fmt.Sprintf("%s %s %s", entry.Manager, entry.Operation, entry.Subresource)
			s.versions[strings.TrimSpace(key)] = mask(entry.APIVersion)
		}
	}
	return s, nil
}

func under(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		rest, ok := strings.CutPrefix(path, p)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

func different(what string, a, b map[string]string) []string {
	both := maps.Clone(a)
	maps.Copy(both, b)
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(both)) {
		x, inA := a[key]
		y, inB := b[key]
		switch {
		case !inA:
			lines = append(lines, fmt.Sprintf("%s%s: only in the second: %s", what, key, y))
		case !inB:
			lines = append(lines, fmt.Sprintf("%s%s: only in the first: %s", what, key, x))
		case x != y:
			lines = append(lines, fmt.Sprintf("%s%s: %s != %s", what, key, x, y))
		}
	}
	return lines
}
