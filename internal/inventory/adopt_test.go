package inventory

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
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

// serveKustomizations gives the cluster Flux's kind, with a status that a test can write.
func serveKustomizations(t *testing.T, c client.WithWatch) {
	t.Helper()
	crd := parse(t, `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: kustomizations.kustomize.toolkit.fluxcd.io}
spec:
  group: kustomize.toolkit.fluxcd.io
  scope: Namespaced
  names: {plural: kustomizations, singular: kustomization, kind: Kustomization, listKind: KustomizationList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}`)
	must(t, c.Create(t.Context(), crd))
	t.Cleanup(func() { must(t, c.Delete(context.Background(), crd)) })
	untilStatus(t, c, crd.GroupVersionKind(), "", crd.GetName(), func(status map[string]any) bool {
		conditions, _ := status["conditions"].([]any)
		return slices.ContainsFunc(conditions, func(each any) bool {
			condition, _ := each.(map[string]any)
			return condition["type"] == "Established" && condition["status"] == "True"
		})
	})
}

func createServed(t *testing.T, c client.Client, o client.Object) {
	t.Helper()
	for {
		// A definition made a moment ago may not be served by every part of the server yet.
		err := c.Create(t.Context(), o)
		if err == nil {
			return
		}
		if client.IgnoreNotFound(err) != nil && !meta.IsNoMatchError(err) {
			t.Fatal(err)
		}
	}
}

func TestAdopt(t *testing.T) {
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	apps, web := flux.ID{Namespace: namespace, Name: "apps"}, flux.ID{Namespace: namespace, Name: "web"}
	wanted := []flux.ID{apps, web, {Namespace: namespace, Name: "new"}}

	facts, err := Adopt(t.Context(), c, wanted)
	must(t, err)
	if facts.Served || facts.Reconciling() != nil {
		t.Errorf("a cluster without Flux: %+v", facts)
	}

	serveKustomizations(t, c)
	live := `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: NS}
spec: {prune: true, interval: 10m}
status:
  lastAppliedRevision: main@sha1:91bb0e2
  inventory:
    entries:
    - {id: grade-api_web_apps_Deployment, v: v1}
    - {id: _system__view_rbac.authorization.k8s.io_ClusterRole, v: v1}`
	live = strings.ReplaceAll(live, "NS", namespace)
	createServed(t, c, parse(t, live))
	other := parse(t, live)
	other.SetName("web")
	must(t, unstructured.SetNestedField(other.Object, true, "spec", "suspend"))
	must(t, c.Create(t.Context(), other))
	foreign := parse(t, live)
	foreign.SetName("foreign")
	must(t, c.Create(t.Context(), foreign))

	check := func(c client.Client) {
		t.Helper()
		facts, err := Adopt(t.Context(), c, wanted)
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
		_, err := Adopt(t.Context(), ci, wanted)
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
	facts, err = Adopt(t.Context(), c, wanted)
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
	facts, err = Adopt(t.Context(), c, wanted)
	must(t, err)
	if err := facts.Reconciling(); err != nil {
		t.Errorf("suspended: %v", err)
	}
	must(t, c.Patch(t.Context(), &suspended, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"suspend":false}}`))))
	must(t, c.Patch(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "kustomize-controller"}},
		client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":0}}`))))
	untilStatus(t, c, deployment.GroupVersionKind(), namespace, "kustomize-controller", func(status map[string]any) bool {
		return status["readyReplicas"] == nil
	})
	check(c)
}

func TestAdoptRefusesAnInventoryItCannotRead(t *testing.T) {
	_, err := readLive(parse(t, `metadata: {name: apps, namespace: flux-system}
status: {inventory: {entries: [{id: x, v: v1}, {id: z, v: v1}]}}`))
	if err == nil || !strings.Contains(err.Error(), `live Kustomization "flux-system/apps"`) || !strings.Contains(err.Error(), `"x"`) ||
		!strings.Contains(err.Error(), `"z"`) {
		t.Errorf("got %v", err)
	}
}
