//go:build unix

package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/sluicerun/sluice/internal/bench"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// gateLimit is how long after the last of what is waited for has become ready
// the first request of a dependent may be sent.
const gateLimit = 100 * time.Millisecond

// Latency is how long gates took to open: from the passing of the watch's event
// that makes the last Deployment ready to the passing of the first write of what
// waited for it. Where several waited the first of them counts: the others may
// have to wait for a worker.
type Latency struct {
	Gates int     `json:"gates"`
	P50   float64 `json:"p50Seconds"`
	P99   float64 `json:"p99Seconds"`
}

func (l *Latency) String() string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf("%.0f / %.0f ms", l.P50*1000, l.P99*1000)
}

// latency sums up how long each gate took; nil for none.
func latency(took []time.Duration) *Latency {
	if len(took) == 0 {
		return nil
	}
	took = slices.Sorted(slices.Values(took))
	at := func(percent int) float64 { return took[(len(took)-1)*percent/100].Seconds() }
	l := &Latency{Gates: len(took), P50: at(50), P99: at(99)}
	if len(took) < 100 {
		l.P99 = took[len(took)-1].Seconds() // a hundredth of them is less than one
	}
	return l
}

// gates writes down, in a proxy, when Deployments become ready and when
// Kustomizations begin to write. It is safe for concurrent use.
type gates struct {
	mu    sync.Mutex
	ready map[types.NamespacedName]time.Time
	began []write
	errs  []error
}

type write struct {
	proxy.Request
	at time.Time
}

// watchGates has a proxy write down what gates do.
func watchGates(p *proxy.Proxy) *gates {
	g := &gates{}
	g.take()
	p.Fail(proxy.Fault{Match: proxy.To("watch", "deployments"), Do: proxy.Lines(func(_ proxy.Request, line []byte) [][]byte {
		g.event(line)
		return [][]byte{line}
	})})
	p.Fail(proxy.Fault{Match: proxy.Request.Writes, Do: proxy.Call(func(r proxy.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.began = append(g.began, write{r, time.Now()})
	})})
	return g
}

// event takes an event of a watch of Deployments. One that the client did not
// wait for to the end is none.
func (g *gates) event(line []byte) {
	now := time.Now()
	if !bytes.HasSuffix(line, []byte("\n")) {
		return
	}
	var event struct {
		Object map[string]any `json:"object"`
	}
	err := json.Unmarshal(line, &event)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.errs = append(g.errs, fmt.Errorf("an event of a watch: %w", err))
		return
	}
	o := &unstructured.Unstructured{Object: event.Object}
	if o.GetKind() != "Deployment" || o.GetName() == "" {
		return // a bookmark
	}
	key := types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
	result, err := status.Compute(o)
	switch {
	case err != nil:
		g.errs = append(g.errs, fmt.Errorf("the status of Deployment %s: %w", key, err))
	case result.Status != status.CurrentStatus:
		delete(g.ready, key)
	case g.ready[key].IsZero():
		g.ready[key] = now
	}
}

// take forgets what was written down, and returns it.
func (g *gates) take() (ready map[types.NamespacedName]time.Time, began []write, errs []error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ready, began, errs = g.ready, g.began, g.errs
	g.ready, g.began, g.errs = map[types.NamespacedName]time.Time{}, nil, nil
	return ready, began, errs
}

// opened returns how long each gate between two steps took, as far as it was
// seen: where the Deployments were ready from the start there is none.
func opened(steps [][]bench.Kustomization, ready map[types.NamespacedName]time.Time, began []write) []time.Duration {
	var took []time.Duration
	for i := 1; i < len(steps); i++ {
		var last, first time.Time
		seen := true
		for _, k := range steps[i-1] {
			if k.WaitsFor == nil {
				continue
			}
			at, ok := ready[types.NamespacedName{Namespace: k.WaitsFor.GetNamespace(), Name: k.WaitsFor.GetName()}]
			if seen = seen && ok; at.After(last) {
				last = at
			}
		}
		for _, w := range began {
			if (first.IsZero() || w.at.Before(first)) && slices.ContainsFunc(steps[i], func(k bench.Kustomization) bool { return writes(w.Request, k) }) {
				first = w.at
			}
		}
		if seen && !last.IsZero() && !first.IsZero() {
			took = append(took, first.Sub(last))
		}
	}
	return took
}

// writes reports whether a request is one of a Kustomization: of its record or
// of one of its objects.
func writes(r proxy.Request, k bench.Kustomization) bool {
	return strings.HasSuffix(r.Name, "."+k.Name) || slices.ContainsFunc(k.Objects, func(o *unstructured.Unstructured) bool {
		return r.Name == o.GetName() && r.Namespace == o.GetNamespace()
	})
}
