package apply_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
)

// S4.14: a failing stage is the last. Earlier ones stay applied and are told
// along with the error, later ones are not begun; the same if the wait after a
// stage fails.
func TestS4_14FailingStageIsTheLast(t *testing.T) {
	c, ns := connect(t)
	text := `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: ` + ns + `}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: NAME}
value: VALUE
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NAME}
`
	for _, tc := range []struct {
		name, value string
		wait        error
		applied     []string
		err         string
	}{
		{name: ns + "-refused", value: "many", applied: []string{"ClusterRole"}, err: "PriorityClass/" + ns + "-refused dry-run failed"},
		{name: ns + "-unready", value: "5", wait: errors.New("no"), applied: []string{"ClusterRole"}, err: "timeout waiting for the stage of definitions [ClusterRole/" + ns + "-unready]: no"},
	} {
		objects := prepared(t, "", strings.NewReplacer("NAME", tc.name, "VALUE", tc.value).Replace(text))
		t.Cleanup(func() {
			for _, o := range objects {
				if err := c.Delete(context.Background(), o.DeepCopy().Unstructured); err != nil && !apierrors.IsNotFound(err) {
					t.Error(err)
				}
			}
		})
		// A role is Current at once; so that it is waited for, it does not
		// look so.
		unready := interceptor.NewClient(c, interceptor.Funcs{
			Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
				err := c.Patch(ctx, obj, patch, opts...)
				if u := obj.(*unstructured.Unstructured); err == nil && tc.wait != nil && u.GetKind() == "ClusterRole" {
					u.Object["status"] = map[string]any{"observedGeneration": int64(-1), "conditions": []any{map[string]any{"type": "Reconciling", "status": "True"}}}
				}
				return err
			},
		})
		results, err := apply.Apply(t.Context(), unready, objects, apply.Options{StageWait: func(context.Context, []flux.Ref) error { return tc.wait }})
		if err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.err)
		}
		var applied []string
		for _, r := range results {
			if r.Err == nil {
				applied = append(applied, r.Ref.Kind)
			}
		}
		if strings.Join(applied, " ") != strings.Join(tc.applied, " ") {
			t.Errorf("%s: applied %v, want %v", tc.name, applied, tc.applied)
		}
		if get(t, c, objects[2]) == nil || get(t, c, objects[1]) != nil || get(t, c, objects[0]) != nil {
			t.Errorf("%s: the role must exist, the class and the settings must not", tc.name)
		}
	}
}

// S4.13: a Namespace that is being deleted fails the Kustomization if it does
// not go in time; when it has gone, it is made again.
func TestS4_13TerminatingNamespace(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, "", "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+ns+"-inner}\n---\n"+configMap)
	for _, o := range objects[1:] {
		o.SetNamespace(ns + "-inner")
		o.SetFinalizers([]string{"example.com/hold"})
	}
	mustApply(t, c, objects, apply.Options{})
	release := func() error {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		return client.IgnoreNotFound(c.Patch(context.Background(), objects[1].DeepCopy().Unstructured, patch))
	}
	t.Cleanup(func() {
		if err := errors.Join(release(), c.Delete(context.Background(), objects[0].DeepCopy().Unstructured)); err != nil {
			t.Error(err)
		}
	})
	if err := c.Delete(t.Context(), objects[0].DeepCopy().Unstructured); err != nil {
		t.Fatal(err)
	}
	_, err := apply.Apply(t.Context(), c, objects, apply.Options{RecreateTimeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "Namespace/"+ns+"-inner is being deleted since ") {
		t.Errorf("error %v", err)
	}
	old := get(t, c, objects[0])
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if got := mustApply(t, c, objects, apply.Options{})["Namespace/"+ns+"-inner"]; got != apply.Recreated && got != apply.Created {
		t.Errorf("action %q", got)
	}
	if now := get(t, c, objects[0]); now == nil || now.GetUID() == old.GetUID() || get(t, c, objects[1]) == nil {
		t.Error("namespace and content were not made again")
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}

// S4.22: servers of old answer the dry run of an autoscaler with the first
// metric twice and an empty one at the end. That is no drift.
func TestS4_22AutoscalerMetrics(t *testing.T) {
	c, ns := connect(t)
	text := `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: none}
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
`
	objects := prepared(t, ns, text)
	mustApply(t, c, objects, apply.Options{})
	old := interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if err := c.Patch(ctx, obj, patch, opts...); err != nil || !rehearse.IsDryRunApply(patch, opts) {
				return err
			}
			u := obj.(*unstructured.Unstructured)
			metrics, _, err := unstructured.NestedSlice(u.Object, "spec", "metrics")
			if err != nil {
				return err
			}
			return unstructured.SetNestedSlice(u.Object, append(metrics, metrics[0], map[string]any{"type": ""}), "spec", "metrics")
		},
	})
	if got := mustApply(t, old, objects, apply.Options{})["HorizontalPodAutoscaler/web"]; got != apply.Unchanged {
		t.Errorf("action %q", got)
	}
	changed := prepared(t, ns, strings.Replace(text, "80", "70", 1))
	if got := mustApply(t, old, changed, apply.Options{})["HorizontalPodAutoscaler/web"]; got != apply.Configured {
		t.Errorf("changed: action %q", got)
	}
}

