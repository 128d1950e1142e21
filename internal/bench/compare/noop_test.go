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
const unchangedRequests = 20

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
		sent := sluiceRequests(t, c, h, s, "run")
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

// Every other situation of wide, in small: what each object and each
// Kustomization costs, and that nothing else does.
func TestRequestsOfSituations(t *testing.T) {
	t.Parallel()
	c, err := kubetest.Start(t.Context(), kubetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	const nodes, each = 10, 20
	// fixed is what a run sends whatever it does: discovery and the question who
	// one is (4), the lock (2), a list of the records and a second look at one
	// (2), a list of each kind (8), a list and a watch of what is waited for (2).
	// A plan neither locks nor waits.
	const fixed, fixedOfPlan = 18, 12
	h, err := newHistory(t.TempDir(), bench.Options{Kustomizations: nodes, Objects: each})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range h.states {
		own := paths(s.steps)
		// What the run has to write: objects, and twice, before and after, the
		// records of their Kustomizations and of the root.
		objects, records := map[situation]int{install: nodes * each, changed: 1, added: each}[s.situation], 0
		switch s.situation {
		case install:
			// The record of the root's own Kustomization, which holds nothing
			// but others, too.
			records = 2*nodes + 2 + 2
		case unchanged:
			records = 1 // of the root, at the end
		case changed:
			records = 2 + 2
		case added:
			records = 2 + 2 + 1 // what the root's own Kustomization holds is another build
		}
		check := func(what string, sent []proxy.Request, applied, saved, fixed int) {
			t.Helper()
			dryRuns, applies, early, records, rest := map[string]int{}, map[string]int{}, 0, 0, 0
			for _, r := range sent {
				switch {
				case own[r.Path] && r.Verb == "dry-run":
					dryRuns[r.Path]++
				case r.Verb == "dry-run":
					early++ // of what is in a namespace that comes with the run, in another
				case own[r.Path] && r.Verb == "apply":
					applies[r.Path]++
				case r.Resource == "configmaps" && r.Namespace == "flux-system" && r.Writes():
					records++
				case r.Resource == "leases" && r.Verb == "update": // how often depends on how long the run takes
				case r.Resource == "namespaces" && r.Name == "" && r.Verb == "create": // the state namespace, the first time
				default:
					rest++
				}
			}
			for _, n := range []map[string]int{dryRuns, applies} {
				for path, times := range n {
					if times > 1 {
						t.Errorf("%s: %d times %s", what, times, path)
					}
				}
			}
			if isNew := s.situation == install || s.situation == added; early > 0 && !isNew || early > objects/2 {
				t.Errorf("%s: %d dry runs in stand-ins for %d objects", what, early, objects)
			}
			if len(applies) != applied || len(dryRuns) != objects || records != saved || rest > fixed {
				t.Errorf("%s: %d dry runs, %d applies, %d writes of records and %d others, want %d, %d, %d and at most %d:\n%s",
					what, len(dryRuns), len(applies), records, rest, objects, applied, saved, fixed, listing(sent))
			}
			if writes := proxy.Writing(sent); what == "plan" && len(writes) > 0 {
				t.Errorf("a plan writes: %q", writes)
			}
		}
		// A plan judges what is in a new namespace without it.
		if s.situation == unchanged || s.situation == changed {
			check("plan", sluiceRequests(t, c, h, s, "plan"), 0, 0, fixedOfPlan)
		}
		check("run", sluiceRequests(t, c, h, s, "run"), objects, records, fixed)
	}
}

// sluiceRequests are those of a command of sluice, in this process.
func sluiceRequests(t *testing.T, c *kubetest.Cluster, h *history, s state, command string) []proxy.Request {
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
	code := cli.Main(t.Context(), []string{"sluice", command, "--repo", h.repository.Dir, "--path", bench.Entry},
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
