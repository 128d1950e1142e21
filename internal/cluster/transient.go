package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// Transient reports whether a failure may pass by itself, so that the same
// work is worth another try: the connection was refused or broke, the server
// is busy (429), it failed itself (5xx, "etcdserver: …"), or somebody else
// changed the object at the same moment (conflict).
//
// An answer that cannot change (not found, forbidden, invalid) is not
// transient, nor is the end of the caller's own context: its deadline says
// that there is no more time.
func Transient(err error) bool {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case apierrors.IsConflict(err):
		// A field manager conflict has the same code and does not pass.
		_, manager := apierrors.StatusCause(err, metav1.CauseTypeFieldManagerConflict)
		return !manager
	}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		code, message := status.Status().Code, status.Status().Message
		if isSchemaError(message) {
			return false
		}
		return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError || strings.Contains(message, "etcdserver:")
	}
	return Disconnected(err)
}

// isSchemaError reports whether server-side apply could not make sense of an
// object. Kubernetes answers that with 500, as if it had failed itself.
func isSchemaError(message string) bool {
	return strings.Contains(message, "failed to create typed") || strings.Contains(message, "field not declared in schema") ||
		strings.Contains(message, "unable to convert unstructured object to")
}

// Disconnected reports whether a request failed below HTTP: no connection, a
// broken one, or no answer in time.
func Disconnected(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var timeout net.Error
	return utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) || utilnet.IsProbableEOF(err) ||
		utilnet.IsHTTP2ConnectionLost(err) || errors.Is(err, io.ErrUnexpectedEOF) ||
		(errors.As(err, &timeout) && timeout.Timeout()) || isDial(err)
}

// notSent reports whether the server cannot have carried out the request:
// what a write that must not happen twice may be repeated after.
func notSent(err error) bool {
	return utilnet.IsConnectionRefused(err) || isDial(err)
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