// S4.48: the texts of refusals; a conflict of field managers is called so.
func TestS4_48Texts(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, ns, configMap)
	other := parse(t, ns, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: other}")[0]
	if err := c.Patch(t.Context(), other.Unstructured, serverSideApply, client.FieldOwner("somebody")); err != nil {
		t.Fatal(err)
	}
	// Conflicts are won (S4.21); without force the server tells them.
	timid := interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, _ ...client.PatchOption) error {
			return c.Patch(ctx, obj, patch, client.DryRunAll, client.FieldOwner(flux.FieldManager))
		},
	})
	_, err := apply.Apply(t.Context(), timid, objects, apply.Options{Force: true})
	if want := "apps/settings.yaml: ConfigMap/" + ns + `/settings dry-run failed (FieldManagerConflict): Apply failed with 1 conflict: conflict with "somebody": .data.a`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if get(t, c, objects[0]).GetDeletionTimestamp() != nil {
		t.Error("S4.28: a conflict is no reason to delete")
	}
	failing := interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if rehearse.IsDryRunApply(patch, opts) {
				return c.Patch(ctx, obj, patch, opts...)
			}
			return apierrors.NewGenericServerResponse(http.StatusBadRequest, "patch", schema.GroupResource{Resource: "configmaps"}, "settings", "no", 0, true)
		},
	})
	_, err = apply.Apply(t.Context(), failing, objects, apply.Options{})
	if err == nil || !strings.HasPrefix(err.Error(), "apps/settings.yaml: ConfigMap/"+ns+"/settings apply failed: ") {
		t.Errorf("error %v", err)
	}
}

// S4.28: what holds data is made again by force only if it is allowed by name.
func TestS4_28AllowDelete(t *testing.T) {
	c, ns := connect(t)
	before, after := prepared(t, ns, claim("1Gi")), prepared(t, ns, strings.Replace(claim("1Gi"), "spec: {", "spec: {storageClassName: other, ", 1))
	mustApply(t, c, before, apply.Options{})
	old := get(t, c, before[0])
	for _, o := range []apply.Options{{Force: true}, {Force: true, AllowDelete: []string{"Namespace"}}, {AllowDelete: []string{"PersistentVolumeClaim"}}} {
		if _, err := apply.Apply(t.Context(), c, after, o); err == nil || get(t, c, before[0]).GetUID() != old.GetUID() {
			t.Errorf("%+v: error %v", o, err)
		}
	}
	allowed := apply.Options{Force: true, AllowDelete: []string{"persistentvolumeclaim"}}
	if got := mustApply(t, c, after, allowed)["PersistentVolumeClaim/data"]; got != apply.Recreated || get(t, c, after[0]).GetUID() == old.GetUID() {
		t.Errorf("action %q", got)
	}
}
