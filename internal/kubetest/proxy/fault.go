package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Fault says which requests fail, and how.
type Fault struct {
	// Match selects requests; nil means all. It is called under the proxy's lock and must not call the proxy.
	Match func(Request) bool
	// Skip is how many matching requests pass first; Times how many fail then, 0 for all that follow.
	Skip, Times int
	// Do is what happens to them.
	Do Action
}

// To matches requests by verb (see [Verbs]) and resource; "" matches any.
func To(verb, resource string) func(Request) bool {
	return func(r Request) bool {
		return (verb == "" || r.Verb == verb) && (resource == "" || r.Resource == resource)
	}
}

// Nth matches every request, skips n-1 of them, and fails one: the n-th that comes, counted from 1 and from now on.
func Nth(n int, do Action) Fault { return Fault{Skip: n - 1, Times: 1, Do: do} }

// Action is what happens to a request. Those of this package are all there are.
type Action struct {
	// before acts on a request that has not been forwarded. An answer, or an error, is the end of it.
	before func(ctx context.Context, r Request, a *Active) (*http.Response, error)
	// after acts on the server's answer.
	after func(*http.Response) error
	// stream changes the answer's body as it passes.
	stream func(Request, *http.Response)
	// ends is set if before always is the end of the request, plain if after or stream needs the body uncompressed.
	ends, plain bool
}

// errCut ends the connection to the client.
var errCut = errors.New("cut")

// Cut ends the connection before the server has seen the request.
//
// Go's HTTP client repeats a GET by itself, once, if the connection that ends was used before; so a test that wants to see a GET
// fail sets Times to more than one.
func Cut() Action {
	return Action{ends: true, before: func(context.Context, Request, *Active) (*http.Response, error) { return nil, errCut }}
}

// CutAfter ends the connection when the server has answered, before the client has heard a word of it.
func CutAfter() Action { return Action{after: func(*http.Response) error { return errCut }} }

// Truncate ends the connection after so many bytes of the answer's body.
func Truncate(bytes int64) Action {
	return Action{after: func(resp *http.Response) error {
		resp.Body = &shortBody{body: resp.Body, left: bytes}
		return nil
	}}
}

// Lines passes the answer on line by line through change, which returns what is sent in place of a line: it may drop it, repeat
// it, or hold it back by returning late. The events of a watch are lines. Lines of one answer come one after the other, those of
// several at once.
func Lines(change func(r Request, line []byte) [][]byte) Action {
	return Action{plain: true, stream: func(r Request, resp *http.Response) {
		resp.Body = &lineBody{body: resp.Body, lines: bufio.NewReader(resp.Body), change: func(line []byte) [][]byte { return change(r, line) }}
		resp.ContentLength = -1
		resp.Header.Del("Content-Length")
	}}
}

type lineBody struct {
	body    io.Closer
	lines   *bufio.Reader
	change  func([]byte) [][]byte
	pending []byte
	err     error
}

func (b *lineBody) Read(p []byte) (int, error) {
	for len(b.pending) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		var line []byte
		if line, b.err = b.lines.ReadBytes('\n'); len(line) > 0 {
			b.pending = bytes.Join(b.change(line), nil)
		}
	}
	n := copy(p, b.pending)
	b.pending = b.pending[n:]
	return n, nil
}

func (b *lineBody) Close() error { return b.body.Close() }

type shortBody struct {
	body io.ReadCloser
	left int64
}

func (b *shortBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errCut
	}
	n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func (b *shortBody) Close() error { return b.body.Close() }

// Answer answers with an HTTP status code, as the API server words it; with a Retry-After header if that is more than 0 seconds.
func Answer(code, retryAfter int) Action {
	return Action{ends: true, before: func(_ context.Context, r Request, _ *Active) (*http.Response, error) {
		status := apierrors.NewGenericServerResponse(code, r.Method, schema.GroupResource{Group: r.Group, Resource: r.Resource}, r.Name,
			"made by the test's proxy", retryAfter, true).Status()
		status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		body, err := json.Marshal(status)
		if err != nil {
			return nil, fmt.Errorf("encode a status: %w", err)
		}
		resp := response(code, "application/json", body)
		if retryAfter > 0 {
			resp.Header.Set("Retry-After", strconv.Itoa(retryAfter))
		}
		return resp, nil
	}}
}

