package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Request is one request as it came by.
type Request struct {
	// N counts from 1, in order of arrival.
	N int
	// Verb is one of [Verbs].
	Verb string
	// Method, Path and Query are those of the URL.
	Method, Path string
	Query        url.Values
	// Group, Resource, Namespace, Name and Subresource say what it is about, as far as the path tells; Resource is the plural in
	// lower case, empty for discovery, OpenAPI, /version and the like.
	Group, Resource, Namespace, Name, Subresource string
	// User is who is impersonated, empty for nobody.
	User string
	// Up and Down are the bytes of the bodies so far, Code the status of the answer; 0 while there is none, and if none got
	// through to the client. Done is set when the request is over. Of a request that a [Recorder] saw inside a client only Code
	// is known.
	Up, Down int64
	Code     int
	Done     bool
}

// Verbs are the verbs of requests, in the order in which people tell them. All but the last three are Kubernetes' own. An apply
// is a server-side one; a dry run is no other, whatever its verb, and writes nothing; a review asks who one is or what one may
// do, which is a POST that writes nothing; discovery is what is not about a resource.
var Verbs = []string{"get", "list", "watch", "create", "update", "patch", "apply", "delete", "dry-run", "review", "discovery"}

// Writes reports whether the request is to change something in the cluster.
func (r Request) Writes() bool {
	switch r.Verb {
	case "create", "update", "patch", "apply", "delete":
		return true
	}
	return false
}

// String is the method and the path, and what makes a GET a watch or a request a dry run.
func (r Request) String() string {
	text := r.Method + " " + r.Path
	if r.Verb == "watch" || r.Verb == "dry-run" {
		text += " (" + r.Verb + ")"
	}
	return text
}

// Describe says what a request is. Its N is 0.
func Describe(r *http.Request) Request {
	q := Request{Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), User: r.Header.Get("Impersonate-User")}
	q.locate()
	q.Verb = q.verb(r.Header.Get("Content-Type"))
	return q
}

// locate reads the path: /api/VERSION/… or /apis/GROUP/VERSION/…, then namespaces/NAMESPACE/ for what is in one, then
// RESOURCE[/NAME[/SUBRESOURCE]].
func (r *Request) locate() {
	segments := strings.Split(strings.Trim(r.Path, "/"), "/")
	switch {
	case segments[0] == "api" && len(segments) > 2:
		segments = segments[2:]
	case segments[0] == "apis" && len(segments) > 3:
		r.Group, segments = segments[1], segments[3:]
	default:
		return
	}
	// A Namespace's own subresources look like a resource in it.
	if segments[0] == "namespaces" && len(segments) > 2 && !slices.Contains([]string{"status", "finalize"}, segments[2]) {
		r.Namespace, segments = segments[1], segments[2:]
	}
	r.Resource = segments[0]
	if len(segments) > 1 {
		r.Name = segments[1]
	}
	if len(segments) > 2 {
		r.Subresource = strings.Join(segments[2:], "/")
	}
}

func (r *Request) verb(contentType string) string {
	switch {
	case r.Group == "authentication.k8s.io" || r.Group == "authorization.k8s.io":
		return "review"
	case r.Query.Has("dryRun"):
		return "dry-run"
	case (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Resource == "":
		return "discovery"
	case r.Method == http.MethodGet && isTrue(r.Query.Get("watch")):
		return "watch"
	case r.Method == http.MethodGet && r.Name == "":
		return "list"
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return "get"
	case r.Method == http.MethodPatch && strings.HasPrefix(contentType, "application/apply-patch+"):
		return "apply"
	case r.Method == http.MethodPatch:
		return "patch"
	case r.Method == http.MethodPut:
		return "update"
	case r.Method == http.MethodDelete:
		return "delete"
	}
	return "create"
}

func isTrue(value string) bool { return value == "1" || value == "true" }

// Recorder writes requests down. The zero value is ready.
type Recorder struct {
	mu       sync.Mutex
	sent     int
	requests []*Request
	// underWay is how many requests are; idle, if not nil, is closed when there is none.
	underWay int
	idle     chan struct{}
}

func (r *Recorder) add(q Request) *Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent++
	q.N = r.sent
	r.requests = append(r.requests, &q)
	r.underWay++
	return &q
}

// done notes that a request is over.
func (r *Recorder) done(q *Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q.Done = true
	if r.underWay--; r.underWay == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}

// AwaitIdle returns when no request is under way; with the cause if ctx ends before.
func (r *Recorder) AwaitIdle(ctx context.Context) error {
	r.mu.Lock()
	if r.underWay == 0 {
		r.mu.Unlock()
		return nil
	}
	if r.idle == nil {
		r.idle = make(chan struct{})
	}
	idle := r.idle
	r.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("requests are still under way: %w", context.Cause(ctx))
	}
}

// edit changes what is known of a request.
func (r *Recorder) edit(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// Requests returns the requests that have come since the last Take, in order of arrival.
func (r *Recorder) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.copies()
}

// Take returns the same and forgets them; the numbers go on.
func (r *Recorder) Take() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.copies()
	r.requests = nil
	return taken
}

func (r *Recorder) copies() []Request {
	var out []Request
	for _, q := range r.requests {
		out = append(out, *q)
	}
	return out
}

// Wrap records in the client itself, for clients in this process: pass it to rest.Config.Wrap. It costs a client about a
// microsecond per request.
func (r *Recorder) Wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(q *http.Request) (*http.Response, error) {
		request := r.add(Describe(q))
		resp, err := next.RoundTrip(q)
		if err == nil {
			r.edit(func() { request.Code = resp.StatusCode })
		}
		r.done(request)
		return resp, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Count returns how many of the requests there are of each verb.
func Count(requests []Request) map[string]int {
	n := map[string]int{}
	for _, r := range requests {
		n[r.Verb]++
	}
	return n
}

// Writing returns those of the requests that are to change something, each as its String.
func Writing(requests []Request) []string {
	var writing []string
	for _, r := range requests {
		if r.Writes() {
			writing = append(writing, r.String())
		}
	}
	return writing
}
