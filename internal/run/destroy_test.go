//go:build unix

package run_test

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/run"
)

// A run that is killed while destroy waits for its lock has not touched the root's
// record since it began. What it made meanwhile goes all the same.
func TestDestroyAfterAKilledRun(t *testing.T) {
	w := newWorld(t, map[string]string{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: NAMESPACE}\n"})
	if e := w.do(run.CommandRun, nil); e.Verdict != event.Live {
		t.Fatal(e)
	}
	c, err := cluster.Connect(t.Context(), cluster.Options{Kubeconfig: w.kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	own, err := c.Client("")
	if err != nil {
		t.Fatal(err)
	}
	store := inventory.NewClusterStore(own, w.namespace)
	survey, err := store.Survey(t.Context())
	if err != nil || len(survey.Roots()) != 1 {
		t.Fatalf("%v, %v", survey, err)
	}
	late := inventory.BareRecord(survey.Roots()[0], flux.ID{Namespace: w.namespace, Name: "late"})
	late.Prune, late.Timeout, late.Result = true, time.Minute, inventory.Applying
	late.Entries = inventory.EntriesIn(flux.ClusterRef{}, []flux.Ref{{Version: "v1", Kind: "ConfigMap", Namespace: w.namespace, Name: "made-late"}})

	planned := 0
	e := w.do(run.CommandDestroy, func(ev event.Event) {
		if _, ok := ev.(event.Planned); !ok {
			return
		}
		if planned++; planned > 1 {
			return
		}
		labels := map[string]string{flux.NameLabel: "late", flux.NamespaceLabel: w.namespace}
		made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "made-late", Labels: labels}}
		if _, err := w.client.CoreV1().ConfigMaps(w.namespace).Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
		if err := store.Save(t.Context(), late); err != nil {
			t.Error(err)
		}
	})
	names, records := w.configMaps()
	if e.Verdict != event.VerdictDestroyed || len(names)+len(records) > 0 || !slices.Contains(e.notices(), "planned-again") {
		t.Errorf("%s\nleft are %v and the records %v", e, names, records)
	}
}
