//go:build unix

package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sluicerun/sluice/internal/kubetest"
)

// verbs in the order in which they are told. All but the last two are
// Kubernetes' own; an apply is a server-side one. A dry run is none of the
// others, whatever its verb: it writes nothing.
var verbs = []string{"get", "list", "watch", "create", "update", "patch", "apply", "delete", "dry-run", "discovery"}

// counts are requests by verb.
type counts map[string]int

func (c counts) total() int {
	n := 0
	for _, requests := range c {
		n += requests
	}
	return n
}

// String tells all verbs that occurred, such as "list 7, apply 2000".
func (c counts) String() string {
	var parts []string
	for _, verb := range verbs {
		if c[verb] > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", verb, thousands(c[verb])))
		}
	}
	return strings.Join(parts, ", ")
}

// request is one that was sent.
type request struct{ verb, path string }

// counter records what one client sends. The API server's own metrics cannot
// tell that client's requests from those of the controllers. It is safe for
// concurrent use.
type counter struct {
	mu       sync.Mutex
	requests []request
}

func (c *counter) add(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, request{verbOf(r), r.URL.Path})
}

// take returns what was sent since the last call.
func (c *counter) take() []request {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.requests
	c.requests = nil
	return taken
}

func byVerb(requests []request) counts {
	c := counts{}
	for _, r := range requests {
		c[r.verb]++
	}
	return c
}

// wrap counts in the client itself, for clients in this process. It costs them
// less than a microsecond per request.
func (c *counter) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		c.add(r)
		return next.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// proxy stands in front of an API server and counts, for clients that are
// processes of their own. It takes some of the machine that the client and
// the server would have, so what is counted is not timed.
type proxy struct {
	counter
	kubeconfig string
	server     *httptest.Server

	failing sync.Mutex
	err     error
}

// newProxy starts a proxy; its kubeconfig is written to a file in dir.
func newProxy(c *kubetest.Cluster, dir string) (*proxy, error) {
	target, err := url.Parse(c.Server())
	if err != nil {
		return nil, err
	}
	transport, err := rest.TransportFor(c.Config())
	if err != nil {
		return nil, err
	}
	p := &proxy{kubeconfig: filepath.Join(dir, "counted.kubeconfig")}
	reverse := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1, // an event of a watch is passed on at once
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			// A watch ends when the client leaves; that is no error.
			if r.Context().Err() == nil {
				p.fail(fmt.Errorf("counting: %s %s: %w", r.Method, r.URL.Path, err))
			}
			w.WriteHeader(http.StatusBadGateway)
		},
		ErrorLog: log.New(io.Discard, "", 0), // says again that a watch was left
	}
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.add(r)
		reverse.ServeHTTP(w, r)
	}))
	config := clientcmdapi.NewConfig()
	config.Clusters["counted"] = &clientcmdapi.Cluster{Server: p.server.URL}
	config.AuthInfos["counted"] = clientcmdapi.NewAuthInfo()
	config.Contexts["counted"] = &clientcmdapi.Context{Cluster: "counted", AuthInfo: "counted"}
	config.CurrentContext = "counted"
	if err := clientcmd.WriteToFile(*config, p.kubeconfig); err != nil {
		p.server.Close()
		return nil, err
	}
	return p, nil
}

func (p *proxy) fail(err error) {
	p.failing.Lock()
	defer p.failing.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// close ends the proxy and returns the first request that did not get
// through: then the counts are not those of a healthy run.
func (p *proxy) close() error {
	p.server.CloseClientConnections()
	p.server.Close()
	p.failing.Lock()
	defer p.failing.Unlock()
	return p.err
}

// verbOf is the verb of a request, one of verbs.
func verbOf(r *http.Request) string {
	query := r.URL.Query()
	resource, ok := resourcePath(r.URL.Path)
	switch {
	case query.Has("dryRun"):
		return "dry-run"
	case r.Method == http.MethodGet && !ok:
		return "discovery"
	case r.Method == http.MethodGet && query.Has("watch"):
		return "watch"
	case r.Method == http.MethodGet && len(resource) == 1:
		return "list"
	case r.Method == http.MethodGet:
		return "get"
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/apply-patch+yaml":
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

// resourcePath is what remains of a path after the API's group and version and
// the namespace: the resource, and a name and a subresource if there are any.
// It is false for what is no resource: /version, the list of groups and so on.
func resourcePath(path string) ([]string, bool) {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case segments[0] == "api" && len(segments) > 2:
		segments = segments[2:]
	case segments[0] == "apis" && len(segments) > 3:
		segments = segments[3:]
	default:
		return nil, false
	}
	// A Namespace's own subresources look like a resource in it.
	if segments[0] == "namespaces" && len(segments) > 2 && !slices.Contains([]string{"status", "finalize"}, segments[2]) {
		segments = segments[2:]
	}
	return segments, true
}
