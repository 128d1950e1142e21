package definition_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/definition"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// bases are objects that fit their definitions and have something in every
// field of interest. The trials are made of them.
var bases = map[string][]string{
	"testdata/gadgets.yaml": {`
apiVersion: shop.example.com/v1
kind: Gadget
metadata: {name: g, labels: {a: b}, annotations: {c: d}, finalizers: [example.com/f], ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: c, uid: u}]}
spec:
  size: 3
  ratio: 1.5
  lit: true
  tier: gold
  name: abc
  replicas: 2
  none: x
  since: "2020-01-01T00:00:00Z"
  after: 3h
  address: 10.0.0.1
  mail: a@example.com
  blob: aGFsbG8=
  link: https://example.com/
  id: 6ba7b810-9dad-11d1-80b4-00c04fd430c8
  port: http
  amount: 3
  colours: [red, blue]
  plain: [1, 2]
  block: [{a: x}]
  parts: [{name: en, weight: 1}, {name: m, kind: nut}]
  limits: {cpu: 1}
  free: {a: {b: 1}}
  any: [1, x]
  template: {apiVersion: v1, kind: ConfigMap, metadata: {name: c, labels: {a: b}}, data: {a: b}}
  strict: {apiVersion: v1, kind: ConfigMap, metadata: {name: c}, spec: {a: b}}
  choice: {left: x}
  strong: {deep: abcd}
status: {replicas: 1}
`, `
apiVersion: shop.example.com/v2
kind: Gadget
metadata: {name: g}
spec: {anything: [goes]}
`, `
apiVersion: shop.example.com/v0
kind: Gadget
metadata: {name: g}
`},
	"../../testdata/crds/kustomize.toolkit.fluxcd.io_kustomizations.yaml": {`
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: k}
spec:
  interval: 5m
  timeout: 2m
  prune: true
  path: ./a
  sourceRef: {kind: GitRepository, name: g}
  dependsOn: [{name: a}]
  healthChecks: [{apiVersion: apps/v1, kind: Deployment, name: d, namespace: en}]
  postBuild: {substitute: {a: b}, substituteFrom: [{kind: ConfigMap, name: c}]}
  images: [{name: a, newTag: "1"}]
  patches: [{patch: "x", target: {kind: Deployment}}]
`},
	"../../testdata/crds/source.toolkit.fluxcd.io_helmrepositories.yaml": {`
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: h}
spec: {interval: 5m, url: "https://example.com/charts", type: default, provider: generic, secretRef: {name: s}}
`},
	"../../testdata/crds/source.toolkit.fluxcd.io_buckets.yaml": {`
apiVersion: source.toolkit.fluxcd.io/v1
kind: Bucket
metadata: {name: b}
spec: {interval: 5m, bucketName: b, endpoint: e.example.com, provider: generic, secretRef: {name: s}}
`},
}

// values are what each field is given in turn.
var values = []any{
	nil, "", "x", "mud", "forbidden", "UPPER_case!", strings.Repeat("long", 80), "12", "2h", int64(0), int64(-1), int64(7), int64(1000), 1.5, 0.25, true,
	[]any{}, []any{"x", "x"}, []any{int64(1), int64(1)}, []any{"a", "b", "c", "d"}, []any{map[string]any{"name": "n"}, map[string]any{"name": "n", "kind": "bolt"}},
	map[string]any{}, map[string]any{"x": int64(-3)}, map[string]any{"a": "x", "b": "y", "c": "z"}, map[string]any{"left": "x", "right": "y"}, map[string]any{"deep": "ab", "bad": "x"},
}

// trials are the base and all that differs from it in one place.
func trials(base map[string]any) []map[string]any {
	all := []map[string]any{base}
	var walk func(path []any, value any)
	change := func(path []any, edit func(parent any, step any)) {
		o := runtime.DeepCopyJSON(base)
		var at any = o
		for _, step := range path[:len(path)-1] {
			switch step := step.(type) {
			case string:
				at = at.(map[string]any)[step]
			case int:
				at = at.([]any)[step]
			}
		}
		edit(at, path[len(path)-1])
		all = append(all, o)
	}
	walk = func(path []any, value any) {
		if len(path) > 0 && !slices.Contains([]any{"apiVersion", "kind"}, path[0]) && !slices.Equal(path, []any{"metadata"}) {
			for _, v := range values {
				change(path, func(parent, step any) {
					switch parent := parent.(type) {
					case map[string]any:
						parent[step.(string)] = runtime.DeepCopyJSONValue(v)
					case []any:
						parent[step.(int)] = runtime.DeepCopyJSONValue(v)
					}
				})
			}
			change(path, func(parent, step any) {
				if m, ok := parent.(map[string]any); ok {
					delete(m, step.(string))
				}
			})
		}
		switch value := value.(type) {
		case map[string]any:
			change(append(slices.Clone(path), "surplus"), func(parent, step any) { parent.(map[string]any)["surplus"] = "x" })
			for _, name := range slices.Sorted(maps.Keys(value)) {
				walk(append(slices.Clone(path), name), value[name])
			}
		case []any:
			for i := range value {
				walk(append(slices.Clone(path), i), value[i])
			}
		}
	}
	walk(nil, base)
	return all
}

