//go:build unix

package health

import (
	"context"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/sluicerun/sluice/internal/flux"
)

// proxy stands before the API server and can be cut: connections end and new ones are refused, until it is mended.
type proxy struct {
	t        testing.TB
	listener net.Listener
	target   string

	mu  sync.Mutex
	cut bool
	// refused gets a value for each connection that was refused.
	refused chan struct{}
	conns   map[net.Conn]bool
	all     sync.WaitGroup
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, target: target, conns: map[net.Conn]bool{}, refused: make(chan struct{}, 1000)}
	p.all.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.sever(true)
		p.all.Wait()
	})
	return p
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		if !p.keep(client, server) {
			client.Close()
			server.Close()
			p.refused <- struct{}{}
			continue
		}
		for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
			p.all.Go(func() {
				// An end of either side, in whatever way, is an end of both.
				_, _ = io.Copy(pair[0], pair[1])
				pair[0].Close()
				pair[1].Close()
			})
		}
	}
}

func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return false
	}
	for _, c := range conns {
		p.conns[c] = true
	}
	return true
}

// sever ends all connections; down says whether new ones are refused.
func (p *proxy) sever(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = down
	for c := range p.conns {
		c.Close()
		delete(p.conns, c)
	}
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// through makes clients that reach the server only by way of the proxy.
func (e *env) through(p *proxy) Clients {
	e.Helper()
	config := rest.CopyConfig(e.config)
	u, err := url.Parse(config.Host)
	if err != nil {
		e.Fatal(err)
	}
	config.TLSClientConfig.ServerName = u.Hostname()
	u.Host = p.listener.Addr().String()
	config.Host = u.String()
	return e.clientsFor(config)
}

// A watch that is cut is taken up again, and nothing that happened meanwhile is missed: what changed during the outage counts
// as soon as the server can be reached again.
func TestWaitSurvivesOutages(t *testing.T) {
	e := newEnv(t)
	u, err := url.Parse(e.config.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, u.Host)
	clients := e.through(p)
	configMap := func(name string) string { return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n" }
	ref := func(name string) flux.Ref {
		return flux.Ref{Version: "v1", Kind: "ConfigMap", Namespace: e.namespace, Name: name}
	}
	j := newJournal()
	done := make(chan error)
	go func() {
		_, err := Wait(t.Context(), clients, []Target{{Ref: ref("a")}, {Ref: ref("b")}, {Ref: ref("c")}}, Options{Timeout: long, FailFast: true, Report: j.report})
		done <- err
	}()
	j.await(t, "c status: 'NotFound'")

	// Cut and back at once.
	p.sever(false)
	e.apply(configMap("a"))
	j.await(t, "a status: 'Current'")

	// Away for a while.
	p.sever(true)
	e.apply(configMap("b"))
	for range 3 {
		<-p.refused
	}
	p.mend()
	j.await(t, "b status: 'Current'")

	e.apply(configMap("c"))
	if err := <-done; err != nil {
		t.Fatalf("%v\n%s", err, j)
	}
	noneLeft(t)
}

// An API server that cannot be reached is no verdict on health before the limit.
func TestServerAwayUntilTheLimit(t *testing.T) {
	e := newEnv(t)
	u, err := url.Parse(e.config.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, u.Host)
	clients := e.through(p)
	target := e.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
	p.sever(true)
	started := time.Now()
	statuses, err := Wait(t.Context(), clients, target, Options{Timeout: 700 * time.Millisecond, FailFast: true})
	if err == nil || statuses[0].Status != Unknown || time.Since(started) < 700*time.Millisecond {
		t.Errorf("%v, %v after %s", statuses, err, time.Since(started))
	}
	if !strings.Contains(err.Error(), "status: 'Unknown': the cluster has not answered yet") {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if d := Diagnose(ctx, clients, statuses[0], e.started); d.Reason != Unreachable || d.Text == "" {
		t.Errorf("%s", d)
	}
	noneLeft(t)
}
