//go:build unix

package health

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// through makes clients that reach the server only by way of the proxy.
func (e *env) through(p *proxy.Proxy) Clients {
	e.Helper()
	return e.clientsFor(p.Config())
}

// A watch that is cut is taken up again, and nothing that happened meanwhile is missed: what changed during the outage counts
// as soon as the server can be reached again.
func TestWaitSurvivesOutages(t *testing.T) {
	e := newEnv(t)
	p := proxy.New(t, kubetest.Shared(t))
	clients := e.through(p)
	configMap := func(name string) string { return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n" }
	ref := func(name string) flux.Ref {
		return flux.Ref{Version: "v1", Kind: "ConfigMap", Namespace: e.namespace, Name: name}
	}
	j := newJournal()
	done := make(chan error)
	go func() {
		_, err := wait(t.Context(), clients, []Target{{Ref: ref("a")}, {Ref: ref("b")}, {Ref: ref("c")}}, Options{Timeout: long, FailFast: true, Report: j.report})
		done <- err
	}()
	j.await(t, "c status: 'NotFound'")

	// Cut and back at once.
	p.Sever()
	e.apply(configMap("a"))
	j.await(t, "a status: 'Current'")

	// Away for a while.
	down := p.Down()
	e.apply(configMap("b"))
	if err := down.Await(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	down.Lift()
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
	p := proxy.New(t, kubetest.Shared(t))
	clients := e.through(p)
	target := e.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
	p.Down()
	started := time.Now()
	statuses, err := wait(t.Context(), clients, target, Options{Timeout: 700 * time.Millisecond, FailFast: true})
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
