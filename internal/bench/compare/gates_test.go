//go:build unix

package main

import (
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluicerun/sluice/internal/bench"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// A gate is measured from the last Deployment of a step to the first write of the next one.
func TestGatesOpened(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }
	kustomization := func(name string) bench.Kustomization {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apps/v1", "kind": "Deployment"}}
		o.SetNamespace(name)
		o.SetName("web")
		return bench.Kustomization{Name: name, Objects: []*unstructured.Unstructured{o}, WaitsFor: o}
	}
	steps := [][]bench.Kustomization{{kustomization("a"), kustomization("b")}, {kustomization("c"), kustomization("d")}, {kustomization("e")}, {kustomization("f")}}
	ready := map[types.NamespacedName]time.Time{}
	for name, ms := range map[string]int{"a": 100, "b": 300, "c": 500, "d": 400} { // e: never seen
		ready[types.NamespacedName{Namespace: name, Name: "web"}] = at(ms)
	}
	writes := func(namespace, name string, ms int) write {
		return write{proxy.Request{Namespace: namespace, Name: name}, at(ms)}
	}
	got := opened(steps, ready, []write{writes("a", "web", 0), writes("d", "web", 330), writes("flux-system", "sluice.flux-system.c", 307), writes("e", "web", 650),
		writes("flux-system", "sluice.flux-system.f", 900)})
	if want := []time.Duration{7 * time.Millisecond, 150 * time.Millisecond}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if l := latency(got); l.Gates != 2 || l.P50 != 0.007 || l.P99 != 0.15 || l.String() != "7 / 150 ms" {
		t.Errorf("%+v", l)
	}
	many := make([]time.Duration, 200)
	for i := range many {
		many[i] = time.Duration(200-i) * time.Millisecond
	}
	if l := latency(many); l.P50 != 0.1 || l.P99 != 0.198 {
		t.Errorf("%+v", l)
	}
	if latency(nil) != nil {
		t.Error("no gates have a latency")
	}
}

// A client that is done hangs up in the middle of an event.
func TestEventCutOff(t *testing.T) {
	g := &gates{}
	g.take()
	event := `{"type":"ADDED","object":{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"a","generation":1},"spec":{"replicas":1},"status":{"observedGeneration":1,"replicas":1,"updatedReplicas":1,"readyReplicas":1,"availableReplicas":1,"conditions":[{"type":"Available","status":"True"}]}}}` + "\n"
	for n := range len(event) {
		g.event([]byte(event[:n]))
	}
	if ready, _, errs := g.take(); len(ready) != 0 || len(errs) != 0 {
		t.Errorf("parts: %v, %v", ready, errs)
	}
	g.event([]byte(event))
	if ready, _, errs := g.take(); len(ready) != 1 || len(errs) != 0 {
		t.Errorf("the whole: %v, %v", ready, errs)
	}
	g.event([]byte("{\n"))
	if _, _, errs := g.take(); len(errs) != 1 {
		t.Errorf("not JSON: %v", errs)
	}
}
