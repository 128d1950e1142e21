package discover

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluicerun/sluice/internal/flux"
)

// Error is one thing that is wrong with a Kustomization or a source. Split
// returns several of them joined by errors.Join, sorted by file, line and
// field; All takes them apart again.
type Error struct {
	// Kustomization is the one that is wrong; for a source it is the
	// parent whose build holds it.
	Kustomization flux.ID
	// File and Line say where, as a path in the tree; "" and 0 when unknown.
	File string
	Line int
	// Object is "Kind/namespace/name".
	Object string
	// Field is the path of the field, such as "spec.sourceRef.kind"; empty
	// if it is no single field.
	Field string
	// Err says what is wrong.
	Err error
	// Remedy says what to do in one line; it may be empty.
	Remedy string
}

// Error returns "<file>:<line>: <object>: <field>: <what is wrong>", without
// the parts that are unknown.
func (e *Error) Error() string {
	var parts []string
	switch {
	case e.File != "" && e.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d", e.File, e.Line))
	case e.File != "":
		parts = append(parts, e.File)
	}
	parts = append(parts, e.Object)
	if e.Field != "" {
		parts = append(parts, e.Field)
	}
	return strings.Join(append(parts, e.Err.Error()), ": ")
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// Hint returns the remedy.
func (e *Error) Hint() string { return e.Remedy }

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

func join(problems []*Error) error {
	slices.SortStableFunc(problems, func(a, b *Error) int {
		return cmp.Or(
			strings.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line),
			strings.Compare(a.Object, b.Object),
			strings.Compare(a.Field, b.Field),
			strings.Compare(a.Err.Error(), b.Err.Error()),
		)
	})
	var errs []error
	for _, p := range problems {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}
