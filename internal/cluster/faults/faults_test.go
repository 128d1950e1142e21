package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

func status(code int32, message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Message: message}}
}

func TestOf(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	field := apierrors.NewConflict(pods, "p", errors.New("owned"))
	field.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeFieldManagerConflict}}
	for name, tc := range map[string]struct {
		err  error
		want Class
	}{
		"nothing":           {nil, Final},
		"refused":           {&url.Error{Op: "Get", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, NoWay},
		"reset":             {&url.Error{Op: "Get", Err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}}, Lost},
		"no such host":      {&url.Error{Op: "Get", Err: &net.OpError{Op: "dial", Err: &net.DNSError{}}}, NoWay},
		"end of connection": {&url.Error{Op: "Get", Err: io.EOF}, Lost},
		"busy":              {apierrors.NewTooManyRequests("later", 1), Busy},
		"unavailable":       {apierrors.NewServiceUnavailable("starting"), Unwell},
		"internal":          {apierrors.NewInternalError(errors.New("x")), Unwell},
		"etcd":              {status(500, "etcdserver: request timed out"), Unwell},
		"etcd leader":       {status(0, "etcdserver: leader changed"), Unwell},
		"gateway":           {status(502, "bad gateway"), Unwell},
		"conflict":          {apierrors.NewConflict(pods, "p", errors.New("modified")), Conflict},
		"wrapped":           {fmt.Errorf("x: %w", apierrors.NewServiceUnavailable("starting")), Unwell},
		"field conflict":    {field, Final},
		"schema":            {status(500, "failed to create typed patch object (a/b; v1, Kind=X): .spec: field not declared in schema"), Final},
		"not found":         {apierrors.NewNotFound(pods, "p"), Final},
		"forbidden":         {apierrors.NewForbidden(pods, "p", errors.New("no")), Final},
		"unauthorized":      {apierrors.NewUnauthorized("no"), Final},
		"bad request":       {apierrors.NewBadRequest("no"), Final},
		"cancelled":         {context.Canceled, Final},
		"deadline":          {&url.Error{Op: "Get", Err: context.DeadlineExceeded}, Final},
		"silence":           {&url.Error{Op: "Get", Err: &SilenceError{After: time.Minute}}, Silent},
		"cut short":         {fmt.Errorf("reading the body: %w", io.ErrUnexpectedEOF), Lost},
		"other":             {errors.New("x509: certificate signed by unknown authority"), Final},
	} {
		if got := Of(tc.err); got != tc.want {
			t.Errorf("%s (%v): %d, want %d", name, tc.err, got, tc.want)
		}
	}
}

// What client-go would repeat by itself it does not know any more, and the class stays what it was.
func TestLose(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		lost bool
	}{
		"reset":         {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, true},
		"end":           {io.EOF, true},
		"end within":    {io.ErrUnexpectedEOF, true},
		"broken":        {errors.New("http: can't write HTTP request on broken connection"), true},
		"told to go":    {errors.New("http2: server sent GOAWAY and closed the connection; LastStreamID=1"), true},
		"lost":          {errors.New("http2: client connection lost"), true},
		"closed":        {errors.New("read tcp: use of closed network connection"), true},
		"no answer":     {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, true},
		"refused":       {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, false},
		"unknown":       {errors.New("x509: certificate signed by unknown authority"), false},
		"the caller":    {context.Canceled, false},
		"the time":      {context.DeadlineExceeded, false},
		"told already":  {&LostError{"x"}, false},
		"silence":       {&SilenceError{After: time.Second}, false},
		"nothing wrong": {nil, false},
	} {
		before, after := Of(tc.err), Lose(tc.err)
		if (after != tc.err) != tc.lost || Of(after) != before {
			t.Errorf("%s: %v of class %d, before %d", name, after, Of(after), before)
		}
		wrapped := &url.Error{Op: "Get", URL: "https://server/", Err: after}
		if tc.lost && (utilnet.IsConnectionReset(wrapped) || utilnet.IsProbableEOF(wrapped) || utilnet.IsHTTP2ConnectionLost(wrapped) || utilnet.IsTimeout(wrapped)) {
			t.Errorf("%s: client-go would repeat %v", name, after)
		}
	}
}

func TestAdvice(t *testing.T) {
	dying := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "p", errors.New("because it is being terminated"))
	dying.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseType(corev1.NamespaceTerminatingCause)}}
	for name, tc := range map[string]struct {
		err     error
		trouble Trouble
		hint    string
	}{
		"webhook": {fmt.Errorf("x: %w", status(500, `Internal error occurred: failed calling webhook "a.example.com": failed to call webhook: Post "https://a": EOF`)),
			WebhookDown, `"a.example.com"`},
		"namespace":  {dying, NamespaceGoing, "finalizers"},
		"away":       {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, NoTrouble, "API server is up"},
		"lost":       {&LostError{"x"}, NoTrouble, "API server is up"},
		"silent":     {&SilenceError{After: time.Second}, NoTrouble, "API server is up"},
		"etcd":       {status(500, "etcdserver: leader changed"), NoTrouble, "etcd"},
		"busy":       {apierrors.NewTooManyRequests("later", 1), NoTrouble, "busy"},
		"denied":     {status(403, `admission webhook "a.example.com" denied the request: no`), NoTrouble, ""},
		"not found":  {apierrors.NewNotFound(schema.GroupResource{}, "x"), NoTrouble, ""},
		"conflict":   {apierrors.NewConflict(schema.GroupResource{}, "x", errors.New("modified")), NoTrouble, ""},
		"the caller": {context.Canceled, NoTrouble, ""},
		"no error":   {nil, NoTrouble, ""},
	} {
		trouble, hint := Advice(tc.err)
		if trouble != tc.trouble || !strings.Contains(hint, tc.hint) || (hint == "") != (tc.hint == "") {
			t.Errorf("%s: %d, %q", name, trouble, hint)
		}
	}
}
