package inventory

import (
	"context"
	"fmt"
	"sort"

	"github.com/sluicerun/sluice/internal/flux"
)

// Store keeps records. Implementations are safe for concurrent use as long as each record is used by one goroutine at a time.
//
// A write of a record that somebody else has written or deleted since it was loaded fails with a *ConflictError, one of a
// Kustomization that belongs to another root with an *OwnedError; in both cases nothing was written. After a successful write the
// same value can be written again.
type Store interface {
	// Load returns everything stored of a root. It writes nothing. A root that was never saved gives an empty State.
	Load(ctx context.Context, root flux.ID) (*State, error)
	// Versions returns as of when everything of a root is, to be compared with State.Versions. It writes nothing.
	Versions(ctx context.Context, root flux.ID) (Versions, error)
	// Save creates or updates a record.
	Save(ctx context.Context, r *Record) error
	// Delete removes a record. One that is not stored is no error.
	Delete(ctx context.Context, r *Record) error
	// SaveRoot creates or updates a root.
	SaveRoot(ctx context.Context, r *Root) error
	// DeleteRoot removes a root, not its records. One that is not stored is no error.
	DeleteRoot(ctx context.Context, r *Root) error
	// Sweep removes what loads have found, or writes have left, of a root's records that no record names any more. Only who holds the
	// lock of the root may call it: another's write that is under way looks like something left. It costs nothing where nothing is
	// left.
	Sweep(ctx context.Context, root flux.ID) error
}

// State is what a store holds of one root. It is the caller's.
type State struct {
	// Root is nil if the root was never saved.
	Root *Root
	// Records holds the root's Kustomizations.
	Records map[flux.ID]*Record
	// Foreign maps the Kustomizations of other roots to the root that owns them.
	Foreign map[flux.ID]flux.ID
	// Versions says as of when this is, for a State that was loaded.
	Versions Versions
}

// Sorted returns the records ordered by id.
func (s *State) Sorted() []*Record {
	records := make([]*Record, 0, len(s.Records))
	for _, r := range s.Records {
		records = append(records, r)
	}
	sort.Slice(records, func(i, j int) bool { return records[i].ID.String() < records[j].ID.String() })
	return records
}

// TakeOver makes the records of another root records of this one, for a root that has got another name. It changes the records of
// old; they must be saved.
func (s *State) TakeOver(old *State, root flux.ID) {
	for id, r := range old.Records {
		if r.Parent == old.Root.ID {
			r.Parent = root
		}
		r.Root = root
		r.parts = nil // its parts are written anew, with the name of this root
		s.Records[id] = r
		delete(s.Foreign, id)
	}
}

// Owned returns, in the order of ids, an error for each that belongs to another root: the Kustomizations that a run must refuse.
func (s *State) Owned(ids []flux.ID) []*OwnedError {
	var owned []*OwnedError
	for _, id := range ids {
		if root, ok := s.Foreign[id]; ok {
			owned = append(owned, &OwnedError{ID: id, Root: root})
		}
	}
	return owned
}

// OwnedError says that a Kustomization belongs to another root.
type OwnedError struct {
	ID flux.ID
	// Root owns it.
	Root flux.ID
}

func (e *OwnedError) Error() string {
	return fmt.Sprintf("Kustomization %q belongs to root %q", e.ID, e.Root)
}

// Hint says what to do.
func (e *OwnedError) Hint() string {
	return "give one of the two another name, or let the other root give it up first: remove it there, with deletionPolicy: Orphan " +
		"if its objects shall stay"
}

// OriginError says that a root is known from another entry folder. Going on would prune everything that only the other has.
type OriginError struct {
	Root flux.ID
	// Recorded is the entry folder that is on record, Path the one of this run.
	Recorded string
	Path     string
}

func (e *OriginError) Error() string {
	return fmt.Sprintf("root %q was last run from the folder %q, not from %q", e.Root, e.Recorded, e.Path)
}

// Hint says what to do.
func (e *OriginError) Hint() string {
	return "check --path and the cluster; an entry folder that was renamed is taken over, if the commit holds the same Kustomizations and the old folder no longer"
}

// CheckOrigin compares the entry folder on record with that of a run. The usual reason for an *OriginError is the right folder for
// another cluster. A root that was never saved has no origin, and the repository may move freely.
func (s *State) CheckOrigin(path string) error {
	if s.Root == nil || s.Root.Path == "" || flux.CleanPath(s.Root.Path) == flux.CleanPath(path) {
		return nil
	}
	return &OriginError{Root: s.Root.ID, Recorded: s.Root.Path, Path: path}
}

// ConflictError says that a stored record is not the one that was loaded: another run, or a person, has changed it.
type ConflictError struct {
	// Object is what is in the way, "ConfigMap/namespace/name".
	Object string
	// Err is the server's answer, nil for a store in memory.
	Err error
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s was changed by somebody else since this run read it", e.Object)
}

// Unwrap returns the server's answer.
func (e *ConflictError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *ConflictError) Hint() string {
	return "look for another run against the same cluster, then run again"
}
