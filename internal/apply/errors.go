package apply

import (
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sluicerun/sluice/internal/flux"
)

// ObjectError is the failure of one object.
type ObjectError struct {
	// Ref is the object, File the manifest it came from.
	Ref  flux.Ref
	File string
	// Err is the failure; its text begins with the object (S4.48).
	Err  error
	hint string
}

// Error is the file, if known, and the text of S4.48.
func (e *ObjectError) Error() string {
	if e.File == "" {
		return e.Err.Error()
	}
	return e.File + ": " + e.Err.Error()
}

// Hint is the remedy, if one is known, in one line.
func (e *ObjectError) Hint() string { return e.hint }

// Unwrap gives the failure; errors of the API server can be found in it.
func (e *ObjectError) Unwrap() error { return e.Err }

// Errors is every failure of a stage, in apply order. It is never empty.
type Errors []*ObjectError

// Error is one line for each failure.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the failures, for errors.Is and errors.As.
func (e Errors) Unwrap() []error {
	list := make([]error, len(e))
	for i, err := range e {
		list[i] = err
	}
	return list
}

// Hint is the hint of the first failure that has one.
func (e Errors) Hint() string {
	for _, err := range e {
		if err.hint != "" {
			return err.hint
		}
	}
	return ""
}

// queryError is the text for an object that could not be read.
func queryError(ref flux.Ref, err error) error {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) || !strings.HasPrefix(err.Error(), ref.String()) {
		return fmt.Errorf("%s query failed: %w", ref, err)
	}
	return err
}
