package gate

import (
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
)

const rev = "main@sha1:1111111111111111111111111111111111111111"

func kustomization(name string, change ...func(*flux.Kustomization)) *flux.Kustomization {
	k := &flux.Kustomization{ID: flux.ID{Namespace: "ns", Name: name}}
	k.Spec.Interval.Duration = 5 * time.Minute
	k.Spec.Prune = true
	k.Spec.SourceRef = kustomizev1.CrossNamespaceSourceReference{Kind: "GitRepository", Name: "flux-system"}
	for _, c := range change {
		c(k)
	}
	return k
}

func depends(expr string) func(*flux.Kustomization) {
	return func(k *flux.Kustomization) {
		k.Spec.DependsOn = append(k.Spec.DependsOn, kustomizev1.DependencyReference{Name: "dep", ReadyExpr: expr})
	}
}

// S7.7: an expression is compiled against two structs and must be a boolean for
// sure.
func TestS7_7Parse(t *testing.T) {
	for _, tc := range []struct{ expr, wrong string }{
		{"true", ""},
		{"dep.spec.prune == true", ""},
		{"dep.metadata.labels['a'] == self.metadata.labels['a']", ""},
		{"has(dep.status.lastAppliedRevision) && dep.status.lastAppliedRevision.startsWith('main@')", ""},
		{"sets.contains(dep.status.conditions.map(c, c.type), ['Ready'])", ""},
		{"dep.?status.?lastAppliedRevision.orValue('') != ''", ""},
		{"dep.spec.prune", "output type mismatch: expected bool, got dyn"},
		{"'true'", "expected bool, got string"},
		{"1", "expected bool, got int"},
		{"dep.spec.prune = true", "failed to parse the CEL expression"},
		{"dependency.spec.prune == true", "undeclared reference to 'dependency'"},
		{"spec.prune == true", "undeclared reference to 'spec'"},
		{"dep.spec.path.isTidy() == true", "undeclared reference to 'isTidy'"},
	} {
		all, err := Parse(kustomization("self", depends(tc.expr)))
		switch {
		case tc.wrong == "" && (err != nil || len(all) != 1 || all[0].Text != tc.expr || all[0].Dep.String() != "ns/dep"):
			t.Errorf("%s: got %+v, %v", tc.expr, all, err)
		case tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong) || !strings.Contains(err.Error(), "ns/self: spec.dependsOn[0].readyExpr: ")):
			t.Errorf("%s: got %v, want %q", tc.expr, err, tc.wrong)
		}
	}
	// All faults at once; entries without an expression do not count.
	all, err := Parse(kustomization("self", depends(""), depends("dep.x"), depends("true"), depends("(")))
	if len(all) != 1 || err == nil || !strings.Contains(err.Error(), "dependsOn[1]") || !strings.Contains(err.Error(), "dependsOn[3]") {
		t.Errorf("got %+v, %v", all, err)
	}
}

// is evaluates an expression of self and dep.
func is(t *testing.T, expr string, self, dep *Object) (bool, error) {
	t.Helper()
	all, err := Parse(kustomization("self", depends(expr)))
	if err != nil {
		t.Fatal(err)
	}
	return all[0].Evaluate(t.Context(), self, dep)
}

func want(t *testing.T, dep *Object, exprs ...string) {
	t.Helper()
	self := New(kustomization("self"), nil)
	for _, expr := range exprs {
		if ok, err := is(t, expr, self, dep); err != nil || !ok {
			t.Errorf("%s: %v, %v; %s", expr, ok, err, dep.State())
		}
	}
}

func entries(names ...string) []inventory.Entry {
	var all []inventory.Entry
	for _, name := range names {
		all = append(all, inventory.EntryOf(flux.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "default", Name: name}))
	}
	return all
}

