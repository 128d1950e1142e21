package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
)

func parse(t *testing.T, manifest string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	must(t, yaml.Unmarshal([]byte(manifest), &o.Object))
	return o
}

// untilStatus watches an object until its status is as wanted.
func untilStatus(t *testing.T, c client.WithWatch, gvk schema.GroupVersionKind, namespace, name string, holds func(status map[string]any) bool) {
	t.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	w, err := c.Watch(t.Context(), list, client.InNamespace(namespace), client.MatchingFields{"metadata.name": name})
	must(t, err)
	defer w.Stop()
	for e := range w.ResultChan() {
		o, ok := e.Object.(*unstructured.Unstructured)
		if !ok {
			t.Fatalf("got %v", e)
		}
		if status, _, _ := unstructured.NestedMap(o.Object, "status"); holds(status) {
			return
		}
	}
	t.Fatal("the watch ended")
}

// serveKustomizations gives the cluster Flux's own definition.
func serveKustomizations(t *testing.T, c client.WithWatch) {
	t.Helper()
	text, err := os.ReadFile("../../testdata/crds/kustomize.toolkit.fluxcd.io_kustomizations.yaml")
	must(t, err)
	crd := parse(t, string(text))
	must(t, c.Create(t.Context(), crd))
	t.Cleanup(func() {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(crd.GroupVersionKind().GroupVersion().WithKind("CustomResourceDefinitionList"))
		w, err := c.Watch(context.Background(), list, client.MatchingFields{"metadata.name": crd.GetName()})
		must(t, err)
		defer w.Stop()
		must(t, c.Delete(context.Background(), crd))
		for e := range w.ResultChan() {
			if e.Type == watch.Deleted {
				return
			}
		}
		t.Error("the watch ended")
	})
	untilStatus(t, c, crd.GroupVersionKind(), "", crd.GetName(), func(status map[string]any) bool {
		conditions, _ := status["conditions"].([]any)
		return slices.ContainsFunc(conditions, func(each any) bool {
			condition, _ := each.(map[string]any)
			return condition["type"] == "Established" && condition["status"] == "True"
		})
	})
}

// createLive creates a Kustomization object, and gives it its status as a controller does.
func createLive(t *testing.T, c client.Client, o *unstructured.Unstructured, owner client.FieldOwner) {
	t.Helper()
	status := o.Object["status"]
	for {
		// A definition made a moment ago may not be served by every part of the server yet.
		err := c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(without(o, "status")), owner)
		if err == nil {
			break
		}
		if client.IgnoreNotFound(err) != nil && !meta.IsNoMatchError(err) {
			t.Fatal(err)
		}
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	must(t, err)
	must(t, c.Status().Patch(t.Context(), without(o, "status"), client.RawPatch(types.MergePatchType, patch)))
}

func without(o *unstructured.Unstructured, field string) *unstructured.Unstructured {
	o = o.DeepCopy()
	delete(o.Object, field)
	return o
}

