package inventory

import (
	"fmt"
	"sort"

	"github.com/fluxcd/cli-utils/pkg/object"
	"github.com/fluxcd/pkg/ssa"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
)

// Entry is one object of an inventory, in the form Flux stores it in (S5.1). Its JSON is Flux's too. It is comparable; two
// entries mean the same object if their IDs are equal, whatever the versions (S5.5).
type Entry struct {
	// ID is "<namespace>_<name>_<group>_<kind>"; namespace and group may be empty.
	ID string `json:"id"`
	// Version is the API version, without the group, that the object was applied in.
	Version string `json:"v"`
}

// EntryOf returns the entry of an object. In names of kinds of rbac.authorization.k8s.io, ":" is written as "__" (S5.2).
func EntryOf(r flux.Ref) Entry {
	return Entry{ID: metadata(r).String(), Version: r.Version}
}

// Ref is the inverse of EntryOf. A name with "__" comes back with ":" as it does in Flux (S5.2), which is only wrong for names
// that no kind but those of RBAC allows. The error names the text that is no id.
func (e Entry) Ref() (flux.Ref, error) {
	m, err := object.ParseObjMetadata(e.ID)
	if err != nil || m.Name == "" || m.GroupKind.Kind == "" {
		return flux.Ref{}, fmt.Errorf("%q is not an inventory id of the form <namespace>_<name>_<group>_<kind>", e.ID)
	}
	return flux.Ref{Group: m.GroupKind.Group, Version: e.Version, Kind: m.GroupKind.Kind, Namespace: m.Namespace, Name: m.Name}, nil
}

// Entries returns the entries of objects in the order given, each id once.
func Entries(refs []flux.Ref) []Entry {
	entries := make([]Entry, 0, len(refs))
	for _, r := range refs {
		entries = append(entries, EntryOf(r))
	}
	return Union(nil, entries)
}

func metadata(r flux.Ref) object.ObjMetadata {
	return object.ObjMetadata{Namespace: r.Namespace, Name: r.Name, GroupKind: schema.GroupKind{Group: r.Group, Kind: r.Kind}}
}

// Diff returns the entries of old whose id is not among those of now, in the order of old, each id once. The version plays no
// part (S5.5).
func Diff(old, now []Entry) []Entry {
	seen := IDs(now)
	var diff []Entry
	for _, e := range old {
		if !seen[e.ID] {
			seen[e.ID] = true
			diff = append(diff, e)
		}
	}
	return diff
}

// Union returns what is in now or in old, each id once: first the entries of now in their order, which is that of the change
// set (S5.3), then what only old has, in the order of old. Where both hold an id, the version of now stands.
func Union(old, now []Entry) []Entry {
	union := Diff(now, nil)
	return append(union, Diff(old, now)...)
}

// Intersect returns the entries of a whose id is among those of b, in the order of a, each id once, with the versions of a.
func Intersect(a, b []Entry) []Entry {
	in := IDs(b)
	var both []Entry
	for _, e := range a {
		if in[e.ID] {
			in[e.ID] = false
			both = append(both, e)
		}
	}
	return both
}

// IDs returns the ids of entries as a set. The set is the caller's.
func IDs(entries []Entry) map[string]bool {
	ids := make(map[string]bool, len(entries))
	for _, e := range entries {
		ids[e.ID] = true
	}
	return ids
}

// SortForDeletion returns a copy of entries in the order of deletion: the reverse of Flux's apply order, so webhooks first, and
// Namespaces and CustomResourceDefinitions last (S4.17, S5.7). An entry whose id does not parse is an error.
func SortForDeletion(entries []Entry) ([]Entry, error) {
	byID := make(map[object.ObjMetadata]Entry, len(entries))
	metas := make(ssa.SortableMetas, 0, len(entries))
	for _, e := range Diff(entries, nil) {
		ref, err := e.Ref()
		if err != nil {
			return nil, err
		}
		m := metadata(ref)
		if _, dup := byID[m]; dup {
			continue
		}
		byID[m] = e
		metas = append(metas, m)
	}
	sort.Sort(sort.Reverse(metas))
	sorted := make([]Entry, 0, len(metas))
	for _, m := range metas {
		sorted = append(sorted, byID[m])
	}
	return sorted, nil
}
