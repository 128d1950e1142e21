// Package faults says of the errors of requests to an API server what they are
// good for: whether the same request is worth another try, whether the server may
// have carried it out, and what a user can do. It is the one place that does;
// everything else asks it.
//
// Who repeats what:
//
//	class     a question, and a write      any other  by whom
//	          that may be sent twice       write
//	NoWay     half a minute                the same   package cluster, each request
//	Lost      half a minute                never      the same
//	Unwell    some twelve seconds          never      the same
//	Busy      three minutes                the same   package cluster, all requests together
//	Conflict  after a new reading          the same   who has read: apply, prune, lock
//	Silent    never                        never
//	Final     never                        never
//
// A write may be sent twice if a second one changes nothing more: a server-side
// apply, and what holds only for one version or UID of the object. What has failed
// with all that fails its Kustomization, which is tried again as a whole
// (--retries), and begins with what is not done yet.
package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// Class is what an error of a request says about another try.
type Class int

const (
	// Final: the answer cannot change by itself (not found, forbidden,
	// invalid), the caller gave up, or there was no error. The zero value.
	Final Class = iota
	// NoWay: there was no connection, so the server has not seen the request.
	NoWay
	// Lost: the connection ended before the whole answer, or there was none
	// in time. The request may have been carried out.
	Lost
	// Unwell: the server itself failed (5xx), or what it asked did: etcd, a
	// webhook, another server. The request may have been carried out.
	Unwell
	// Busy: the server asked to be spared (429) and did nothing.
	Busy
	// Silent: there was no answer in all the time that a request may take. It
	// may have been carried out. The caller has waited long enough.
	Silent
	// Conflict: somebody else changed the object at the same moment. Only a
	// new reading helps.
	Conflict
)

// Of returns the class of an error.
func Of(err error) Class {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// A deadline of the caller says that there is no more time.
		return Final
	case errors.As(err, new(*SilenceError)):
		return Silent
	case apierrors.IsConflict(err):
		// A field manager conflict has the same code and does not pass.
		if _, manager := apierrors.StatusCause(err, metav1.CauseTypeFieldManagerConflict); manager {
			return Final
		}
		return Conflict
	}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		code, message := status.Status().Code, status.Status().Message
		switch {
		case IsSchema(err):
			return Final
		case code == http.StatusTooManyRequests:
			return Busy
		case code >= http.StatusInternalServerError, strings.Contains(message, "etcdserver:"):
			return Unwell
		}
		return Final
	}
	return disconnected(err)
}

// Passing reports whether a failure of this class is worth another try at once.
func (c Class) Passing() bool { return c != Final && c != Silent }

// Outage reports whether it is the server, or the way to it, that fails: what is
// asked for plays no part, and other requests will hardly fare better.
func (c Class) Outage() bool { return c != Final && c != Conflict }

// disconnected is the class of a failure below HTTP.
func disconnected(err error) Class {
	var timeout net.Error
	switch {
	case utilnet.IsConnectionRefused(err), isDial(err):
		return NoWay
	case errors.As(err, new(*LostError)), utilnet.IsConnectionReset(err), utilnet.IsProbableEOF(err), utilnet.IsHTTP2ConnectionLost(err),
		errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &timeout) && timeout.Timeout():
		return Lost
	}
	return Final
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// LostError says that a connection ended before the answer. It hides its cause
// from client-go, which would repeat a GET ten times by itself, once in a second,
// below those who repeat by this package's classes.
type LostError struct{ text string }

// Lose returns err, as a *LostError if it says that a connection was lost.
func Lose(err error) error {
	switch {
	case Of(err) != Lost, errors.As(err, new(*LostError)):
		return err
	case utilnet.IsConnectionReset(err), strings.Contains(err.Error(), "connection reset by peer"):
		return &LostError{"the connection was reset before the answer"}
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return &LostError{err.Error()}
	}
	return &LostError{"the connection ended before the answer"}
}

func (e *LostError) Error() string { return e.text }

// SilenceError says that the server has not answered in the time that a request
// may take.
type SilenceError struct{ After time.Duration }

func (e *SilenceError) Error() string {
	return fmt.Sprintf("the API server has not answered within %s", e.After)
}

// IsSchema reports whether server-side apply could not make sense of an object or
// of its managed fields. Kubernetes answers that with 500 and no reason, as if it
// had failed itself.
func IsSchema(err error) bool {
	text := err.Error()
	return strings.Contains(text, "field not declared in schema") || strings.Contains(text, "failed to create typed") ||
		strings.Contains(text, "unable to convert unstructured object to")
}

// namespaceTerminating is the API server's cause of a refusal in a namespace that
// is being deleted.
const namespaceTerminating metav1.CauseType = "NamespaceTerminating"

// IsTerminating reports whether a request was refused because the namespace is
// being deleted.
func IsTerminating(err error) bool { return apierrors.HasStatusCause(err, namespaceTerminating) }

// webhook is how the API server says that an admission webhook did not answer, or
// not in a way that it can read. One that says no is told otherwise.
var webhook = regexp.MustCompile(`failed calling webhook "([^"]*)"`)

// Webhook returns the name of the admission webhook that did not answer, if that
// is why a request failed.
func Webhook(err error) (name string, ok bool) {
	if err == nil {
		return "", false
	}
	m := webhook.FindStringSubmatch(err.Error())
	if m == nil {
		return "", false
	}
	return m[1], true
}
