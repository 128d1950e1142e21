//go:build unix

package run_test

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
	"github.com/sluicerun/sluice/internal/run"
)

// readOnly fails the test unless each request is a read, a dry run, or the question
// who one is. There must be some.
func readOnly(t *testing.T, requests []proxy.Request) {
	t.Helper()
	if len(requests) == 0 {
		t.Error("no request was seen")
	}
	for _, r := range requests {
		ok := false
		switch r.Verb {
		case "get", "list", "watch", "discovery":
			ok = r.Method == "GET"
		case "dry-run":
			ok = r.Method == "PATCH" && reflect.DeepEqual(r.Query["dryRun"], []string{"All"})
		case "review":
			ok = r.Method == "POST" && r.Resource == "selfsubjectreviews"
		}
		if !ok {
			t.Errorf("a plan has sent %s (%s, %v)", r, r.Verb, r.Query)
		}
	}
}

// S12.15: a plan reads, and asks for dry runs, whatever it finds; also one that is
// saved. What the cluster holds is the same afterwards, down to the versions.
func TestPlanOnlyReads(t *testing.T) {
	remote, err := kubetest.Start(t.Context(), kubetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remote.Stop(); err != nil {
			t.Error(err)
		}
	})
	for name, test := range map[string]struct {
		// files are what is live, nil for nothing yet; bring goes on from there.
		files map[string]string
		bring func(w *world)
		in    *kubetest.Cluster // nil: the shared one
		want  []string          // what is planned, sorted
	}{
		"first install": {
			bring: func(w *world) {
				w.commit(map[string]string{"a.yaml": configMapA, "d.yaml": deployment, "new.yaml": newNamespace, "kind.yaml": newKind})
			},
			want: []string{"create ConfigMap/NAMESPACE-new/in", "create ConfigMap/NAMESPACE/a", "create CustomResourceDefinition/widgets.NAMESPACE.example.com",
				"create Deployment/NAMESPACE/d", "create Namespace/NAMESPACE-new", "create Widget/NAMESPACE/w"},
		},
		"nothing changed": {files: map[string]string{"a.yaml": configMapA, "d.yaml": deployment}},
		"changes": {
			files: map[string]string{"a.yaml": configMapA, "b.yaml": configMapB, "d.yaml": deployment, "s.yaml": secret},
			bring: func(w *world) {
				w.commit(map[string]string{"a.yaml": strings.ReplaceAll(configMapA, `"1"`, `"2"`), "s.yaml": strings.ReplaceAll(secret, "hunter2", "hunter3"),
					"d.yaml": strings.ReplaceAll(deployment, "app: d", "app: other")},
					gittest.File("entry/apps.yaml", w.kustomization("apps", "apps", ", force: true")))
			},
			want: []string{"configure ConfigMap/NAMESPACE/a", "configure Secret/NAMESPACE/s", "recreate Deployment/NAMESPACE/d"},
		},
		"prune and moves": {
			files: map[string]string{"a.yaml": configMapA, "b.yaml": configMapB},
			bring: func(w *world) {
				w.commit(nil, gittest.File("entry/web.yaml", w.kustomization("web", "web", "")), gittest.File("web/d.yaml", w.in(deployment)),
					gittest.File("entry/gone.yaml", w.kustomization("gone", "gone", "")), gittest.File("gone/s.yaml", w.in(secret)))
				w.live()
				w.commit(map[string]string{"a.yaml": "", "b.yaml": ""}, gittest.File("web/a.yaml", w.in(configMapA)), gittest.File("apps/d.yaml", w.in(deployment)),
					gittest.Remove("web/d.yaml"), gittest.Remove("gone/s.yaml"), gittest.Remove("entry/gone.yaml"))
			},
			want: []string{"configure ConfigMap/NAMESPACE/a", "configure Deployment/NAMESPACE/d", "delete ConfigMap/NAMESPACE/b", "delete Secret/NAMESPACE/s"},
		},
		"adoption from Flux": {
			in: remote,
			bring: func(w *world) {
				w.fluxHas(remote, "apps", "a", "b")
				w.commit(map[string]string{"a.yaml": configMapA})
			},
			want: []string{"configure ConfigMap/NAMESPACE/a", "delete ConfigMap/NAMESPACE/b"},
		},
		"another cluster": {
			files: map[string]string{"a.yaml": configMapA},
			bring: func(w *world) {
				w.commit(map[string]string{"a.yaml": ""}, gittest.File("apps/b.yaml", strings.ReplaceAll(configMapB, "NAMESPACE", "default")),
					gittest.File("entry/apps.yaml", w.kustomization("apps", "apps", ", kubeConfig: {secretRef: {name: east}}")))
			},
			want: []string{"create ConfigMap/default/b", "delete ConfigMap/NAMESPACE/a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := test.in
			if c == nil {
				c = kubetest.Shared(t)
			}
			w := newWorldIn(t, c, test.files)
			if test.files != nil {
				w.live()
			}
			east := proxy.New(t, remote)
			w.secretOf(east)
			if test.bring != nil {
				test.bring(w)
			}
			for i, want := range test.want {
				test.want[i] = w.in(want)
			}
			for _, save := range []bool{false, true} {
				before := w.versions()
				w.Take()
				e := w.do(run.CommandPlan, nil, func(o *run.Options) { o.SavePlan = save })
				requests := w.Take()
				if e.Verdict != event.VerdictPlanned || e.ExitCode != 0 || (e.Plan != nil) != save {
					t.Fatalf("%s; a plan is kept: %t, wanted: %t", e, e.Plan != nil, save)
				}
				if got := slices.Sorted(slices.Values(e.planned())); !slices.Equal(got, test.want) {
					t.Errorf("planned %q\nwant %q", got, test.want)
				}
				readOnly(t, requests)
				if name == "another cluster" {
					readOnly(t, east.Take())
				}
				if after := w.versions(); !reflect.DeepEqual(after, before) {
					t.Errorf("the cluster has changed\nfrom %v\nto   %v", before, after)
				}
			}
		})
	}
}

