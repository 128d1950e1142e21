package inventory

import (
	"errors"
	"fmt"
	"regexp"
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
	// User is whom the server refused, as it names it; empty if it names nobody.
	User string
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
	account := "the account that sluice runs as"
	if name, ok := strings.CutPrefix(e.User, "system:serviceaccount:"); ok {
		account = "ServiceAccount " + strings.Replace(name, ":", "/", 1)
	}
	return fmt.Sprintf("grant the verb %q on the resource %q of API group %q %s to %s",
		e.Verb, e.Resource.Resource, e.Resource.Group, e.where(), account)
}

func (e *AccessError) where() string {
	if e.Namespace == "" {
		return "in the whole cluster"
	}
	return fmt.Sprintf("in namespace %q", e.Namespace)
}

// Access wraps the error of a request: with the missing permission if the server refused it, else with what was tried. The
// permission is the one that the server names, which can be another than that of the request, to impersonate for instance; verb,
// resource and namespace are used if it names none. A nil err stays nil.
func Access(err error, doing, verb string, resource schema.GroupResource, namespace string) error {
	var named *AccessError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &named), !forbidden(err):
		return fmt.Errorf("cannot %s: %w", doing, err)
	}
	access := &AccessError{Doing: doing, Verb: verb, Resource: resource, Namespace: namespace, Err: err}
	if m := refusal.FindStringSubmatch(err.Error()); m != nil {
		access.User, access.Verb, access.Resource, access.Namespace = m[1], m[2], schema.GroupResource{Group: m[4], Resource: m[3]}, m[5]
	}
	return access
}

// refusal is how the API server words a missing permission.
var refusal = regexp.MustCompile(`(?:User "([^"]*)")? cannot (\S+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]+)")?`)

// forbidden leaves out the answers that have the same code and are no question of permission: a namespace that is being deleted,
// a quota, an admission plugin.
func forbidden(err error) bool {
	return apierrors.IsForbidden(err) && refusal.MatchString(err.Error())
}
