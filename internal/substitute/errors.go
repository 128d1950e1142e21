package substitute

import (
	"errors"
	"fmt"

	"github.com/sluicerun/sluice/internal/flux"
)

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

// Missing returns the objects that err says are missing, in order. It is nil
// if anything else is wrong too, since that cannot be waited for.
func Missing(err error) []*MissingError {
	var missing []*MissingError
	for _, e := range flux.Problems(err) {
		var m *MissingError
		if !errors.As(e, &m) {
			return nil
		}
		missing = append(missing, m)
	}
	return missing
}
