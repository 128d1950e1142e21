package inventory

import (
	"fmt"
	"sort"

	"github.com/fluxcd/cli-utils/pkg/object"
	"github.com/fluxcd/pkg/ssa"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
)

// Entry is one object of an inventory, in the form Flux stores it in (S5.1). Its JSON is Flux's too, for objects in the cluster of
// the run. It is comparable; two entries mean the same object if their keys are equal, whatever the versions (S5.5).
type Entry struct {
	// ID is "<namespace>_<name>_<group>_<kind>"; namespace and group may be empty.
	ID string `json:"id"`
	// Version is the API version, without the group, that the object was applied in.
	Version string `json:"v"`
	// Cluster names where the object is. Flux's inventory has no such thing: it takes all objects to be where spec.kubeConfig
	// points now.
	Cluster flux.ClusterRef `json:"cluster,omitzero"`
}

// String is the entry as Flux writes it in one line, with its cluster if that is not the run's own.
func (e Entry) String() string {
	text := e.ID + " " + e.Version
	if !e.Cluster.IsOwn() {
		text += " in " + e.Cluster.String()
	}
	return text
}

// Key is the identity of the object that an entry is about: its cluster, as far as the reference tells, and its id.
type Key struct {
	Cluster flux.ClusterRef
	ID      string
}

// Key returns the entry without its version.
func (e Entry) Key() Key { return Key{Cluster: e.Cluster, ID: e.ID} }

// EntryOf returns the entry of an object in the cluster of the run. In names of kinds of rbac.authorization.k8s.io, ":" is written as "__" (S5.2).
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
	// No object can be named like this, and a request for it would be one for something else.
	for _, segment := range []string{m.Namespace, m.Name, m.GroupKind.Group, m.GroupKind.Kind, e.Version} {
		if wrong := content.IsPathSegmentName(segment); len(wrong) > 0 {
			return flux.Ref{}, fmt.Errorf("%q of version %q is not an inventory id: %q %s", e.ID, e.Version, segment, wrong[0])
		}
	}
	return flux.Ref{Group: m.GroupKind.Group, Version: e.Version, Kind: m.GroupKind.Kind, Namespace: m.Namespace, Name: m.Name}, nil
}

// Entries returns the entries of objects in the cluster of the run in the order given, each id once.
func Entries(refs []flux.Ref) []Entry { return EntriesIn(flux.ClusterRef{}, refs) }

// EntriesIn is Entries for objects in any cluster.
func EntriesIn(cluster flux.ClusterRef, refs []flux.Ref) []Entry {
	entries := make([]Entry, 0, len(refs))
	for _, r := range refs {
		e := EntryOf(r)
		e.Cluster = cluster
		entries = append(entries, e)
	}
	return Union(nil, entries)
}

func metadata(r flux.Ref) object.ObjMetadata {
	return object.ObjMetadata{Namespace: r.Namespace, Name: r.Name, GroupKind: schema.GroupKind{Group: r.Group, Kind: r.Kind}}
}

// Diff returns the entries of old whose key is not among those of now, in the order of old, each key once. The version plays no
// part (S5.5).
func Diff(old, now []Entry) []Entry {
	seen := Keys(now)
	var diff []Entry
	for _, e := range old {
		if !seen[e.Key()] {
			seen[e.Key()] = true
			diff = append(diff, e)
		}
	}
	return diff
}

// Union returns what is in now or in old, each key once: first the entries of now in their order, which is that of the change
// set (S5.3), then what only old has, in the order of old. Where both hold a key, the version of now stands.
func Union(old, now []Entry) []Entry {
	union := Diff(now, nil)
	return append(union, Diff(old, now)...)
}

// Intersect returns the entries of a whose key is among those of b, in the order of a, each key once, with the versions of a.
func Intersect(a, b []Entry) []Entry {
	in := Keys(b)
	var both []Entry
	for _, e := range a {
		if in[e.Key()] {
			in[e.Key()] = false
			both = append(both, e)
		}
	}
	return both
}

// Keys returns the keys of entries as a set. The set is the caller's.
func Keys(entries []Entry) map[Key]bool {
	keys := make(map[Key]bool, len(entries))
	for _, e := range entries {
		keys[e.Key()] = true
	}
	return keys
}

// SortForDeletion returns a copy of entries in the order of deletion: the reverse of Flux's apply order, so webhooks first, and
// Namespaces and CustomResourceDefinitions last (S4.17, S5.7). The entries are of one cluster. An entry whose id does not parse
// is an error.
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