// live runs the commit.
func (w *world) live() {
	w.Helper()
	if e := w.do(run.CommandRun, nil); e.Verdict != event.Live {
		w.Fatal(e)
	}
}

// secretOf puts a kubeconfig that leads to a proxy into the Secret east.
func (w *world) secretOf(p *proxy.Proxy) {
	w.Helper()
	path := w.TempDir() + "/kubeconfig"
	if err := p.WriteKubeconfig(path); err != nil {
		w.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		w.Fatal(err)
	}
	if _, err := w.client.CoreV1().Secrets(w.namespace).Create(w.Context(),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "east"}, Data: map[string][]byte{"value": text}}, metav1.CreateOptions{}); err != nil {
		w.Fatal(err)
	}
}

// versions are the resource versions of what is in the namespace that no controller
// works on.
func (w *world) versions() map[string]string {
	w.Helper()
	all := map[string]string{}
	maps, err := w.client.CoreV1().ConfigMaps(w.namespace).List(w.Context(), metav1.ListOptions{})
	if err != nil {
		w.Fatal(err)
	}
	for _, o := range maps.Items {
		all["ConfigMap "+o.Name] = o.ResourceVersion
	}
	secrets, err := w.client.CoreV1().Secrets(w.namespace).List(w.Context(), metav1.ListOptions{})
	if err != nil {
		w.Fatal(err)
	}
	for _, o := range secrets.Items {
		all["Secret "+o.Name] = o.ResourceVersion
	}
	leases, err := w.client.CoordinationV1().Leases(w.namespace).List(w.Context(), metav1.ListOptions{})
	if err != nil {
		w.Fatal(err)
	}
	for _, o := range leases.Items {
		all["Lease "+o.Name] = o.ResourceVersion
	}
	return all
}

// fluxHas makes the cluster look as if Flux had run a Kustomization of these
// ConfigMaps and was suspended since.
func (w *world) fluxHas(c *kubetest.Cluster, name string, configMaps ...string) {
	w.Helper()
	api, err := client.New(c.Config(), client.Options{})
	if err != nil {
		w.Fatal(err)
	}
	definition, err := os.ReadFile("../../testdata/crds/kustomize.toolkit.fluxcd.io_kustomizations.yaml")
	if err != nil {
		w.Fatal(err)
	}
	crd := w.apply(api, string(definition))
	for !established(crd) {
		if err := api.Get(w.Context(), client.ObjectKeyFromObject(crd), crd); err != nil {
			w.Fatal(err)
		}
	}
	var entries []map[string]string
	for _, configMap := range configMaps {
		w.apply(api, w.in(fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n  namespace: NAMESPACE\n"+
			"  labels: {kustomize.toolkit.fluxcd.io/name: %s, kustomize.toolkit.fluxcd.io/namespace: NAMESPACE}\ndata: {x: \"0\"}\n", configMap, name)))
		entries = append(entries, map[string]string{"id": w.namespace + "_" + configMap + "__ConfigMap", "v": "v1"})
	}
	live := w.apply(api, w.kustomization(name, name, ", suspend: true"))
	status, err := json.Marshal(map[string]any{"status": map[string]any{"inventory": map[string]any{"entries": entries}}})
	if err != nil {
		w.Fatal(err)
	}
	if err := api.Status().Patch(w.Context(), live, client.RawPatch(types.MergePatchType, status)); err != nil {
		w.Fatal(err)
	}
}

// apply applies an object as Flux does.
func (w *world) apply(api client.Client, manifest string) *unstructured.Unstructured {
	w.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &o.Object); err != nil {
		w.Fatal(err)
	}
	for {
		err := api.Apply(w.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("kustomize-controller"))
		if err == nil {
			return o
		}
		// A definition made a moment ago may not be served by every part of the server yet.
		if client.IgnoreNotFound(err) != nil || o.GetKind() != "Kustomization" {
			w.Fatal(err)
		}
	}
}

func established(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(each any) bool {
		condition, _ := each.(map[string]any)
		return condition["type"] == "Established" && condition["status"] == "True"
	})
}

const (
	secret       = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: NAMESPACE}\nstringData: {password: hunter2}\n"
	newNamespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: NAMESPACE-new}\n---\n" +
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: in, namespace: NAMESPACE-new}\n"
	newKind = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.NAMESPACE.example.com}\n" +
		"spec:\n  group: NAMESPACE.example.com\n  names: {kind: Widget, plural: widgets}\n  scope: Namespaced\n  versions:\n" +
		"    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}}\n---\n" +
		"apiVersion: NAMESPACE.example.com/v1\nkind: Widget\nmetadata: {name: w, namespace: NAMESPACE}\nspec: {size: 3}\n"
)