func TestAdopt(t *testing.T) {
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	apps, web := flux.ID{Namespace: namespace, Name: "apps"}, flux.ID{Namespace: namespace, Name: "web"}
	wanted := []flux.ID{apps, web, {Namespace: namespace, Name: "new"}}
	question := Question{Run: wanted, First: wanted, Commit: wanted}

	facts, err := Adopt(t.Context(), c, question)
	must(t, err)
	if facts.Served || facts.Reconciling() != nil {
		t.Errorf("a cluster without Flux: %+v", facts)
	}

	serveKustomizations(t, c)
	live := `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: NS}
spec: {prune: true, interval: 10m, path: apps, sourceRef: {kind: GitRepository, name: flux-system}}
status:
  lastAppliedRevision: main@sha1:91bb0e2
  inventory:
    entries:
    - {id: grade-api_web_apps_Deployment, v: v1}
    - {id: _system__view_rbac.authorization.k8s.io_ClusterRole, v: v1}`
	live = strings.ReplaceAll(live, "NS", namespace)
	createLive(t, c, parse(t, live), flux.FieldManager)
	other := parse(t, live)
	other.SetName("web")
	must(t, unstructured.SetNestedField(other.Object, true, "spec", "suspend"))
	createLive(t, c, other, flux.FieldManager)
	foreign := parse(t, live)
	foreign.SetName("foreign")
	createLive(t, c, foreign, flux.FieldManager)

	check := func(c client.Client) {
		t.Helper()
		facts, err := Adopt(t.Context(), c, question)
		must(t, err)
		if !facts.Served || len(facts.Live) != 2 || facts.Live[apps].Suspended || !facts.Live[web].Suspended {
			t.Fatalf("got %+v", facts)
		}
		if facts.Reconciling() != nil {
			t.Errorf("no controller runs: %v", facts.Reconciling())
		}
		r := &Record{ID: apps}
		want := []Entry{{ID: "grade-api_web_apps_Deployment", Version: "v1"}, {ID: "_system__view_rbac.authorization.k8s.io_ClusterRole", Version: "v1"}}
		// S16.5
		if !facts.Adopt(r) || !slices.Equal(r.Entries, want) || r.Revision != "main@sha1:91bb0e2" {
			t.Errorf("adopted %+v", r)
		}
		stored := &Record{ID: apps, stored: "1"}
		if facts.Adopt(stored) || len(stored.Entries) > 0 {
			t.Error("a stored record was changed")
		}
		if facts.Adopt(&Record{ID: wanted[2]}) {
			t.Error("something was adopted from nothing")
		}
	}
	check(c)

	// An account that may read only its own namespace.
	rules := []rbacv1.PolicyRule{{APIGroups: []string{flux.Group}, Resources: []string{"kustomizations"}, Verbs: []string{"get"}}}
	must(t, c.Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "ci"}, Rules: rules}))
	must(t, c.Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "ci"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "ci"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "ci"}}}))
	ci := connect(t, "ci")
	var access *AccessError
	for {
		// The authorizer learns of the Role in its own time. What is missing in the end is the right to look for controllers.
		_, err := Adopt(t.Context(), ci, question)
		if !errors.As(err, &access) {
			t.Fatalf("got %v", err)
		}
		if access.Resource == deployments {
			break
		}
	}
	if access.Verb != "list" || access.Namespace != "flux-system" {
		t.Errorf("got %+v", access)
	}

	// A controller that runs.
	deployment := parse(t, strings.ReplaceAll(`apiVersion: apps/v1
kind: Deployment
metadata: {name: kustomize-controller, namespace: NS, labels: {app.kubernetes.io/component: kustomize-controller}}
spec:
  replicas: 1
  selector: {matchLabels: {app: kustomize-controller}}
  template: {metadata: {labels: {app: kustomize-controller}}, spec: {containers: [{name: manager, image: kustomize-controller}]}}`, "NS", namespace))
	must(t, c.Create(t.Context(), deployment))
	untilStatus(t, c, deployment.GroupVersionKind(), namespace, "kustomize-controller", func(status map[string]any) bool {
		ready, _ := status["readyReplicas"].(int64)
		return ready == 1
	})
	facts, err = Adopt(t.Context(), c, question)
	must(t, err)
	var controller *ControllerError
	if err := facts.Reconciling(); !errors.As(err, &controller) ||
		err.Error() != "Deployment/"+namespace+"/kustomize-controller is reconciling "+apps.String() {
		t.Fatalf("got %v", err)
	}
	if want := "suspend it first: flux suspend kustomization apps --namespace " + namespace; controller.Hint() != want {
		t.Errorf("got %q, want %q", controller.Hint(), want)
	}

	// Suspended, or without replicas, it is no obstacle.
	var suspended unstructured.Unstructured
	suspended.SetGroupVersionKind(schema.GroupVersionKind{Group: flux.Group, Version: "v1", Kind: flux.KustomizationKind})
	suspended.SetNamespace(namespace)
	suspended.SetName("apps")
	must(t, c.Patch(t.Context(), &suspended, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"suspend":true}}`))))
	facts, err = Adopt(t.Context(), c, question)
	must(t, err)
	if err := facts.Reconciling(); err != nil {
		t.Errorf("suspended: %v", err)
	}
	must(t, c.Patch(t.Context(), &suspended, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"suspend":false}}`))))
	must(t, c.Patch(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "kustomize-controller"}},
		client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":0}}`))))
	untilStatus(t, c, deployment.GroupVersionKind(), namespace, "kustomize-controller", func(status map[string]any) bool {
		return status["replicas"] == nil
	})
	check(c)
}

