package plan

import (
	"errors"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
)

// Class says what kind of failure a plan met.
type Class string

// The classes.
const (
	// Invalid: the server does not accept the object as it is written.
	Invalid Class = "invalid"
	// Forbidden: the user may not read or write it.
	Forbidden Class = "forbidden"
	// Failed: the server could not be asked, or failed itself.
	Failed Class = "failed"
)

// ObjectError is an object that could not be planned.
type ObjectError struct {
	Node  flux.ID
	Ref   flux.Ref
	File  string
	Class Class
	// Err is the failure; its text begins with the object (S4.48).
	Err  error
	hint string
}

// Error names the Kustomization and the file, then says what Flux says.
func (e *ObjectError) Error() string {
	text := e.Node.String() + ": "
	if e.File != "" {
		text += e.File + ": "
	}
	return text + e.Err.Error()
}

// Hint is the remedy, if one is known, in one line.
func (e *ObjectError) Hint() string { return e.hint }

// Unwrap gives the failure; errors of the API server can be found in it.
func (e *ObjectError) Unwrap() error { return e.Err }

// Errors is everything that keeps a plan from being carried out, in the order
// of the nodes and, within one, of the objects. It is never empty.
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

// Class is Failed if any failure is, since then nothing is known for certain,
// else Forbidden if any is, else Invalid.
func (e Errors) Class() Class {
	class := Invalid
	for _, err := range e {
		switch {
		case err.Class == Failed:
			return Failed
		case err.Class == Forbidden:
			class = Forbidden
		}
	}
	return class
}

func classOf(err error) Class {
	var status apierrors.APIStatus
	switch {
	case rehearse.IsUnknownResource(err), rehearse.IsUnplaced(err):
		return Invalid
	case !errors.As(err, &status):
		return Failed
	}
	switch s := status.Status(); {
	case s.Code == http.StatusUnauthorized, s.Code == http.StatusForbidden && strings.Contains(s.Message, " cannot "):
		return Forbidden
	case s.Code >= http.StatusInternalServerError, s.Code == http.StatusTooManyRequests, s.Code == 0:
		// A schema error of server-side apply comes as a server error.
		if faults.IsSchema(err) {
			return Invalid
		}
		return Failed
	}
	return Invalid
}
