package run

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/inventory"
)

func configMap(name string) flux.Object {
	return flux.Object{Unstructured: &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "namespace": "default"}}}}
}

// A record's history is that of builds in the cluster (S1.15): the same build
// with the same end is one snapshot, one that never got there is none.
func TestConclude(t *testing.T) {
	r, _ := newTestRun(t, health.Spec, "app")
	n := r.nodes.get(id("app"))
	n.revision = "main@sha1:1"
	record := inventory.NewRecord(id("root"), n.Kustomization)
	end := func(result event.Result, objects ...flux.Object) {
		n.objects, n.built = objects, true
		var err error
		if n.sum, err = build.Digest(objects); err != nil {
			t.Fatal(err)
		}
		r.ends[n.ID] = event.NodeFinished{Result: result, Duration: time.Second}
		r.conclude(record, n, time.Now())
	}
	check := func(what string, want ...string) {
		t.Helper()
		var got []string
		for _, s := range record.History {
			got = append(got, s.LastReconciledStatus)
		}
		if len(got) != len(want) {
			t.Fatalf("%s: history %v, want %v", what, got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: history %v, want %v", what, got, want)
			}
		}
	}

	end(event.Ready, configMap("a"))
	first := record.Digest
	check("first", inventory.StatusSucceeded)
	end(event.Ready, configMap("a"))
	check("the same again", inventory.StatusSucceeded)
	if record.Digest != first || record.History[0].TotalReconciliations != 2 {
		t.Errorf("digest %s then %s, counted %d", first, record.Digest, record.History[0].TotalReconciliations)
	}

	n.revision = "main@sha1:2"
	end(event.Unhealthy, configMap("a"), configMap("b"))
	check("another build, not healthy", inventory.StatusHealthCheckFailed, inventory.StatusSucceeded)
	if record.Digest == first {
		t.Error("another build has the same digest")
	}
	if record.Revision != "main@sha1:1" || record.Result != inventory.Unhealthy {
		t.Errorf("revision %s, result %s: only success moves the revision (S0.20)", record.Revision, record.Result)
	}
	end(event.Cancelled, configMap("c"))
	check("cut off", inventory.StatusHealthCheckFailed, inventory.StatusSucceeded)
	r.unpruned[n.ID] = true
	end(event.Ready, configMap("a"), configMap("b"))
	check("pruning failed", inventory.StatusPruneFailed, inventory.StatusHealthCheckFailed, inventory.StatusSucceeded)
	if record.Revision != "main@sha1:2" {
		t.Errorf("revision %s", record.Revision)
	}

	n.revision = "main@sha1:3"
	end(event.Failed, configMap("d"))
	check("refused by the cluster", inventory.StatusFailed, inventory.StatusPruneFailed, inventory.StatusHealthCheckFailed, inventory.StatusSucceeded)
	for i, want := range []string{"main@sha1:3", "main@sha1:2", "main@sha1:2", "main@sha1:1"} {
		if got := record.History[i].Metadata["revision"]; got != want {
			t.Errorf("snapshot %d is of revision %q, want %q", i, got, want)
		}
	}
	n.built, n.objects, n.sum = false, nil, ""
	r.ends[n.ID] = event.NodeFinished{Result: event.Failed}
	r.conclude(record, n, time.Now())
	check("not built", inventory.StatusFailed, inventory.StatusPruneFailed, inventory.StatusHealthCheckFailed, inventory.StatusSucceeded)
	if count := record.History[0].TotalReconciliations; count != 1 {
		t.Errorf("a build that failed is counted: %d", count)
	}
	if record.Revision != "main@sha1:2" || record.Result != inventory.Failed {
		t.Errorf("revision %s, result %s", record.Revision, record.Result)
	}
}
