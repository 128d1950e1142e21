package run

import (
	"context"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/health"
)

// from lets a node take variables from ConfigMaps of its namespace; a name that
// ends in "?" is optional.
func from(n *node, names ...string) *node {
	n.Spec.PostBuild = &kustomizev1.PostBuild{}
	for _, name := range names {
		name, optional := strings.CutSuffix(name, "?")
		n.Spec.PostBuild.SubstituteFrom = append(n.Spec.PostBuild.SubstituteFrom,
			kustomizev1.SubstituteReference{Kind: "ConfigMap", Name: name, Optional: optional})
	}
	return n
}

// in returns a ConfigMap in the namespace of the nodes.
func in(name string) flux.Object {
	o := configMap(name)
	o.SetNamespace("ns")
	return o
}

// live says what the cluster holds of the ConfigMaps that tests look for.
func live(r *run, found map[string]bool) {
	for name, is := range found {
		r.liveVars[variableKey{"ConfigMap", "ns", name}] = liveVariables{found: is, data: map[string]string{}}
	}
}

// The next node to build is one whose variables are all there, first of all
// from the run itself (S14.25).
func TestChoose(t *testing.T) {
	cluster := map[string]bool{"live": true, "shared": true, "gone": false}
	for _, tc := range []struct {
		name  string
		nodes map[string][]string // the variables of each pending node
		order string
		built string // "OWNER:NAME", with "!" once the owner's own variables are in it
		want  string
		how   resolution
	}{
		{"none needed", map[string][]string{"a": {"live"}, "b": nil}, "a b", "", "b", fromRun},
		{"the run's before the cluster's", map[string][]string{"a": {"live"}, "b": {"vars"}}, "a b", "x:vars!", "b", fromRun},
		{"its own", map[string][]string{"a": {"live"}, "b": {"own"}}, "a b", "b:own", "b", fromRun},
		{"another's that is not final gives way", map[string][]string{"a": {"shared"}, "b": {"live"}}, "a b", "x:shared", "b", fromCluster},
		{"unless there is nothing else", map[string][]string{"a": {"shared"}}, "a", "x:shared", "a", fromCluster},
		{"optional and nowhere", map[string][]string{"a": {"gone?"}}, "a", "", "a", fromCluster},
		{"the cluster's before what is nowhere", map[string][]string{"a": {"gone"}, "b": {"live"}}, "a b", "", "b", fromCluster},
		{"nowhere", map[string][]string{"a": {"gone"}, "b": {"gone"}}, "a b", "", "a", deferral},
		{"one of two is nowhere", map[string][]string{"a": {"live", "gone"}}, "a", "", "a", deferral},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := newTestRun(t, health.Spec, strings.ReplaceAll(tc.order, " ", "\n")+"\nx")
			live(r, cluster)
			if owner, name, ok := strings.Cut(tc.built, ":"); ok {
				name, final := strings.CutSuffix(name, "!")
				r.provided[variableKey{"ConfigMap", "ns", name}] = provided{owner: id(owner), object: in(name).Unstructured, final: final}
			}
			var pending []*node
			for _, name := range strings.Fields(tc.order) {
				n := &node{Kustomization: &flux.Kustomization{ID: id(name)}}
				if vars := tc.nodes[name]; vars != nil {
					from(n, vars...)
				}
				pending = append(pending, n)
			}
			at, how := r.choose(context.Background(), pending)
			if got := pending[at].Name; got != tc.want || how != tc.how {
				t.Errorf("chose %s by %d, want %s by %d", got, how, tc.want, tc.how)
			}
		})
	}
}

// A node waits with its build only for something that could create what it
// looks for (S16.7); else the run is invalid now.
func TestDeferral(t *testing.T) {
	workload := configMap("operator")
	workload.SetKind("Deployment")
	workload.SetAPIVersion("apps/v1")
	for _, tc := range []struct {
		name   string
		lines  string
		holds  map[string]flux.Object
		defers bool
	}{
		{"nothing before it", "a", nil, false},
		{"a dependency with a workload", "op\na needs:op", map[string]flux.Object{"op": workload}, true},
		{"a dependency's dependency", "op\nmid needs:op\na needs:mid", map[string]flux.Object{"op": workload}, true},
		{"the parent", "op\na in:op", map[string]flux.Object{"op": workload}, true},
		{"only objects that create nothing", "op\na needs:op", map[string]flux.Object{"op": configMap("c")}, false},
		{"a workload that it does not need", "op\na", map[string]flux.Object{"op": workload}, false},
		{"a dependency that is deferred itself", "op deferred\na needs:op", nil, true},
		{"a suspended one creates nothing", "op suspended\na needs:op", nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := newTestRun(t, health.Spec, tc.lines)
			live(r, map[string]bool{"gone": false})
			for name, o := range tc.holds {
				r.nodes.get(id(name)).objects = []flux.Object{o}
			}
			reason := r.deferral(context.Background(), from(r.nodes.get(id("a")), "gone", "gone?"))
			if tc.defers != (reason != "") {
				t.Errorf("deferral %q", reason)
			}
			if tc.defers && !strings.Contains(reason, "ConfigMap/ns/gone") {
				t.Errorf("the reason does not name what is missing: %s", reason)
			}
		})
	}
}
