package substitute

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluicerun/sluice/internal/flux"
)

// Error is one reason why variables cannot be loaded or filled in. Load and
// Apply return several of them joined by errors.Join, sorted by file, line and
// object; All takes them apart again.
type Error struct {
	// Kustomization is whose postBuild it is.
	Kustomization flux.ID
	// File and Line say where the text stands, as a path in the tree; ""
	// and 0 when unknown.
	File string
	Line int
	// Object is "Kind/namespace/name"; empty if no object is concerned.
	Object string
	// Err says what is wrong.
	Err error
	// Remedy says what to do in one line; it may be empty.
	Remedy string
}

// Error returns "<kustomization>: <file>:<line>: <object>: <what is wrong>",
// without the parts that are unknown.
func (e *Error) Error() string {
	parts := []string{e.Kustomization.String()}
	switch {
	case e.File != "" && e.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d", e.File, e.Line))
	case e.File != "":
		parts = append(parts, e.File)
	}
	if e.Object != "" {
		parts = append(parts, e.Object)
	}
	return strings.Join(append(parts, e.Err.Error()), ": ")
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// Hint returns the remedy.
func (e *Error) Hint() string { return e.Remedy }

// MissingError says that an object of substituteFrom that is not optional
// exists neither in the run nor in the cluster (S3.7). Something earlier in
// the run may yet create it.
type MissingError struct {
	Kind      string
	Namespace string
	Name      string
}

// Error returns Flux's text for it.
func (e *MissingError) Error() string {
	return fmt.Sprintf("substitute from '%s/%s' error: not found in namespace %q", e.Kind, e.Name, e.Namespace)
}

// All returns every *Error that err holds, in order.
func All(err error) []*Error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Error
		for _, e := range many.Unwrap() {
			all = append(all, All(e)...)
		}
		return all
	}
	var one *Error
	if errors.As(err, &one) {
		return []*Error{one}
	}
	return nil
}

// Missing returns the objects that err says are missing, in order. It is nil
// if anything else is wrong too, since that cannot be waited for.
func Missing(err error) []*MissingError {
	var missing []*MissingError
	for _, e := range All(err) {
		var m *MissingError
		if !errors.As(e, &m) {
			return nil
		}
		missing = append(missing, m)
	}
	return missing
}

func join(problems []*Error) error {
	slices.SortStableFunc(problems, func(a, b *Error) int {
		return cmp.Or(
			strings.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line),
			strings.Compare(a.Object, b.Object),
			strings.Compare(a.Err.Error(), b.Err.Error()),
		)
	})
	var errs []error
	for _, p := range problems {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}
