package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func status(code int32, message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Message: message}}
}

func TestTransient(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	field := apierrors.NewConflict(pods, "p", errors.New("owned"))
	field.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeFieldManagerConflict}}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"nothing":           {nil, false},
		"refused":           {&url.Error{Op: "Get", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, true},
		"reset":             {&url.Error{Op: "Get", Err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}}, true},
		"no such host":      {&url.Error{Op: "Get", Err: &net.OpError{Op: "dial", Err: &net.DNSError{}}}, true},
		"end of connection": {&url.Error{Op: "Get", Err: io.EOF}, true},
		"busy":              {apierrors.NewTooManyRequests("later", 1), true},
		"unavailable":       {apierrors.NewServiceUnavailable("starting"), true},
		"internal":          {apierrors.NewInternalError(errors.New("x")), true},
		"etcd":              {status(500, "etcdserver: request timed out"), true},
		"etcd leader":       {status(0, "etcdserver: leader changed"), true},
		"gateway":           {status(502, "bad gateway"), true},
		"conflict":          {apierrors.NewConflict(pods, "p", errors.New("modified")), true},
		"wrapped":           {fmt.Errorf("x: %w", apierrors.NewServiceUnavailable("starting")), true},
		"field conflict":    {field, false},
		"schema":            {status(500, "failed to create typed patch object (a/b; v1, Kind=X): .spec: field not declared in schema"), false},
		"not found":         {apierrors.NewNotFound(pods, "p"), false},
		"forbidden":         {apierrors.NewForbidden(pods, "p", errors.New("no")), false},
		"unauthorized":      {apierrors.NewUnauthorized("no"), false},
		"bad request":       {apierrors.NewBadRequest("no"), false},
		"cancelled":         {context.Canceled, false},
		"deadline":          {&url.Error{Op: "Get", Err: context.DeadlineExceeded}, false},
		"other":             {errors.New("x509: certificate signed by unknown authority"), false},
	} {
		if got := Transient(tc.err); got != tc.want {
			t.Errorf("%s (%v): %t, want %t", name, tc.err, got, tc.want)
		}
	}
}
