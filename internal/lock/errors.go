package lock

import (
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// HeldError says that the lock is somebody else's and stayed so as long as it was waited for.
type HeldError struct {
	// Lease is "Lease/namespace/name".
	Lease string
	// Holder is who has it, as far as the Lease tells.
	Holder Holder
	// Since is when the holder took it by the holder's clock, Age how long ago that was when the error was made.
	Since time.Time
	Age   time.Duration
	// Expires is when the lock frees itself if the holder does not renew it any more, by this machine's clock.
	Expires time.Time
	// Waited is how long this run waited.
	Waited time.Duration
}

func (e *HeldError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the lock %s is held by %s", e.Lease, e.Holder)
	if !e.Since.IsZero() {
		fmt.Fprintf(&b, " for %s", e.Age.Round(time.Second))
	}
	if e.Waited >= time.Second {
		fmt.Fprintf(&b, "; waited %s", e.Waited.Round(time.Second))
	}
	return b.String()
}

// Hint says what to do.
func (e *HeldError) Hint() string {
	return "let that run finish, or wait for it with a longer --lock-wait; the lock of a run that was killed frees itself within seconds"
}

// LostError says why a lock that was held is no longer. Going on to write is not safe.
type LostError struct {
	// Lease is "Lease/namespace/name".
	Lease string
	// By is who took it; zero if nobody is known to have.
	By Holder
	// Err is why it could not be renewed, if that is the reason. It is not unwrapped: that a connection was refused may pass, and is
	// worth another try; this does not.
	Err error
}

func (e *LostError) Error() string {
	switch {
	case e.By.Identity != "":
		return fmt.Sprintf("lost the lock %s to %s", e.Lease, e.By)
	case e.Err != nil:
		return fmt.Sprintf("lost the lock %s: it could not be renewed in time: %v", e.Lease, e.Err)
	}
	return fmt.Sprintf("lost the lock %s: somebody deleted it", e.Lease)
}

// AccessError says which permission is missing for the lock.
type AccessError struct {
	// Lease is "Lease/namespace/name"; Verb is what was refused, in Namespace.
	Lease     string
	Verb      string
	Namespace string
	// Err is the server's answer.
	Err error
}

func (e *AccessError) Error() string {
	return fmt.Sprintf("cannot take the lock %s: not allowed to %s leases.coordination.k8s.io in namespace %q: %v",
		e.Lease, e.Verb, e.Namespace, e.Err)
}

// Unwrap returns the server's answer.
func (e *AccessError) Unwrap() error { return e.Err }

// Hint is the rule to add.
func (e *AccessError) Hint() string {
	return fmt.Sprintf("grant the verbs get, watch, create, update and delete on leases of API group coordination.k8s.io in namespace %q "+
		"to the account that sluice runs as", e.Namespace)
}

// explain wraps the error of a request. Answers with the same code that are no question of permission are left as they are: a
// namespace that is being deleted, an admission plugin.
func (s *session) explain(err error, verb string) error {
	if apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot ") {
		return &AccessError{Lease: s.subject(), Verb: verb, Namespace: s.Namespace, Err: err}
	}
	return fmt.Errorf("cannot %s the lock %s: %w", verb, s.subject(), err)
}
