package inventory

import (
	"fmt"

	"github.com/sluicerun/sluice/internal/flux"
)

// TooLargeError says that a record cannot be stored. Nothing was written.
type TooLargeError struct {
	// ID is the Kustomization, or the root if Root is set.
	ID   flux.ID
	Root bool
	// Objects is how many objects the Kustomization has, or Kustomizations the root.
	Objects int
	// Size is in bytes; Limit is what it may be.
	Size  int
	Limit int
}

func (e *TooLargeError) Error() string {
	if e.Root {
		return fmt.Sprintf("the record of root %q with %d Kustomizations takes %d bytes, more than the %d that a ConfigMap can hold",
			e.ID, e.Objects, e.Size, e.Limit)
	}
	return fmt.Sprintf("the record of Kustomization %q with %d objects takes %d bytes, more than the %d that one may have",
		e.ID, e.Objects, e.Size, e.Limit)
}

// Hint says what to do.
func (e *TooLargeError) Hint() string {
	if e.Root {
		return "split the entry folder into several with fewer Kustomizations each"
	}
	return "split the Kustomization into several with fewer objects each"
}

// NewerError says that a record was written by a later version of sluice in a form that this one cannot read.
type NewerError struct {
	// Object is the ConfigMap, "ConfigMap/namespace/name"; Schema its version; ToolVersion what wrote it, if that can be read.
	Object      string
	Schema      int
	ToolVersion string
}

func (e *NewerError) Error() string {
	by := "a newer sluice"
	if e.ToolVersion != "" {
		by = "sluice " + e.ToolVersion
	}
	return fmt.Sprintf("%s was written by %s with schema version %d; this sluice reads up to %d", e.Object, by, e.Schema, SchemaVersion)
}

// Hint says what to do.
func (e *NewerError) Hint() string {
	which := "that version of sluice"
	if e.ToolVersion != "" {
		which = "sluice " + e.ToolVersion
	}
	return "use " + which + " or a later one; if it is gone for good: sluice status --repair --overwrite-newer"
}

// DamagedError says that a record cannot be read. Going on without it could leave objects behind or forget them, so nothing is
// guessed.
type DamagedError struct {
	// Object is the ConfigMap, "ConfigMap/namespace/name".
	Object string
	Err    error
	// Remedy says what to do, where a repair is not it.
	Remedy string
}

func (e *DamagedError) Error() string { return fmt.Sprintf("%s is damaged: %v", e.Object, e.Err) }

// Unwrap returns what is wrong.
func (e *DamagedError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *DamagedError) Hint() string {
	if e.Remedy != "" {
		return e.Remedy
	}
	return "rebuild it from what is in the cluster: sluice status --repair"
}
