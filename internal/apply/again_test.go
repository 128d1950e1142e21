package apply_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
	"github.com/sluicerun/sluice/internal/plan"
)

// planned plans objects, and returns a client that answers from the plan and
// options that know of it.
func planned(t *testing.T, c client.WithWatch, objects []flux.Object) (client.WithWatch, apply.Options) {
	t.Helper()
	o := apply.Options{}
	n := plan.Node{ID: flux.ID{Namespace: "flux-system", Name: "apps"}, Objects: objects, Rules: plan.Rules{SSA: o.SSA(), Recreate: o.Recreate}}
	p, err := plan.Make(t.Context(), plan.Options{Client: func(*plan.Node) (client.WithWatch, error) { return c, nil }, Owner: apply.Owner()}, []plan.Node{n})
	if err != nil {
		t.Fatal(err)
	}
	o.Known = func(object flux.Object) (flux.Ref, string, bool) { return p.Known(n.ID, object) }
	return p.Client(n.ID, c), o
}

// others writes as somebody else, by server-side apply.
func others(t *testing.T, c client.WithWatch, manager, namespace, text string) {
	t.Helper()
	o := parse(t, namespace, text)[0]
	if err := c.Patch(t.Context(), o.Unstructured, serverSideApply, client.FieldOwner(manager), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
}

func settingsWith(more string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {" + more + "}\n"
}

// What becomes of an object that changes after it was planned, and what that
// costs.
func TestChangedAfterThePlan(t *testing.T) {
	web := func(image, more string) string {
		return strings.Replace(deployment, "registry.example.com/web:1", image, 1) + more
	}
	const status = "status: {conditions: [{type: Noticed, status: \"True\"}]}\n"
	for _, tc := range []struct {
		name string
		// before is what this manager has applied; empty is nothing. desired
		// is planned, and meanwhile what somebody else does then.
		before, desired string
		meanwhile       func(t *testing.T, c client.WithWatch, ns string)
		want            apply.Action
		reason          string
		// What the apply costs after the plan.
		gets, dryRuns, applies int
		values                 string // of data or of the first container's image
	}{
		{"nothing", settingsWith(`a: "1"`), settingsWith(`a: "2"`), nil, apply.Configured, "", 0, 0, 1, `map[a:2]`},
		{"nothing, to a new one", "", settingsWith(`a: "2"`), nil, apply.Created, "", 0, 0, 1, `map[a:2]`},
		{"nothing, to an unchanged one", settingsWith(`a: "2"`), settingsWith(`a: "2"`), nil, apply.Unchanged, "", 0, 0, 0, `map[a:2]`},
		{"only its status", deployment, web("web:2", ""), func(t *testing.T, c client.WithWatch, ns string) {
			o := parse(t, ns, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"+status)[0]
			err := c.Status().Patch(t.Context(), o.Unstructured, client.RawPatch(types.MergePatchType,
				[]byte(`{"status":{"conditions":[{"type":"Noticed","status":"True"}]}}`)), client.FieldOwner("noticer"))
			if err != nil {
				t.Fatal(err)
			}
		}, apply.Configured, "", 1, 0, 2, "web:2"},
		{"a field of somebody else's", settingsWith(`a: "1"`), settingsWith(`a: "2"`), func(t *testing.T, c client.WithWatch, ns string) {
			others(t, c, "somebody", ns, settingsWith(`b: "7"`))
		}, apply.Configured, "somebody else changed it", 1, 1, 2, `map[a:2 b:7]`},
		{"one of ours, that others take", settingsWith(`a: "1"`), settingsWith(`a: "2"`), func(t *testing.T, c client.WithWatch, ns string) {
			others(t, c, "somebody", ns, settingsWith(`a: "9"`))
		}, apply.Configured, "somebody else changed it", 1, 1, 2, `map[a:2]`},
		{"a marker", settingsWith(`a: "1"`), settingsWith(`a: "2"`), func(t *testing.T, c client.WithWatch, ns string) {
			others(t, c, "somebody", ns, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, annotations: {kustomize.toolkit.fluxcd.io/reconcile: disabled}}\n")
		}, apply.Skipped, "the object in the cluster has kustomize.toolkit.fluxcd.io/reconcile: disabled", 1, 0, 1, `map[a:1]`},
		{"it is deleted", settingsWith(`a: "1"`), settingsWith(`a: "2"`), func(t *testing.T, c client.WithWatch, ns string) {
			if err := c.Delete(t.Context(), parse(t, ns, settingsWith(""))[0].Unstructured); err != nil {
				t.Fatal(err)
			}
		}, apply.Created, "somebody else changed it", 1, 1, 2, `map[a:2]`},
		{"it is deleted and made again", settingsWith(`a: "1"`), settingsWith(`a: "2"`), func(t *testing.T, c client.WithWatch, ns string) {
			if err := c.Delete(t.Context(), parse(t, ns, settingsWith(""))[0].Unstructured); err != nil {
				t.Fatal(err)
			}
			others(t, c, "somebody", ns, settingsWith(`a: "9", b: "7"`))
		}, apply.Configured, "somebody else changed it", 1, 1, 2, `map[a:2 b:7]`},
		{"it is made, with other values", "", settingsWith(`a: "2"`), func(t *testing.T, c client.WithWatch, ns string) {
			others(t, c, "kubectl", ns, settingsWith(`a: "9", b: "7"`))
		}, apply.Configured, "somebody else made it", 1, 1, 2, `map[a:2]`}, // b is taken over from kubectl, and goes (S4.24)
		{"it is made, with the same and other fields", "", settingsWith(`a: "2"`), func(t *testing.T, c client.WithWatch, ns string) {
			others(t, c, "somebody", ns, settingsWith(`a: "2", b: "7"`))
		}, apply.Configured, "somebody else made it", 1, 1, 1, `map[a:2 b:7]`},
		{"it is made, and is only wanted if it is not there", "",
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, annotations: {kustomize.toolkit.fluxcd.io/ssa: IfNotPresent}}\ndata: {a: \"2\"}\n",
			func(t *testing.T, c client.WithWatch, ns string) {
				others(t, c, "somebody", ns, settingsWith(`b: "7"`))
			},
			apply.Skipped, "it exists, and its manifest has", 1, 0, 0, `map[b:7]`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, ns := connect(t)
			if tc.before != "" {
				mustApply(t, c, prepared(t, ns, tc.before), apply.Options{})
			}
			if strings.Contains(tc.before, "Deployment") {
				// Its controller has its say first.
				await(t, c, prepared(t, ns, tc.before)[0], "available", func(o *unstructured.Unstructured) bool {
					n, _, _ := unstructured.NestedInt64(o.Object, "status", "availableReplicas")
					return n == 2
				})
			}
			objects := prepared(t, ns, tc.desired)
			counting, n := counted(c)
			answering, options := planned(t, counting, objects)
			if want := map[bool]int{true: 1}[tc.want != apply.Unchanged]; n.dryRun != want {
				t.Errorf("%d dry runs to plan it, want %d", n.dryRun, want)
			}
			if tc.meanwhile != nil {
				tc.meanwhile(t, c, ns)
			}
			n.get, n.dryRun, n.apply = 0, 0, 0
			results, err := apply.Apply(t.Context(), answering, objects, options)
			if err != nil || len(results) != 1 {
				t.Fatalf("%v, %v", results, err)
			}
			if r := results[0]; r.Action != tc.want || !strings.HasPrefix(r.Reason, tc.reason) || tc.reason == "" && r.Reason != "" {
				t.Errorf("%s (%s), want %s (%s…)", r.Action, r.Reason, tc.want, tc.reason)
			}
			if n.get != tc.gets || n.dryRun != tc.dryRuns || n.apply != tc.applies {
				t.Errorf("%d gets, %d dry runs, %d applies; want %d, %d, %d", n.get, n.dryRun, n.apply, tc.gets, tc.dryRuns, tc.applies)
			}
			live := get(t, c, objects[0])
			data, _, _ := unstructured.NestedStringMap(live.Object, "data")
			values := fmt.Sprint(data)
			if live.GetKind() == "Deployment" {
				containers, _, _ := unstructured.NestedSlice(live.Object, "spec", "template", "spec", "containers")
				values = fmt.Sprint(containers[0].(map[string]any)["image"])
			}
			if values != tc.values {
				t.Errorf("values %s, want %s", values, tc.values)
			}
			for _, m := range live.GetManagedFields() {
				if fields := m.FieldsV1.GetRawString(); strings.Contains(fields, "f:resourceVersion") || strings.Contains(fields, "f:uid") {
					t.Errorf("the condition is a field of %s now: %s", m.Manager, fields)
				}
			}
		})
	}
}

// Somebody who writes all the time cannot keep an object from being applied.
func TestChangedAllTheTime(t *testing.T) {
	c, ns := connect(t)
	mustApply(t, c, prepared(t, ns, settingsWith(`a: "1"`)), apply.Options{})
	objects := prepared(t, ns, settingsWith(`a: "2"`))
	var n atomic.Int32
	restless := interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if !rehearse.IsDryRunApply(patch, opts) {
				others(t, c, "somebody", ns, settingsWith(fmt.Sprintf(`b: "%d"`, n.Add(1))))
			}
			return c.Patch(ctx, obj, patch, opts...)
		},
	})
	answering, options := planned(t, restless, objects)
	if got := mustApply(t, answering, objects, options)["ConfigMap/settings"]; got != apply.Configured || n.Load() != 5 {
		t.Errorf("%s after %d attempts", got, n.Load())
	}
	if data, _, _ := unstructured.NestedString(get(t, c, objects[0]).Object, "data", "a"); data != "2" {
		t.Errorf("data.a is %q", data)
	}
}

