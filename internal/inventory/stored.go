package inventory

import (
	"errors"
	"fmt"

	"github.com/sluicerun/sluice/internal/flux"
)

// stored is a record as a store holds it, with what the store itself says of it.
type stored struct {
	// object is the ConfigMap as messages name it, name its name; kind and rootLabel are its labels; id and root its annotations.
	object    string
	name      string
	kind      string
	rootLabel string
	id        flux.ID
	root      flux.ID
	payload
	version string
}

func newState() *State {
	return &State{Records: map[flux.ID]*Record{}, Foreign: map[flux.ID]flux.ID{}}
}

// add puts a stored record into the state of the root asked for. What belongs to other roots is not decoded: it may be of a later
// version. But what anything about it says to be this root's has to be so throughout.
func (s *State) add(o stored, root flux.ID) error {
	if !o.concerns(root) {
		if o.kind == KindKustomization {
			s.Foreign[o.id] = o.root
		}
		return nil
	}
	if err := o.check(); err != nil {
		return &DamagedError{Object: o.object, Err: err}
	}
	if o.kind == KindRoot {
		r, err := decodeRoot(o.object, o.payload)
		if err != nil {
			return err
		}
		if r.ID != o.id {
			return &DamagedError{Object: o.object, Err: fmt.Errorf("%q is about root %q, the annotations about %q", recordKey, r.ID, o.id)}
		}
		r.stored = o.version
		s.Root = r
		return nil
	}
	r, err := decodeRecord(o.object, o.payload)
	if err != nil {
		return err
	}
	if r.ID != o.id || r.Root != o.root {
		return &DamagedError{Object: o.object, Err: fmt.Errorf("%q is about Kustomization %q of root %q, the annotations about %q of %q",
			recordKey, r.ID, r.Root, o.id, o.root)}
	}
	r.stored = o.version
	r.keep()
	s.Records[r.ID] = r
	return nil
}

// concerns says whether anything says that it is the root's.
func (o stored) concerns(root flux.ID) bool {
	if o.root == root || o.rootLabel == RootLabelValue(root) {
		return true
	}
	var head recordJSON
	return kindOf(o.name) == KindKustomization && decodeHead(o.object, o.payload, &head) == nil && head.Root == root.String()
}

// check compares what the name, the labels and the annotations say.
func (o stored) check() error {
	kind, name, about := kindOf(o.name), RecordName(o.id), o.id
	if kind == KindRoot {
		name, about = RootName(o.id), o.root
	}
	var errs []error
	if o.kind != kind {
		errs = append(errs, fmt.Errorf("label %q is %q, where its name says %q", KindLabel, o.kind, kind))
	}
	if o.name != name || about != o.id {
		errs = append(errs, fmt.Errorf("annotation %q is %q, for which it has not the right name", IDAnnotation, o.id))
	}
	if o.rootLabel != RootLabelValue(o.root) {
		errs = append(errs, fmt.Errorf("label %q is %q, where annotation %q says %q", RootLabel, o.rootLabel, RootAnnotation, o.root))
	}
	return errors.Join(errs...)
}