// The objects are what the API server would give of the same manifest (S7.7): the
// definition's defaults are in the spec, and what is false or empty is left out.
func TestS7_7Objects(t *testing.T) {
	parent := kustomization("parent", func(k *flux.Kustomization) {
		k.Spec.CommonMetadata = &kustomizev1.CommonMetadata{Labels: map[string]string{"team": "a"}, Annotations: map[string]string{"note": "common"}}
	})
	dep := New(kustomization("dep", func(k *flux.Kustomization) {
		k.Labels = map[string]string{"app/version": "v1", "team": "b"}
		k.Annotations = map[string]string{"note": "own"}
		k.Spec.Timeout = &k.Spec.Interval
		k.Spec.Wait = true
	}), parent)
	want(t, dep,
		"dep.apiVersion == 'kustomize.toolkit.fluxcd.io/v1' && dep.kind == 'Kustomization'",
		"dep.metadata.name == 'dep' && dep.metadata.namespace == 'ns' && dep.metadata.generation == 1",
		"dep.metadata.labels['app/version'] == 'v1'",
		"dep.metadata.labels['team'] == 'a' && dep.metadata.annotations['note'] == 'common'",
		"dep.metadata.labels['kustomize.toolkit.fluxcd.io/name'] == 'parent' && dep.metadata.labels['kustomize.toolkit.fluxcd.io/namespace'] == 'ns'",
		"dep.spec.interval == '5m0s' && dep.spec.timeout == '5m0s' && dep.spec.prune && dep.spec.wait && !has(dep.spec.suspend) && !has(dep.spec.targetNamespace)",
		"dep.spec.sourceRef.kind == 'GitRepository' && dep.spec.sourceRef.name == 'flux-system'",
		"dep.status.observedGeneration == -1 && !has(dep.status.conditions) && !has(dep.status.inventory) && !has(dep.status.lastAppliedRevision)",
		"self.metadata.name == 'self' && !has(self.metadata.labels)",
	)
	if ok, err := is(t, "dep.status.lastAppliedRevision == ''", New(kustomization("self"), nil), dep); ok || err == nil || !strings.Contains(err.Error(), "no such key: lastAppliedRevision") {
		t.Errorf("a missing field: %v, %v", ok, err)
	}
	if got := dep.State(); got != "no conditions: it has never run" {
		t.Error(got)
	}
}

// The status at each moment of a run is what the controller has written by then
// (S9.1 to S9.4).
func TestS9_2Moments(t *testing.T) {
	dep := New(kustomization("dep", func(k *flux.Kustomization) { k.Spec.Wait = true }), nil)
	if dep.Moment() != 0 {
		t.Fatal("there was no moment yet")
	}
	dep.Started(rev)
	if dep.Moment() != 0 {
		t.Error("the start is no moment to look at")
	}
	want(t, dep, "!has(dep.status.conditions)")

	dep.Applied(rev, entries("a", "b"), true)
	want(t, dep,
		"dep.status.conditions.map(c, c.type) == ['Reconciling', 'Ready', 'Healthy']",
		"dep.status.conditions.all(c, c.reason == 'Progressing' && c.observedGeneration == 1 && c.lastTransitionTime != '')",
		"dep.status.conditions.map(c, c.status) == ['True', 'Unknown', 'Unknown']",
		"dep.status.conditions[0].message == 'Running health checks for revision "+rev+" with a timeout of 4m30s'",
		"dep.status.conditions[1].message == 'Reconciliation in progress'",
		"dep.status.inventory.entries.map(e, e.id) == ['default_a__ConfigMap', 'default_b__ConfigMap'] && dep.status.inventory.entries[0].v == 'v1'",
		"dep.status.lastAttemptedRevision == '"+rev+"' && !has(dep.status.lastAppliedRevision)",
		"dep.status.observedGeneration == -1",
	)
	dep.Failed(meta.HealthCheckFailedReason, "timeout waiting for: [Deployment/ns/x status: 'InProgress']")
	want(t, dep,
		"dep.status.conditions.map(c, c.status) == ['True', 'False', 'False']",
		"dep.status.conditions.map(c, c.reason) == ['ProgressingWithRetry', 'HealthCheckFailed', 'HealthCheckFailed']",
		"dep.status.conditions[1].message.contains('InProgress')",
		"dep.status.observedGeneration == -1 && !has(dep.status.lastAppliedRevision)",
	)
	dep.Started(rev)
	want(t, dep, "dep.status.conditions[1].status == 'False'") // still the last moment
	dep.Applied(rev, entries("a", "b"), true)
	dep.Attempted("sha256:1", time.Second, inventory.StatusSucceeded, rev)
	dep.Succeeded(rev, 1500*time.Millisecond)
	want(t, dep,
		"dep.status.conditions.map(c, c.type) == ['Ready', 'Healthy'] && dep.status.conditions.all(c, c.status == 'True')",
		"dep.status.conditions.map(c, c.reason) == ['ReconciliationSucceeded', 'Succeeded']",
		"dep.status.conditions.map(c, c.message) == ['Applied revision: "+rev+"', 'Health check passed in 1.5s']",
		"dep.status.observedGeneration == dep.metadata.generation && dep.status.lastAppliedRevision == dep.status.lastAttemptedRevision",
		"dep.status.history[0].digest == 'sha256:1' && dep.status.history[0].lastReconciledStatus == 'ReconciliationSucceeded' && dep.status.history[0].metadata.revision == '"+rev+"'",
	)
	if dep.Moment() != 4 {
		t.Errorf("%d moments, want 4", dep.Moment())
	}
	if got := dep.State(); got != "Ready=True (ReconciliationSucceeded), Healthy=True (Succeeded)" {
		t.Error(got)
	}
	// Without health checks there is no such condition (S9.1).
	plain := New(kustomization("dep"), nil)
	plain.Started(rev)
	plain.Applied(rev, nil, false)
	plain.Succeeded(rev, 0)
	want(t, plain, "dep.status.conditions.map(c, c.type) == ['Ready']", "dep.status.inventory.entries == []")
	// A failed apply keeps the inventory as it was.
	plain.Failed(meta.ReconciliationFailedReason, "forbidden")
	want(t, plain, "dep.status.lastAppliedRevision == '"+rev+"' && dep.status.observedGeneration == 1 && dep.status.conditions.map(c, c.type) == ['Ready']")
}

