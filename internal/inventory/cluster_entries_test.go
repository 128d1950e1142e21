package inventory

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
)

var east = flux.ClusterRef{Kind: "Secret", Namespace: "apps", Name: "east", Key: "kube.config"}

// A record says of each object which cluster it is in, and an older sluice does
// not take it for one of a single cluster.
func TestEntriesOfOtherClusters(t *testing.T) {
	ref := flux.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "default", Name: "settings"}
	entries := append(EntriesIn(east, []flux.Ref{ref}), Entries([]flux.Ref{ref})...)
	if union := Union(entries[:1], entries[1:]); len(union) != 2 || len(Diff(entries[:1], entries[1:])) != 1 {
		t.Errorf("one name in two clusters is taken for one object: %v", union)
	}
	for _, tc := range []struct {
		entries []Entry
		schema  string
	}{{entries, `"schemaVersion": 2`}, {entries[1:], `"schemaVersion": 1`}} {
		r := &Record{ID: flux.ID{Namespace: "apps", Name: "a"}, Root: flux.ID{Namespace: "apps", Name: "root"}, Entries: tc.entries}
		p, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(p.data[recordKey], tc.schema) {
			t.Errorf("no %s in %s", tc.schema, p.data[recordKey])
		}
		back, err := decodeRecord("x", p)
		if err != nil || !slices.Equal(back.Entries, tc.entries) {
			t.Errorf("%v came back as %+v, %v", tc.entries, back, err)
		}
	}
	p := payload{data: map[string]string{recordKey: `{"schemaVersion":2,"id":"a/b","root":"a/c","objects":1}`,
		entriesKey: `{"entries":[{"id":"default_x__ConfigMap","v":"v1","cluster":"Pod/a/b"}]}`}}
	if _, err := decodeRecord("x", p); err == nil || !strings.Contains(err.Error(), "Pod/a/b") {
		t.Errorf("%v", err)
	}
}

// What Flux applied to another cluster is adopted there (S16.5, S4.42), with the
// Kustomizations among it, which are objects there.
func TestAdoptFromOtherCluster(t *testing.T) {
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(`
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: a, namespace: apps}
spec: {kubeConfig: {secretRef: {name: east, key: kube.config}}}
status:
  inventory:
    entries:
    - {id: default_settings__ConfigMap, v: v1}
    - {id: flux-system_inner_kustomize.toolkit.fluxcd.io_Kustomization, v: v1}
`), &o.Object); err != nil {
		t.Fatal(err)
	}
	live, err := readLive(o)
	want := []Entry{{ID: "default_settings__ConfigMap", Version: "v1", Cluster: east},
		{ID: "flux-system_inner_kustomize.toolkit.fluxcd.io_Kustomization", Version: "v1", Cluster: east}}
	if err != nil || !slices.Equal(live.Entries, want) || len(live.Holds) != 0 {
		t.Errorf("%+v, %v", live, err)
	}
}
