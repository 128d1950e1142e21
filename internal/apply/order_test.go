package apply

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sort"
	"testing"

	"github.com/fluxcd/pkg/ssa"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
)

func object(group, kind, namespace, name string) flux.Object {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: group, Version: "v1", Kind: kind})
	u.SetNamespace(namespace)
	u.SetName(name)
	return flux.Object{Unstructured: u}
}

// S4.17: the order is ssa's.
func TestS4_17SortedAsSSADoes(t *testing.T) {
	kinds := append(slices.Concat(ssa.ReconcileOrder.First, ssa.ReconcileOrder.Last), "Ingress", "Gadget", "DaemonSet", "Job")
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		var objects []flux.Object
		var theirs ssa.SortableUnstructureds
		for i := range 60 {
			o := object([]string{"", "apps", "example.com"}[r.IntN(3)], kinds[r.IntN(len(kinds))], fmt.Sprint("ns", r.IntN(3)), fmt.Sprint("n", i))
			objects = append(objects, o)
			theirs = append(theirs, o.Unstructured)
		}
		sort.Sort(theirs)
		for i, o := range sorted(objects) {
			if o.Unstructured != theirs[i] {
				t.Fatalf("seed %d, place %d: %s, ssa has %s", seed, i, o.Ref(), flux.RefOf(theirs[i]))
			}
		}
	}
}

// S4.10: which stage a kind belongs to.
func TestS4_10StageOfKind(t *testing.T) {
	custom := map[schema.GroupKind]struct{}{{Group: "example.com", Kind: "Gadget"}: {}, {Kind: "Secret"}: {}, {Group: "storage.k8s.io", Kind: "StorageClass"}: {}}
	for _, tc := range []struct{ group, kind, want string }{
		{"apiextensions.k8s.io", "CustomResourceDefinition", "definitions"},
		{"", "Namespace", "definitions"},
		{"rbac.authorization.k8s.io", "ClusterRole", "definitions"},
		{"rbac.authorization.k8s.io", "ClusterRoleBinding", "resources"},
		{"storage.k8s.io", "StorageClass", "classes"},
		{"example.com", "OwnClass", "classes"},
		{"example.com", "Classy", "resources"},
		{"example.com", "Gadget", "custom kinds"},
		{"example.com", "Namespace", "resources"},
		{"", "Secret", "custom kinds"}, // a core kind has no group
		{"example.com", "Secret", "resources"},
		{"example.com", "CustomResourceDefinition", "resources"},
		{"", "PersistentVolume", "resources"}, // S4.15: all other kinds of the cluster
		{"admissionregistration.k8s.io", "ValidatingWebhookConfiguration", "resources"},
		{"admissionregistration.k8s.io", "MutatingWebhookConfiguration", "resources"},
	} {
		got := stages([]flux.Object{object(tc.group, tc.kind, "", "x")}, custom)
		if len(got) != 1 || got[0].name != tc.want || got[0].wait != (tc.want == "definitions" || tc.want == "classes") {
			t.Errorf("%s/%s is in %v, want %s", tc.group, tc.kind, got, tc.want)
		}
	}
}

// S4.17, S4.20: what has to be there before the next begins, and what may go at
// the same time.
func TestWaves(t *testing.T) {
	want := [][]string{
		{"ClusterRole", "IngressClass"},
		{"ClusterRoleBinding", "ResourceQuota", "ServiceAccount", "Role"},
		{"RoleBinding", "ConfigMap", "Secret", "Service", "LimitRange"},
		{"Deployment", "StatefulSet", "CronJob", "PodDisruptionBudget"},
		{"Certificate", "DaemonSet", "Ingress", "Job"},
		{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"},
	}
	var objects []flux.Object
	for _, kind := range slices.Backward(slices.Concat(want...)) {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": kind}}
		o.SetName("x")
		objects = append(objects, flux.Object{Unstructured: o})
	}
	var steps []*step
	for _, o := range sorted(objects) {
		steps = append(steps, &step{object: o})
	}
	var got [][]string
	for wave := range waves(steps) {
		var kinds []string
		for _, st := range wave {
			kinds = append(kinds, st.object.GetKind())
		}
		got = append(got, kinds)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("waves %v, want %v", got, want)
	}
}