// What Flux applied of a Kustomization that held others, and what became of those: only what Flux itself would prune has left
// (S5.5, S5.8, S5.9, S5.17, S5.22).
func TestAdoptWhatLeftGit(t *testing.T) {
	c := connect(t, "")
	serveKustomizations(t, c)
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	id := func(name string) flux.ID { return flux.ID{Namespace: namespace, Name: name} }
	live := func(name, owner, spec, holds string) *unstructured.Unstructured {
		o := parse(t, `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
spec: {prune: true, interval: 10m, path: apps, sourceRef: {kind: GitRepository, name: flux-system}}
status:
  lastAppliedRevision: main@sha1:91bb0e2
  inventory:
    entries:
    - {id: default_of-NAME__ConfigMap, v: v1}
    - {id: NS_NAME_kustomize.toolkit.fluxcd.io_Kustomization, v: v1}
    - {id: NS_flux-system_source.toolkit.fluxcd.io_GitRepository, v: v1}`)
		o.SetNamespace(namespace)
		o.SetName(name)
		o.SetLabels(map[string]string{flux.NameLabel: owner, flux.NamespaceLabel: namespace})
		var more map[string]any
		must(t, yaml.Unmarshal([]byte(spec), &more))
		for key, value := range more {
			must(t, unstructured.SetNestedField(o.Object, value, "spec", key))
		}
		entries := []any{}
		for _, each := range append([]string{"default_of-" + name + "__ConfigMap", namespace + "_flux-system_source.toolkit.fluxcd.io_GitRepository"}, strings.Fields(holds)...) {
			if !strings.Contains(each, "_") {
				each = namespace + "_" + each + "_kustomize.toolkit.fluxcd.io_Kustomization"
			}
			entries = append(entries, map[string]any{"id": each, "v": "v1"})
		}
		must(t, unstructured.SetNestedSlice(o.Object, entries, "status", "inventory", "entries"))
		return o
	}
	marked := live("marked", "root", "{}", "")
	marked.SetAnnotations(map[string]string{flux.Group + "/prune": "Disabled"})
	for _, o := range []*unstructured.Unstructured{
		live("root", "root", "{}", "root kept left byhand ingit marked moved gone policy"),
		live("kept", "root", "{}", "below"),
		live("below", "kept", "{}", ""),
		live("left", "root", "{timeout: 90s, serviceAccountName: deployer, dependsOn: [{name: kept}]}", "nested"),
		live("nested", "left", "{}", ""),
		live("byhand", "root", "{}", ""),
		live("ingit", "root", "{suspend: true}", ""),
		live("moved", "another", "{}", ""),
		live("policy", "root", "{deletionPolicy: Orphan, prune: false}", ""),
		live("alone", "root", "{}", ""), // in no inventory
		marked,
	} {
		createLive(t, c, o, flux.FieldManager)
	}
	byhand := &unstructured.Unstructured{}
	byhand.SetGroupVersionKind(schema.GroupVersionKind{Group: flux.Group, Version: "v1", Kind: flux.KustomizationKind})
	byhand.SetNamespace(namespace)
	byhand.SetName("byhand")
	must(t, c.Patch(t.Context(), byhand, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"suspend":true}}`)), client.FieldOwner("flux")))

	commit := []flux.ID{id("root"), id("kept")}
	facts, err := Adopt(t.Context(), c, Question{Run: commit, First: commit[:1], Commit: commit})
	must(t, err)
	var got []string
	for _, r := range facts.AdoptLeft(id("root")) {
		line := fmt.Sprintf("%s of %s: %s, prune %t, suspended %t, %v", r.ID.Name, r.Parent.Name, r.DeletionPolicy, r.Prune, r.Suspended, r.Entries)
		got = append(got, line)
		if r.ID.Name == "left" && (r.Timeout != 90*time.Second || r.ServiceAccount != "deployer" || !slices.Equal(r.DependsOn, []flux.ID{id("kept")}) ||
			r.Root != id("root") || r.Revision != "main@sha1:91bb0e2" || r.Stored()) {
			t.Errorf("got %+v", r)
		}
	}
	want := []string{
		"byhand of root: MirrorPrune, prune true, suspended false, [default_of-byhand__ConfigMap v1]",
		"ingit of root: MirrorPrune, prune true, suspended true, [default_of-ingit__ConfigMap v1]",
		"left of root: MirrorPrune, prune true, suspended false, [default_of-left__ConfigMap v1]",
		"nested of left: MirrorPrune, prune true, suspended false, [default_of-nested__ConfigMap v1]",
		"policy of root: Orphan, prune false, suspended false, [default_of-policy__ConfigMap v1]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !slices.Equal(facts.Pinned, []flux.ID{id("marked")}) {
		t.Errorf("pinned: %v", facts.Pinned)
	}
	// A Kustomization that sluice has on record knows what it held.
	facts, err = Adopt(t.Context(), c, Question{Run: commit, Commit: commit})
	must(t, err)
	if len(facts.Left) > 0 || len(facts.Live) != 2 {
		t.Errorf("got %+v", facts)
	}
}

func TestS16_6_LeaseOfAController(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	lease := func(holder string, age time.Duration, seconds int32) *coordinationv1.Lease {
		at := metav1.NewMicroTime(now.Add(-age))
		return &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &at, LeaseDurationSeconds: &seconds}}
	}
	for _, tt := range []struct {
		name string
		l    *coordinationv1.Lease
		want bool
	}{
		{"renewed a moment ago", lease("a", time.Second, 35), true},
		{"by a clock that is ahead", lease("a", -time.Minute, 35), true},
		{"within what clocks may differ", lease("a", 60*time.Second, 35), true},
		{"expired", lease("a", 66*time.Second, 35), false},
		{"given back", lease("", time.Second, 1), false},
		{"never held", &coordinationv1.Lease{}, false},
	} {
		if got := held(tt.l, now); got != tt.want {
			t.Errorf("%s: got %t", tt.name, got)
		}
	}
}

func TestAdoptRefusesAnInventoryItCannotRead(t *testing.T) {
	_, err := readLive(parse(t, `metadata: {name: apps, namespace: flux-system}
status: {inventory: {entries: [{id: x, v: v1}, {id: z, v: v1}]}}`))
	if err == nil || !strings.Contains(err.Error(), `live Kustomization "flux-system/apps"`) || !strings.Contains(err.Error(), `"x"`) ||
		!strings.Contains(err.Error(), `"z"`) {
		t.Errorf("got %v", err)
	}
}
