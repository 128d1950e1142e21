package cli_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sluicerun/sluice/internal/kubetest"
)

// observer stands before the API server and writes down every request that is to
// change something: each that is no read, no dry run, and no review, which asks
// who one is or what one may do.
type observer struct {
	mu       sync.Mutex
	requests int
	writing  []string
}

func (o *observer) note(r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requests++
	review := strings.HasPrefix(r.URL.Path, "/apis/authentication.k8s.io/") || strings.HasPrefix(r.URL.Path, "/apis/authorization.k8s.io/")
	if !review && r.Method != http.MethodGet && r.Method != http.MethodHead && r.URL.Query().Get("dryRun") != "All" {
		o.writing = append(o.writing, r.Method+" "+r.URL.Path)
	}
}

// witness writes a kubeconfig that leads through an observer.
func witness(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: witness FILE")
	}
	c := ts.Value("clusters").(map[string]*kubetest.Cluster)[""]
	if c == nil {
		ts.Fatalf("no cluster: start one with the command cluster")
	}
	transport, err := rest.TransportFor(c.Config())
	ts.Check(err)
	target, err := url.Parse(c.Config().Host)
	ts.Check(err)
	o := ts.Value("witness").(*observer)
	server := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			o.note(r.In)
			r.SetURL(target)
		},
		FlushInterval: -1, // watches
	})
	ts.Defer(server.Close)
	config := clientcmdapi.NewConfig()
	config.Clusters["observed"] = &clientcmdapi.Cluster{Server: server.URL}
	config.Contexts["observed"] = &clientcmdapi.Context{Cluster: "observed"}
	config.CurrentContext = "observed"
	ts.Check(clientcmd.WriteToFile(*config, ts.MkAbs(args[0])))
}

// writes prints what the observer wrote down, or "nothing". That nothing went by way of it is an
// error: then it has seen nothing.
func writes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: writes")
	}
	o := ts.Value("witness").(*observer)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.requests == 0 {
		ts.Fatalf("no request has come by way of the witness")
	}
	if len(o.writing) == 0 {
		fmt.Fprintln(ts.Stdout(), "nothing")
	}
	for _, request := range o.writing {
		fmt.Fprintln(ts.Stdout(), request)
	}
	o.requests, o.writing = 0, nil
}