// apart says why the server and Check disagree on purpose.
func apart(o *unstructured.Unstructured) string {
	if short, given, _ := unstructured.NestedString(o.Object, "spec", "short"); given && short != "" {
		return "a format that only newer servers know"
	}
	return ""
}

// Whatever Check refuses the server refuses, and the other way round: with the
// definition in the cluster, a server-side apply of the same object as a dry run.
func TestAsTheServer(t *testing.T) {
	k := kubetest.Shared(t)
	client, err := dynamic.NewForConfig(k.Config())
	if err != nil {
		t.Fatal(err)
	}
	namespace := kubetest.Namespace(t, k)
	for _, file := range slices.Sorted(maps.Keys(bases)) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			crd := &unstructured.Unstructured{Object: load(t, file)}
			d, err := definition.New(crd)
			if err != nil {
				t.Fatal(err)
			}
			define(t, client, crd)
			plural, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "plural")
			var mu sync.Mutex
			refused, accepted := 0, 0
			g := &errgroup.Group{}
			g.SetLimit(8)
			for _, text := range bases[file] {
				base := parse(t, []byte(text))
				good := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(base)}
				good.SetNamespace(namespace)
				if err := d.Check(good); err != nil && good.GroupVersionKind().Version != "v0" {
					t.Fatalf("what the trials begin with is refused: %v", err)
				}
				for _, content := range trials(base) {
					g.Go(func() error {
						o := &unstructured.Unstructured{Object: content}
						if o.GetName() == "" {
							return nil // has no address
						}
						o.SetNamespace(namespace)
						body, err := json.Marshal(o.Object)
						if err != nil {
							return err
						}
						mine := d.Check(o)
						gv, err := schema.ParseGroupVersion(o.GetAPIVersion())
						if err != nil {
							return err
						}
						force := true
						_, err = client.Resource(gv.WithResource(plural)).Namespace(namespace).Patch(context.Background(), o.GetName(), types.ApplyPatchType, body,
							metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}, FieldManager: "test", Force: &force})
						mu.Lock()
						defer mu.Unlock()
						switch theirs := refusal(err); {
						case err != nil && !theirs:
							t.Errorf("%s: %v", body, err)
						case theirs != (mine != nil) && apart(o) == "":
							t.Errorf("%s\nhere:   %v\nserver: %v", body, mine, err)
						case theirs:
							refused++
						default:
							accepted++
						}
						return nil
					})
				}
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			if refused < 20 || accepted < 20 {
				t.Errorf("%d trials refused, %d accepted: too few to say anything", refused, accepted)
			}
			t.Logf("%d trials refused, %d accepted", refused, accepted)
		})
	}
}

// refusal reports whether an answer is that the object does not fit.
func refusal(err error) bool {
	var status apierrors.APIStatus
	if err == nil || !errors.As(err, &status) {
		return err != nil && strings.Contains(err.Error(), "invalid resource name")
	}
	return status.Status().Code == http.StatusUnprocessableEntity || status.Status().Code == http.StatusBadRequest ||
		strings.Contains(err.Error(), "failed to create typed patch object") || apierrors.IsNotFound(err)
}

func load(t *testing.T, file string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, text)
}

// parse reads numbers as the product does: whole ones as int64.
func parse(t *testing.T, text []byte) map[string]any {
	t.Helper()
	text, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	return o.Object
}

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// define makes the server serve a definition, and waits until it does.
func define(t *testing.T, client dynamic.Interface, crd *unstructured.Unstructured) {
	t.Helper()
	made, err := client.Resource(definitions).Create(t.Context(), crd, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Resource(definitions).Delete(context.Background(), crd.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	w, err := client.Resource(definitions).Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + crd.GetName(), ResourceVersion: made.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if o, ok := e.Object.(*unstructured.Unstructured); ok && e.Type == watch.Modified && strings.Contains(fmt.Sprint(o.Object["status"]), "status:True type:Established") {
			return
		}
	}
	t.Fatal("the definition was not established")
}
