package inventory

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
)

// Survey is everything that a state namespace holds. It is the caller's.
type Survey struct {
	// States holds what is stored of each root, without Foreign. Its Root is nil where the root's record is missing or unreadable.
	States map[flux.ID]*State
	// Unreadable are the records that this build cannot read, sorted by object.
	Unreadable []Unreadable
}

// Roots returns the ids of all roots, sorted: those with a record and those that only unreadable records tell of.
func (s *Survey) Roots() []flux.ID {
	seen := map[flux.ID]bool{}
	var ids []flux.ID
	add := func(id flux.ID) {
		if !id.IsZero() && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	for id := range s.States {
		add(id)
	}
	for _, u := range s.Unreadable {
		add(u.Root)
	}
	sortIDs(ids)
	return ids
}

// Unreadable is a record that cannot be read, and what can be told of it all the same.
type Unreadable struct {
	// Object is the ConfigMap, "ConfigMap/namespace/name"; Kind is KindKustomization or KindRoot.
	Object string
	Kind   string
	// ID is whose record it is, Root the root it belongs to; either is zero if nothing tells.
	ID   flux.ID
	Root flux.ID
	// Err is a *DamagedError or a *NewerError.
	Err error

	payload payload
	version string
}

// Survey reads everything that is stored, with one LIST. A record that cannot be read is part of the answer and no error.
func (s *ClusterStore) Survey(ctx context.Context) (*Survey, error) {
	list, err := s.list(ctx, "read the records")
	if err != nil {
		return nil, err
	}
	survey := &Survey{States: map[flux.ID]*State{}}
	heads, parts := separate(list)
	for _, cm := range heads {
		o, err := storedOf(cm, parts)
		if err == nil {
			state := survey.States[o.root]
			if state == nil {
				state = newState()
			}
			if err = state.add(o, o.root); err == nil {
				survey.States[o.root] = state
			}
		}
		if err != nil {
			u := Unreadable{Object: subject(cm), Kind: kindOf(cm.Name), Err: err, payload: o.payload, version: cm.ResourceVersion}
			if u.Kind == "" {
				u.Kind = cm.Labels[KindLabel]
			}
			u.identify(cm)
			survey.Unreadable = append(survey.Unreadable, u)
		}
	}
	for root := range survey.States {
		if len(strays(heads, parts, root)) > 0 {
			s.litter(root)
		}
	}
	for _, state := range survey.States {
		state.fold()
	}
	return survey, nil
}

// list reads all records, sorted by name. A namespace that does not exist holds none.
func (s *ClusterStore) list(ctx context.Context, doing string) (*corev1.ConfigMapList, error) {
	var list corev1.ConfigMapList
	err := s.client.List(ctx, &list, client.InNamespace(s.namespace), client.MatchingLabels{ManagedByLabel: ManagedBy}, client.HasLabels{KindLabel})
	if err != nil {
		return nil, Access(err, doing, "list", configMaps, s.namespace)
	}
	sort.Slice(list.Items, func(i, j int) bool { return list.Items[i].Name < list.Items[j].Name })
	return &list, nil
}

// identify finds out whose record it is by whatever can be read: the annotations, the record itself, its name. What does not
// lead back to the ConfigMap's own name is not believed.
func (u *Unreadable) identify(cm *corev1.ConfigMap) {
	prefix, nameOf := "sluice.", RecordName
	if u.Kind == KindRoot {
		prefix, nameOf = "sluice-root.", RootName
	}
	head := u.salvage()
	var fromName string
	if rest, ok := strings.CutPrefix(cm.Name, prefix); ok {
		fromName = strings.Replace(rest, ".", "/", 1)
	}
	for _, text := range []string{cm.Annotations[IDAnnotation], head.ID, fromName} {
		if id, err := flux.ParseID(text); err == nil && nameOf(id) == cm.Name {
			u.ID = id
			break
		}
	}
	if u.Kind == KindRoot {
		u.Root = u.ID
		return
	}
	for _, text := range []string{cm.Annotations[RootAnnotation], head.Root} {
		if id, err := flux.ParseID(text); err == nil && cm.Labels[RootLabel] == RootLabelValue(id) {
			u.Root = id
			return
		}
	}
}

// salvage is what of the head can be read; of a form that is not known, nothing.
func (u *Unreadable) salvage() recordJSON {
	var head recordJSON
	if decodeHead(u.Object, u.payload, &head) != nil {
		return recordJSON{}
	}
	return head
}

// Newer reports whether the record is in order, for a later version of sluice.
func (u *Unreadable) Newer() bool {
	_, newer := u.Err.(*NewerError)
	return newer
}

// Rebuild returns a record that can be saved in the place of the unreadable one of a Kustomization: with what can still be read
// of it, and these objects besides. What its manifest said is kept if it can be read; known says whether. If not, nothing of it is deleted
// should it have left Git: the next run of the commit that has it says otherwise. Where the unreadable record was changed meanwhile,
// saving ends in a conflict.
func (u *Unreadable) Rebuild(root flux.ID, found []Entry) (r *Record, known bool) {
	r = BareRecord(root, u.ID)
	r.stored = u.version
	head := u.salvage()
	parts := head.Parts
	if head.ID == u.ID.String() {
		// All but the entries, which are judged by themselves.
		head.Objects, head.Parts = 0, nil
		p := payload{data: map[string]string{entriesKey: `{"entries":[]}`}}
		text, err := json.Marshal(head)
		p.data[recordKey] = string(text)
		if whole, decodeErr := decodeRecord(u.Object, p); err == nil && decodeErr == nil {
			whole.stored, whole.Root = u.version, root
			r, known = whole, true
		}
	}
	if head.ID == "" || head.ID == u.ID.String() {
		// What cannot be read of it is in found, or else nowhere.
		r.Entries, _ = decodeEntries(u.payload, parts, math.MaxInt)
	}
	r.Entries = Union(r.Entries, found)
	return r, known
}

// BareRecord returns a record of a Kustomization of which nothing is known but that it belongs to a root. Nothing of it is deleted
// until a run knows its manifest.
func BareRecord(root, id flux.ID) *Record {
	r := &Record{ID: id, Root: root, DeletionPolicy: kustomizev1.DeletionPolicyMirrorPrune}
	if id != root {
		r.Parent = root
	}
	return r
}

// RebuildRoot returns a root that can be saved in the place of one whose record is missing (u is nil) or unreadable: with what can
// still be read of it, else with what the record of its own Kustomization tells.
func RebuildRoot(id flux.ID, u *Unreadable, records map[flux.ID]*Record) *Root {
	root := &Root{ID: id}
	if own := records[id]; own != nil {
		root.Path = own.Path
		root.Started = Run{Revision: own.Revision, Commit: commitOf(own.Revision), Result: own.Result, Started: own.Updated, Ended: own.Updated}
		if own.Result == Ready {
			root.Finished = root.Started
		}
	}
	if u != nil {
		var head rootJSON
		if decodeHead(u.Object, u.payload, &head) == nil && head.ID == id.String() {
			root.Path, root.URL, root.Started, root.Finished, root.History = head.Path, head.URL, head.Started, head.Finished, head.History
		}
		root.stored = u.version
	}
	for node := range records {
		root.Nodes = append(root.Nodes, node)
	}
	sortIDs(root.Nodes)
	return root
}

// commitOf is the hash in a revision of Flux's form (S10.7), empty if there is none.
func commitOf(revision string) string {
	_, hash, ok := strings.Cut(revision[strings.LastIndexByte(revision, '@')+1:], ":")
	if !ok {
		return ""
	}
	return hash
}

// Missing returns, sorted, the Kustomizations that the root's record names and that have no record, readable or not.
func (s *Survey) Missing(root flux.ID) []flux.ID {
	state := s.States[root]
	if state == nil || state.Root == nil {
		return nil
	}
	there := map[flux.ID]bool{}
	for _, other := range s.States {
		for id := range other.Records {
			there[id] = true
		}
	}
	for _, u := range s.Unreadable {
		if u.Kind == KindKustomization {
			there[u.ID] = true
		}
	}
	var missing []flux.ID
	for _, id := range state.Root.Nodes {
		if !there[id] {
			missing = append(missing, id)
		}
	}
	sortIDs(missing)
	return missing
}

// Owner returns the root that has a Kustomization on record; false if none is known to.
func (s *Survey) Owner(id flux.ID) (flux.ID, bool) {
	for root, state := range s.States {
		if state.Records[id] != nil {
			return root, true
		}
	}
	for _, u := range s.Unreadable {
		if u.Kind == KindKustomization && u.ID == id && !id.IsZero() {
			return u.Root, true
		}
	}
	return flux.ID{}, false
}

// String names a survey's unreadable record as messages do.
func (u *Unreadable) String() string { return fmt.Sprintf("%s: %v", u.Object, u.Err) }