// Reply answers with the given code, type and body.
func Reply(code int, contentType string, body []byte) Action {
	return Action{ends: true, before: func(context.Context, Request, *Active) (*http.Response, error) {
		return response(code, contentType, body), nil
	}}
}

func response(code int, contentType string, body []byte) *http.Response {
	return &http.Response{StatusCode: code, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {contentType}},
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body))}
}

// Rewrite changes the body of the server's answer. It is not for watches: it reads the whole body first.
func Rewrite(change func(body []byte) []byte) Action {
	return Action{plain: true, after: func(resp *http.Response) error {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		if err := resp.Body.Close(); err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		body = change(body)
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
		return nil
	}}
}

// Warn adds a warning to the server's answer, as the API server does for what is deprecated.
func Warn(text string) Action {
	return Action{after: func(resp *http.Response) error {
		resp.Header.Add("Warning", fmt.Sprintf("299 - %q", text))
		return nil
	}}
}

// Delay forwards the request after d, or not at all if the client leaves before.
func Delay(d time.Duration) Action {
	return Action{before: func(ctx context.Context, _ Request, _ *Active) (*http.Response, error) {
		select {
		case <-time.After(d):
			return nil, nil
		case <-ctx.Done():
			return nil, errCut
		}
	}}
}

// Hang holds requests until [Active.Release] or the end of the proxy, or until the client leaves.
func Hang() Action {
	return Action{before: func(ctx context.Context, _ Request, a *Active) (*http.Response, error) {
		select {
		case <-a.released:
			return nil, nil
		case <-ctx.Done():
			return nil, errCut
		}
	}}
}

// Call calls a function, and forwards the request when it returns.
func Call(f func(Request)) Action {
	return Action{before: func(_ context.Context, r Request, _ *Active) (*http.Response, error) {
		f(r)
		return nil, nil
	}}
}

// Active is a fault that a proxy has.
type Active struct {
	fault    Fault
	released chan struct{}
	release  sync.Once
	lift     func(*Active)

	// The rest is guarded by the faults' lock.
	matched, hits int
	changed       chan struct{} // closed and made anew at each hit
	mu            *sync.Mutex
}

// Hits returns how many requests the fault has struck.
func (a *Active) Hits() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hits
}

// Await returns when the fault has struck n requests; with the cause if ctx ends before.
func (a *Active) Await(ctx context.Context, n int) error {
	for {
		a.mu.Lock()
		hits, changed := a.hits, a.changed
		a.mu.Unlock()
		if hits >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the fault has struck %d of %d requests: %w", hits, n, context.Cause(ctx))
		}
	}
}

// Release lets the requests go on that hang, and those that would.
func (a *Active) Release() { a.release.Do(func() { close(a.released) }) }

// Lift ends the fault: later requests are not struck. Those that hang go on.
func (a *Active) Lift() {
	a.lift(a)
	a.Release()
}

// faults are those of a proxy, in the order of their making.
type faults struct {
	mu  sync.Mutex
	all []*Active
}

func (f *faults) add(fault Fault) *Active {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := &Active{fault: fault, released: make(chan struct{}), changed: make(chan struct{}), mu: &f.mu}
	a.lift = func(a *Active) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.all = slices.DeleteFunc(f.all, func(other *Active) bool { return other == a })
	}
	f.all = append(f.all, a)
	return a
}

// strike returns the faults that strike a request: each counts it if it matches, up to the first that ends it.
func (f *faults) strike(r Request) []*Active {
	f.mu.Lock()
	defer f.mu.Unlock()
	var struck []*Active
	ended := false
	for _, a := range f.all {
		if a.fault.Match != nil && !a.fault.Match(r) {
			continue
		}
		a.matched++
		due := a.matched > a.fault.Skip && (a.fault.Times == 0 || a.matched <= a.fault.Skip+a.fault.Times)
		if ended || !due {
			continue
		}
		a.hits++
		close(a.changed)
		a.changed = make(chan struct{})
		struck = append(struck, a)
		ended = a.fault.Do.ends
	}
	return struck
}

func (f *faults) releaseAll() {
	f.mu.Lock()
	all := slices.Clone(f.all)
	f.mu.Unlock()
	for _, a := range all {
		a.Release()
	}
}