// Of one that does not run this time the record speaks, as the conditions that
// Flux leaves on a suspended object do (S7.13).
func TestS7_13Remember(t *testing.T) {
	const older = "main@sha1:0000000000000000000000000000000000000000"
	checked := func(k *flux.Kustomization) {
		k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{{Kind: "Deployment", Name: "x", Namespace: "ns"}}
	}
	for _, tc := range []struct {
		name   string
		change func(*inventory.Record)
		want   []string
	}{
		{"ready", func(r *inventory.Record) { r.Result = inventory.Ready }, []string{
			"dep.status.conditions.map(c, c.type + '=' + c.status) == ['Ready=True', 'Healthy=True']",
			"dep.status.conditions[0].message == 'Applied revision: " + older + "' && dep.status.lastAppliedRevision == '" + older + "'",
			"dep.status.observedGeneration == 1 && dep.status.inventory.entries.size() == 1"}},
		{"unhealthy", func(r *inventory.Record) { r.Result = inventory.Unhealthy }, []string{
			"dep.status.conditions.map(c, c.type + '=' + c.status) == ['Ready=False', 'Healthy=False']",
			"dep.status.conditions.all(c, c.reason == 'HealthCheckFailed')"}},
		{"failed", func(r *inventory.Record) { r.Result = inventory.Failed }, []string{
			"dep.status.conditions.map(c, c.type + '=' + c.reason) == ['Ready=ReconciliationFailed']"}},
		{"failed to prune", func(r *inventory.Record) {
			r.Result = inventory.Failed
			r.History.Upsert("sha256:2", time.Now(), time.Second, inventory.StatusPruneFailed, map[string]string{"revision": rev})
		}, []string{"dep.status.conditions.map(c, c.type + '=' + c.reason) == ['Ready=PruneFailed']",
			"dep.status.lastAttemptedRevision == '" + rev + "' && dep.status.lastAppliedRevision == '" + older + "'"}},
		{"cut off", func(r *inventory.Record) { r.Result = inventory.Applying }, []string{
			"dep.status.conditions.map(c, c.type + '=' + c.status) == ['Reconciling=True', 'Ready=Unknown']"}},
		{"never ready", func(r *inventory.Record) { r.Result, r.Revision = inventory.Failed, "" }, []string{
			"dep.status.observedGeneration == -1 && !has(dep.status.lastAppliedRevision)"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := kustomization("dep", checked)
			store := &inventory.MemoryStore{}
			record := inventory.NewRecord(flux.ID{Namespace: "ns", Name: "root"}, k)
			record.Revision, record.Entries, record.Updated = older, entries("a"), time.Now()
			tc.change(record)
			dep := New(k, nil)
			dep.Remember(record)
			want(t, dep, "!has(dep.status.conditions)") // it is not stored: it has not run
			if err := store.Save(t.Context(), record); err != nil {
				t.Fatal(err)
			}
			dep.Remember(record)
			want(t, dep, tc.want...)
			if dep.Moment() != 0 {
				t.Error("what the last run left is no moment of this one")
			}
		})
	}
}

// The spec of an object is a copy: what the run does with its own cannot show.
func TestObjectIsACopy(t *testing.T) {
	k := kustomization("dep", func(k *flux.Kustomization) {
		k.Spec.HealthCheckExprs = []kustomize.CustomHealthCheck{{APIVersion: "v1", Kind: "ConfigMap"}}
	})
	dep := New(k, nil)
	k.Spec.HealthCheckExprs[0].Kind = "Secret"
	dep.Failed("x", "y")
	want(t, dep, "dep.spec.healthCheckExprs[0].kind == 'ConfigMap'")
}
