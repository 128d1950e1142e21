package inventory

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// AccessError says which permission is missing for a request. Its text holds everything a Role needs.
type AccessError struct {
	// Doing is what was tried, such as "read the records of root \"flux-system/flux-system\"".
	Doing string
	// Verb, Resource and Namespace are those of the rule that is missing; Namespace is empty for the whole cluster.
	Verb      string
	Resource  schema.GroupResource
	Namespace string
	// Err is the server's answer.
	Err error
}

func (e *AccessError) Error() string {
	return fmt.Sprintf("cannot %s: not allowed to %s %s %s: %v", e.Doing, e.Verb, e.Resource, e.where(), e.Err)
}

// Unwrap returns the server's answer.
func (e *AccessError) Unwrap() error { return e.Err }

// Hint is the rule to add.
func (e *AccessError) Hint() string {
	return fmt.Sprintf("grant the verb %q on the resource %q of API group %q %s to the account that sluice runs as",
		e.Verb, e.Resource.Resource, e.Resource.Group, e.where())
}

func (e *AccessError) where() string {
	if e.Namespace == "" {
		return "in the whole cluster"
	}
	return fmt.Sprintf("in namespace %q", e.Namespace)
}

// Access wraps the error of a request: with the missing permission if the server refused it, else with what was tried. A nil err
// stays nil.
func Access(err error, doing, verb string, resource schema.GroupResource, namespace string) error {
	switch {
	case err == nil:
		return nil
	case forbidden(err):
		return &AccessError{Doing: doing, Verb: verb, Resource: resource, Namespace: namespace, Err: err}
	}
	return fmt.Errorf("cannot %s: %w", doing, err)
}

// forbidden leaves out the answers that have the same code and are no question of permission: a namespace that is being deleted,
// a quota, an admission plugin.
func forbidden(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot ")
}
