package discover_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/discover"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// TestPublishedSchemaIsOfTheLinkedRelease: the definition that specs of v1 are
// checked with is that of the release whose types hold them. (That the one in
// testdata is of this release, another test sees to.)
func TestPublishedSchemaIsOfTheLinkedRelease(t *testing.T) {
	text, err := os.ReadFile("../../testdata/crds/kustomize.toolkit.fluxcd.io_kustomizations.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var definition struct {
		Spec struct {
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	if err := yaml.Unmarshal(text, &definition); err != nil {
		t.Fatal(err)
	}
	if v := definition.Spec.Versions; len(v) != 1 || v[0].Name != "v1" || !reflect.DeepEqual(v[0].Schema.OpenAPIV3Schema, published(t, "v1")) {
		t.Error("run go run testdata/crds/generate.go")
	}
}

// apart says why sluice and the API server disagree on a trial: on purpose, and
// only here.
func apart(tr trial) string {
	version, name, _ := strings.Cut(tr.name, " ")
	switch {
	case name == "spec removed":
		return "a server takes an object without a spec, and Flux then finds no source"
	case version == "v1beta1" && (strings.HasPrefix(name, "spec.interval ") || strings.HasPrefix(name, "spec.timeout ") || strings.HasPrefix(name, "spec.retryInterval ")):
		return "v1beta1 left the form of durations to the controller; they are read as v1's"
	case strings.HasPrefix(name, "spec.patchesStrategicMerge"):
		return "any value is taken as a patch, and the build then fails on what is no object"
	}
	return ""
}

// TestServerAgrees (S1.1 to S1.5, S1.18): what a real API server with Flux's
// definition takes, discover takes and reads as the same spec; what it refuses,
// discover refuses. Differences are those that apart knows.
func TestServerAgrees(t *testing.T) {
	c := kubetest.Shared(t)
	define(t, c.Config())
	namespace := kubetest.Namespace(t, c)
	config := rest.CopyConfig(c.Config())
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	total, different := map[bool]int{}, map[string]int{}
	for _, version := range []string{"v1", "v1beta2", "v1beta1"} {
		all := trials(t, version)
		if len(all) < 150 {
			t.Errorf("only %d trials of %s", len(all), version)
		}
		resource := client.Resource(schema.GroupVersionResource{Group: flux.Group, Version: version, Resource: "kustomizations"}).Namespace(namespace)
		verdicts := make([]verdict, len(all))
		var wait sync.WaitGroup
		next := make(chan int)
		for range 8 {
			wait.Go(func() {
				for i := range next {
					verdicts[i] = ask(t.Context(), resource, namespace, all[i])
				}
			})
		}
		for i := range all {
			next <- i
		}
		close(next)
		wait.Wait()
		for i, tr := range all {
			v := verdicts[i]
			if v.broken != nil {
				t.Fatalf("%s: %v", tr.name, v.broken)
			}
			if strings.HasSuffix(tr.name, " full") && v.refused != nil {
				t.Fatalf("%s: what the others are made of is refused: %v", tr.name, v.refused)
			}
			total[v.refused == nil]++
			spec, refused := read(t, tr)
			agree := (refused == nil) == (v.refused == nil) && (refused != nil || text(spec) == text(v.spec))
			if reason := apart(tr); reason != "" {
				if !agree {
					different[reason]++
				}
				if refused == nil && v.refused != nil {
					t.Errorf("%s: taken although the server says %v", tr.name, v.refused)
				}
				continue
			}
			if !agree {
				t.Errorf("%s:\n server  %v %s\n discover %v %s", tr.name, v.refused, text(v.spec), refused, text(spec))
			}
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(different)) {
		t.Logf("%d differ on purpose: %s", different[reason], reason)
	}
	if len(different) != 3 {
		t.Error("the differences are not the three that apart gives reasons for")
	}
	t.Logf("%d taken, %d refused", total[true], total[false])
	if total[true] < 150 || total[false] < 150 {
		t.Errorf("%d taken, %d refused: the trials are not aimed at both", total[true], total[false])
	}
}

// text is what specs are compared by: it leaves out empty lists as absent ones.
func text(spec *kustomizev1.KustomizationSpec) string {
	out, _ := json.Marshal(spec)
	return string(out)
}

// verdict is what the server says: a refusal, or the spec with its defaults.
type verdict struct {
	refused error
	spec    *kustomizev1.KustomizationSpec
	broken  error
}

// ask sends the request that Flux applies a child with, as a dry run.
func ask(ctx context.Context, resource dynamic.ResourceInterface, namespace string, tr trial) verdict {
	object := clone(tr.object)
	set(object, []any{"metadata", "namespace"}, namespace)
	name, _, _ := unstructured.NestedString(object, "metadata", "name")
	body, err := json.Marshal(object)
	if err != nil {
		return verdict{broken: err}
	}
	force := true
	got, err := resource.Patch(ctx, name, types.ApplyPatchType, body, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}, FieldManager: flux.FieldManager, Force: &force})
	var status apierrors.APIStatus
	switch {
	case err == nil:
	case errors.As(err, &status) && (status.Status().Code == http.StatusUnprocessableEntity || status.Status().Code == http.StatusBadRequest ||
		strings.Contains(err.Error(), "failed to create typed patch object")):
		return verdict{refused: err}
	case strings.Contains(err.Error(), "invalid resource name"):
		return verdict{refused: err} // the client's own check
	default:
		return verdict{broken: err}
	}
	spec, err := typed(got.Object["spec"])
	return verdict{spec: spec, refused: err} // what is stored, but cannot be read, is as good as refused
}

func typed(spec any) (*kustomizev1.KustomizationSpec, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	var out kustomizev1.KustomizationSpec
	return &out, json.Unmarshal(text, &out)
}

// read is what discover says.
func read(t *testing.T, tr trial) (*kustomizev1.KustomizationSpec, error) {
	t.Helper()
	o := flux.Object{Unstructured: &unstructured.Unstructured{Object: clone(tr.object)}, File: file}
	found, err := discover.Split(parent, nil, []flux.Object{o})
	if err != nil {
		return nil, err
	}
	return &found.Kustomizations[0].Spec, nil
}

// define makes the server serve all versions of Kustomization that there ever
// was a definition of, each with its own last one, and waits until it does.
func define(t *testing.T, config *rest.Config) {
	t.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	var versions []any
	for _, version := range []string{"v1", "v1beta2", "v1beta1"} {
		versions = append(versions, map[string]any{
			"name": version, "served": true, "storage": version == "v1",
			"schema":       map[string]any{"openAPIV3Schema": published(t, version)},
			"subresources": map[string]any{"status": map[string]any{}},
		})
	}
	crd := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1",
		"kind":       "CustomResourceDefinition",
		"metadata":   map[string]any{"name": "kustomizations." + flux.Group},
		"spec": map[string]any{
			"group": flux.Group, "scope": "Namespaced",
			"names":    map[string]any{"plural": "kustomizations", "singular": "kustomization", "kind": "Kustomization", "listKind": "KustomizationList"},
			"versions": versions,
		},
	}}
	definitions := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	made, err := definitions.Create(t.Context(), crd, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := definitions.Delete(context.Background(), crd.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	w, err := definitions.Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + crd.GetName(), ResourceVersion: made.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if o, ok := e.Object.(*unstructured.Unstructured); ok && e.Type == watch.Modified && established(o) {
			return
		}
	}
	t.Fatal("the definition was not established")
}

func established(o *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(each any) bool {
		condition, _ := each.(map[string]any)
		return condition["type"] == "Established" && condition["status"] == "True"
	})
}