// A write whose answer gets lost is repeated, and is then no change of somebody
// else's.
func TestLostAnswer(t *testing.T) {
	c, ns := connect(t)
	mustApply(t, c, prepared(t, ns, settingsWith(`a: "1"`)), apply.Options{})
	p := proxy.New(t, kubetest.Shared(t))
	kubeconfig := t.TempDir() + "/kubeconfig"
	if err := p.WriteKubeconfig(kubeconfig); err != nil {
		t.Fatal(err)
	}
	by, err := cluster.Connect(t.Context(), cluster.Options{Kubeconfig: kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	lossy, err := by.Client("")
	if err != nil {
		t.Fatal(err)
	}
	objects := prepared(t, ns, settingsWith(`a: "2"`)+"---\napiVersion: v1\nkind: Secret\nmetadata: {name: new}\nstringData: {a: b}\n")
	answering, options := planned(t, lossy, objects)
	p.Fail(proxy.Fault{Match: func(r proxy.Request) bool { return r.Writes() && r.Resource == "configmaps" }, Times: 1, Do: proxy.CutAfter()})
	p.Fail(proxy.Fault{Match: func(r proxy.Request) bool { return r.Writes() && r.Resource == "secrets" }, Times: 1, Do: proxy.CutAfter()})
	results, err := apply.Apply(t.Context(), answering, objects, options)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		want := apply.Configured
		if r.Object.GetKind() == "Secret" {
			want = apply.Created
		}
		if r.Action != want || r.Reason != "" {
			t.Errorf("%s: %s (%s), want %s", r.Ref, r.Action, r.Reason, want)
		}
	}
}

// What can only be judged at its turn costs then what others cost before: one dry
// run, and one apply.
func TestRequestsOfWhatIsJudgedLate(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, "", "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+ns+"-late}\n---\n"+
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: "+ns+"-late}\ndata: {a: b}\n")
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), objects[0].Unstructured); err != nil {
			t.Error(err)
		}
	})
	counting, n := counted(c)
	answering, options := planned(t, counting, objects)
	if n.dryRun != 1 || n.apply != 0 {
		t.Errorf("%d dry runs, %d applies to plan a namespace and what is in it", n.dryRun, n.apply)
	}
	n.get, n.dryRun = 0, 0
	mustApply(t, answering, objects, options)
	if n.get != 0 || n.dryRun != 1 || n.apply != 2 {
		t.Errorf("%d gets, %d dry runs, %d applies", n.get, n.dryRun, n.apply)
	}
}
