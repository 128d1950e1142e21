package build

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluicerun/sluice/internal/flux"
)

// Error is one reason why a Kustomization cannot be built. Build returns
// several of them joined by errors.Join, sorted by file and line; All takes
// them apart again.
type Error struct {
	// Kustomization is whose build failed.
	Kustomization flux.ID
	// File and Line say where, as a path in the tree; "" and 0 when unknown.
	File string
	Line int
	// Object is "Kind/namespace/name" when one object is at fault.
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

// All returns every *Error that err holds, in order.
func All(err error) []*Error {
	var one *Error
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Error
		for _, e := range many.Unwrap() {
			all = append(all, All(e)...)
		}
		return all
	}
	if errors.As(err, &one) {
		return []*Error{one}
	}
	return nil
}

// join sorts problems, drops repeated ones and makes one error of them; nil
// if there are none.
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
	last := ""
	for _, p := range problems {
		if text := p.Error(); text != last {
			errs, last = append(errs, p), text
		}
	}
	return errors.Join(errs...)
}

// oneLine removes the mount point and the line breaks from kustomize's text.
func oneLine(text string) string {
	text = strings.ReplaceAll(text, mount+"/", "")
	text = strings.ReplaceAll(text, mount, ".")
	return strings.Join(strings.Fields(text), " ")
}
