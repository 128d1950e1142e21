package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Proxy is a running proxy.
type Proxy struct {
	Recorder
	server *httptest.Server
	faults faults

	failing sync.Mutex
	err     error
}

// Source gives a configuration to reach an API server with; a *kubetest.Cluster is one, whose is the administrator's.
type Source interface{ Config() *rest.Config }

// New starts a proxy that ends with the test. A request that does not reach the server for another reason than a fault fails
// the test.
func New(t testing.TB, to Source) *Proxy {
	t.Helper()
	p, err := Start(to.Config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Start starts a proxy on the loopback interface. It forwards with the credentials of the configuration, which it does not
// change. The caller closes it.
func Start(to *rest.Config) (*Proxy, error) {
	target, _, err := rest.DefaultServerUrlFor(to)
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	transport, err := rest.TransportFor(to)
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &Proxy{}
	p.server = httptest.NewServer(p.handler(target, transport))
	return p, nil
}

// Close ends the proxy and every connection to it. It returns the first request that did not get through, if neither a fault
// nor the client was the reason. What hangs goes on; a Delay is waited for.
func (p *Proxy) Close() error {
	p.faults.releaseAll()
	p.server.CloseClientConnections()
	p.server.Close()
	p.failing.Lock()
	defer p.failing.Unlock()
	return p.err
}

// URL is where the proxy listens, "http://127.0.0.1:PORT".
func (p *Proxy) URL() string { return p.server.URL }

// Config is a new client configuration that leads here, without client-side throttling.
func (p *Proxy) Config() *rest.Config { return &rest.Config{Host: p.server.URL, QPS: -1, Burst: -1} }

// WriteKubeconfig writes a kubeconfig that leads here, with one context, "proxy".
func (p *Proxy) WriteKubeconfig(path string) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["proxy"] = &clientcmdapi.Cluster{Server: p.server.URL}
	config.AuthInfos["proxy"] = clientcmdapi.NewAuthInfo()
	config.Contexts["proxy"] = &clientcmdapi.Context{Cluster: "proxy", AuthInfo: "proxy"}
	config.CurrentContext = "proxy"
	return clientcmd.WriteToFile(*config, path)
}

// Fail adds a fault. It strikes requests that arrive from now on.
func (p *Proxy) Fail(f Fault) *Active { return p.faults.add(f) }

// Sever ends all connections, also those of watches. New ones are welcome.
func (p *Proxy) Sever() { p.server.CloseClientConnections() }

// Down is the API server gone: connections end, and each new one does as soon as a request comes by it, until the fault is lifted.
func (p *Proxy) Down() *Active {
	a := p.Fail(Fault{Do: Cut()})
	p.Sever()
	return a
}

// struckKey is the context key of the faults that strike a request.
type struckKey struct{}

// handler forwards requests as faults allow.
func (p *Proxy) handler(target *url.URL, transport http.RoundTripper) http.Handler {
	reverse := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1, // an event of a watch is passed on at once
		Transport:     &faulty{transport},
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			if !errors.Is(err, errCut) && r.Context().Err() == nil { // a client that leaves is no error
				p.fail(fmt.Errorf("proxy: %s %s: %w", r.Method, r.URL.Path, err))
			}
			panic(http.ErrAbortHandler) // the way to end a connection
		},
		ErrorLog: log.New(io.Discard, "", 0), // says again that a connection was ended
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := Describe(r)
		request := p.add(q)
		q.N = request.N
		if r.Body != nil {
			r.Body = &countedBody{r.Body, func(n int) { p.edit(func() { request.Up += int64(n) }) }}
		}
		counted := &countedWriter{w, func(code, n int) {
			p.edit(func() {
				if code != 0 {
					request.Code = code
				}
				request.Down += int64(n)
			})
		}}
		defer p.done(request)
		reverse.ServeHTTP(counted, r.WithContext(context.WithValue(r.Context(), struckKey{}, struck{q, p.faults.strike(q)})))
	})
}

func (p *Proxy) fail(err error) {
	p.failing.Lock()
	defer p.failing.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// struck is a request with the faults that strike it.
type struck struct {
	request Request
	by      []*Active
}

// faulty acts out faults around the round trip to the server.
type faulty struct{ next http.RoundTripper }

func (f *faulty) RoundTrip(r *http.Request) (*http.Response, error) {
	s := r.Context().Value(struckKey{}).(struck)
	for _, a := range s.by {
		if a.fault.Do.plain {
			// Without the client's wish Go's transport asks for compression itself, and undoes it.
			r = r.Clone(r.Context())
			r.Header.Del("Accept-Encoding")
		}
		if a.fault.Do.before == nil {
			continue
		}
		if resp, err := a.fault.Do.before(r.Context(), s.request, a); resp != nil || err != nil {
			if resp != nil {
				resp.Request = r
			}
			return resp, err
		}
	}
	resp, err := f.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	for _, a := range s.by {
		if a.fault.Do.stream != nil {
			a.fault.Do.stream(s.request, resp)
		}
		if a.fault.Do.after == nil {
			continue
		}
		if err := a.fault.Do.after(resp); err != nil {
			resp.Body.Close() // the error says more
			return nil, err
		}
	}
	return resp, nil
}

type countedBody struct {
	io.ReadCloser
	count func(n int)
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count(n)
	return n, err
}

type countedWriter struct {
	http.ResponseWriter
	count func(code, n int)
}

func (w *countedWriter) WriteHeader(code int) {
	w.count(code, 0)
	w.ResponseWriter.WriteHeader(code)
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.count(0, n)
	return n, err
}

// Unwrap is for http.ResponseController, by which the reverse proxy flushes.
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
