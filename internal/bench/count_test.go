//go:build unix

package bench

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sluicerun/sluice/internal/kubetest"
)

// counter stands in front of an API server and counts what one client sends.
// The server's own metrics cannot tell that client's requests from those of
// the controllers. Runs that are counted are not timed.
type counter struct {
	mu     sync.Mutex
	byKind map[string]int
}

// count runs do with a kubeconfig whose server counts.
func count(tb testing.TB, c *kubetest.Cluster, do func(kubeconfig string)) map[string]int {
	tb.Helper()
	target, err := url.Parse(c.Server())
	if err != nil {
		tb.Fatal(err)
	}
	transport, err := rest.TransportFor(c.Config())
	if err != nil {
		tb.Fatal(err)
	}
	counts := counter{byKind: map[string]int{}}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1, // an event of a watch is passed on at once
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			// A watch ends when the client leaves; that is no error.
			if r.Context().Err() == nil {
				tb.Errorf("counting: %s %s: %v", r.Method, r.URL.Path, err)
			}
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counts.add(r)
		proxy.ServeHTTP(w, r)
	}))
	defer server.Close()

	config := clientcmdapi.NewConfig()
	config.Clusters["counted"] = &clientcmdapi.Cluster{Server: server.URL}
	config.AuthInfos["counted"] = clientcmdapi.NewAuthInfo()
	config.Contexts["counted"] = &clientcmdapi.Context{Cluster: "counted", AuthInfo: "counted"}
	config.CurrentContext = "counted"
	file := filepath.Join(tb.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		tb.Fatal(err)
	}
	do(file)
	counts.mu.Lock()
	defer counts.mu.Unlock()
	return counts.byKind
}

func (c *counter) add(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byKind[requestKind(r)]++
}

// requestKind is what a request is for: "dry-run", "apply", "read", "watch",
// "discovery" or "write".
func requestKind(r *http.Request) string {
	query := r.URL.Query()
	segments := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case query.Has("dryRun"):
		return "dry-run"
	case r.Header.Get("Content-Type") == "application/apply-patch+yaml":
		return "apply"
	case r.Method != http.MethodGet:
		return "write"
	case query.Has("watch"):
		return "watch"
	case segments[0] == "api" && len(segments) <= 2, segments[0] == "apis" && len(segments) <= 3, segments[0] != "api" && segments[0] != "apis":
		return "discovery"
	}
	return "read"
}

// total is the number of all requests.
func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}
