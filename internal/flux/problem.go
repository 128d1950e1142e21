package flux

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with what a repository holds: told so that
// a reader finds the place and knows what to do. It is an error; stages return
// several of them joined by JoinProblems, and Problems takes those apart again.
type Problem struct {
	// Kustomization is whose build, variables or declaration it is.
	Kustomization ID
	// File and Line say where, as a path in the tree; "" and 0 when unknown.
	File string
	Line int
	// Object is "Kind/namespace/name" when one object is at fault.
	Object string
	// Field is the path of a field, such as "spec.sourceRef.kind"; empty if
	// it is no single field.
	Field string
	// Err says what is wrong.
	Err error
	// Remedy says what to do in one line; it may be empty.
	Remedy string
}

// Error returns "<kustomization>: <file>:<line>: <object>: <field>: <what is
// wrong>", without what is unknown, and without the Kustomization if it is
// itself the object.
func (p *Problem) Error() string {
	var parts []string
	if p.Kustomization.Namespace != "" && p.Object != KustomizationKind+"/"+p.Kustomization.String() {
		parts = append(parts, p.Kustomization.String())
	}
	switch {
	case p.File != "" && p.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d", p.File, p.Line))
	case p.File != "":
		parts = append(parts, p.File)
	}
	return strings.Join(append(parts, p.Text()), ": ")
}

// Text is what is wrong without the place: "<object>: <field>: <what is wrong>".
func (p *Problem) Text() string {
	var parts []string
	for _, part := range []string{p.Object, p.Field} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(append(parts, p.Err.Error()), ": ")
}

// Unwrap returns what is wrong.
func (p *Problem) Unwrap() error { return p.Err }

// Hint returns the remedy.
func (p *Problem) Hint() string { return p.Remedy }

// Problems returns every Problem that err holds, in order.
func Problems(err error) []*Problem {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Problem
		for _, e := range many.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	var one *Problem
	if errors.As(err, &one) {
		return []*Problem{one}
	}
	return nil
}

// JoinProblems sorts problems by place and text, drops repeated ones and joins
// them; nil if there are none. It sorts the slice that it is given.
func JoinProblems(problems []*Problem) error {
	slices.SortStableFunc(problems, func(a, b *Problem) int {
		return cmp.Or(
			strings.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line),
			strings.Compare(a.Object, b.Object),
			strings.Compare(a.Field, b.Field),
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
