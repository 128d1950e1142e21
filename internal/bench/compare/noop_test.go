//go:build unix

package main

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/sluicerun/sluice/internal/bench"
	"github.com/sluicerun/sluice/internal/cli"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// unchangedRequests is how many requests a run of 100 Kustomizations × 20
// objects sends at most if nothing has changed. The design wants fewer than
// noOpRequests; whoever cuts requests lowers this number to what is left.
const unchangedRequests = 19

// The budgets of requests, at full size: what is unchanged costs no request of
// its own. That holds from the first run on, where the raw client has been: so
// both do the same work, and the comparison is fair.
func TestRequestsOfUnchangedWide(t *testing.T) {
	c := kubetest.Shared(t)
	wide := shapes(1)[2]
	if wide.options.Kustomizations != 100 || wide.options.Objects != 20 {
		t.Fatalf("%s is %s, want 100 × 20 objects", wide.name, wide.what)
	}
	h, err := newHistory(t.TempDir(), wide.options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (raw{}).deploy(t.Context(), h, h.states[0], c, nil); err != nil {
		t.Fatal(err)
	}
	own := paths(h.states[1].steps)

	for _, s := range h.states[:2] {
		sent := sluiceRequests(t, c, h, s)
		if slices.ContainsFunc(sent, func(r proxy.Request) bool { return own[r.Path] }) {
			t.Errorf("%s: unchanged objects have cost requests of their own:\n%s", s.commit, listing(sent))
		}
		if s.situation != unchanged {
			continue // a first run makes its records
		}
		// How often a lease is renewed depends on how long the run takes.
		sent = slices.DeleteFunc(sent, func(r proxy.Request) bool { return r.Verb == "update" && strings.Contains(r.Path, "/leases/") })
		if len(sent) > unchangedRequests {
			t.Errorf("%d requests, want at most %d:\n%s", len(sent), unchangedRequests, listing(sent))
		}
		t.Logf("%d requests without renewals of the lease:\n%s", len(sent), listing(sent))
	}
}

// sluiceRequests are those of a run of sluice, in this process.
func sluiceRequests(t *testing.T, c *kubetest.Cluster, h *history, s state) []proxy.Request {
	t.Helper()
	if err := h.repository.At(s.commit); err != nil {
		t.Fatal(err)
	}
	p, err := newCounter(c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	environment := map[string]string{"KUBECONFIG": p.kubeconfig, "HOME": t.TempDir()}
	code := cli.Main(t.Context(), []string{"sluice", "run", "--repo", h.repository.Dir, "--path", bench.Entry},
		cli.System{Getenv: func(name string) string { return environment[name] }, Stdout: &log, Stderr: &log})
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, tail(log.Bytes()))
	}
	return p.Take()
}

// paths are where the objects are served.
func paths(steps [][]bench.Kustomization) map[string]bool {
	all := map[string]bool{}
	for _, step := range steps {
		for _, k := range step {
			for _, o := range k.Objects {
				plural, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
				path := "/apis/" + plural.Group + "/" + plural.Version
				if plural.Group == "" {
					path = "/api/" + plural.Version
				}
				if o.GetNamespace() != "" {
					path += "/namespaces/" + o.GetNamespace()
				}
				all[path+"/"+plural.Resource+"/"+o.GetName()] = true
			}
		}
	}
	return all
}

var generated = regexp.MustCompile(`app-\d{4}`)

// listing tells requests by verb and path, those of the generated
// Kustomizations together.
func listing(requests []proxy.Request) string {
	number := map[string]int{}
	for _, r := range requests {
		number[r.Verb+" "+generated.ReplaceAllString(r.Path, "app-*")]++
	}
	var b strings.Builder
	for _, line := range slices.Sorted(maps.Keys(number)) {
		fmt.Fprintf(&b, "%6d  %s\n", number[line], line)
	}
	return b.String()
}
