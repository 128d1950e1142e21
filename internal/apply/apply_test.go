package apply_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

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

const configMap = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: "1", b: "2"}
`

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: app
        image: registry.example.com/web:1
        ports: [{containerPort: 8080}]
`

// S4.20, S4.45: what is as desired gets no write.
func TestS4_20UnchangedIsLeftAlone(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, ns, configMap+"---"+deployment)
	before := objects[0].DeepCopy()
	want := map[string]apply.Action{"ConfigMap/settings": apply.Created, "Deployment/web": apply.Created}
	if got := mustApply(t, c, objects, apply.Options{}); !reflect.DeepEqual(got, want) {
		t.Errorf("first: %v, want %v", got, want)
	}
	version := get(t, c, objects[0]).GetResourceVersion()
	counting, n := counted(c)
	want = map[string]apply.Action{"ConfigMap/settings": apply.Unchanged, "Deployment/web": apply.Unchanged}
	if got := mustApply(t, counting, objects, apply.Options{}); !reflect.DeepEqual(got, want) {
		t.Errorf("second: %v, want %v", got, want)
	}
	if n.writes() != 0 {
		t.Errorf("second: %d writes", n.writes())
	}
	if now := get(t, c, objects[0]).GetResourceVersion(); now != version {
		t.Errorf("resource version moved from %s to %s", version, now)
	}
	if !reflect.DeepEqual(before.Object, objects[0].Object) {
		t.Error("the caller's object was changed")
	}
}

// S4.21, S4.23: conflicts are won; a field that left the manifest leaves the
// object.
func TestS4_21S4_23OwnershipByServerSideApply(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, ns, configMap)
	mustApply(t, c, objects, apply.Options{})
	live := get(t, c, objects[0])
	if got := managers(live, `"f:a"`); !slices.Equal(got, []string{"kustomize-controller Apply"}) {
		t.Errorf("data.a is managed by %v", got)
	}
	// Somebody else takes a field and adds one.
	other := parse(t, ns, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: other, c: other}")[0]
	if err := c.Patch(t.Context(), other.Unstructured, serverSideApply, client.FieldOwner("somebody"), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	objects = prepared(t, ns, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: \"1\"}")
	if got := mustApply(t, c, objects, apply.Options{})["ConfigMap/settings"]; got != apply.Configured {
		t.Errorf("action %q", got)
	}
	data, _, _ := unstructured.NestedStringMap(get(t, c, objects[0]).Object, "data")
	if want := map[string]string{"a": "1", "c": "other"}; !reflect.DeepEqual(data, want) {
		t.Errorf("data %v, want %v", data, want)
	}
}

// S4.18, S4.19: if an object of a stage fails nothing of the stage is written,
// and all failures are told, in order, by file and object.
func TestS4_18S4_19NothingOfAFailingStage(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, ns, configMap+`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: two}
spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: b}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: one}
spec: {ports: [{port: 99999}]}
`)
	counting, n := counted(c)
	results, err := apply.Apply(t.Context(), counting, objects, apply.Options{})
	var errs apply.Errors
	if !errors.As(err, &errs) || len(errs) != 2 {
		t.Fatalf("error %v, want two", err)
	}
	for i, prefix := range []string{"apps/one.yaml: Service/" + ns + "/one dry-run failed (Invalid): ", "apps/two.yaml: Deployment/" + ns + "/two dry-run failed (Invalid): "} {
		if !strings.HasPrefix(errs[i].Error(), prefix) {
			t.Errorf("error %d is %q, want prefix %q", i, errs[i], prefix)
		}
	}
	if len(results) != 2 || results[0].Err == nil || results[0].Action != "" {
		t.Errorf("results %+v", results)
	}
	if n.writes() != 0 || get(t, c, objects[0]) != nil {
		t.Errorf("something was written")
	}
}

// S4.10, S4.11, S4.16: definitions and classes come first and are awaited, so
// a custom resource can be in the same Kustomization as its definition.
func TestS4_10S4_11Stages(t *testing.T) {
	c, ns := connect(t)
	group := ns + ".example.com"
	objects := prepared(t, "", `
apiVersion: `+group+`/v1
kind: Gadget
metadata: {name: g, namespace: `+ns+`-inner}
spec: {size: 1}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c, namespace: `+ns+`-inner}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: `+ns+`}
spec: {controller: example.com/x}
---
apiVersion: v1
kind: Namespace
metadata: {name: `+ns+`-inner}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.`+group+`}
spec:
  group: `+group+`
  scope: Namespaced
  names: {kind: Gadget, listKind: GadgetList, plural: gadgets, singular: gadget}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}
`)
	t.Cleanup(func() {
		for _, o := range objects[2:] {
			if err := c.Delete(context.Background(), o.DeepCopy().Unstructured); err != nil {
				t.Error(err)
			}
		}
	})
	counting, n := counted(c)
	var waited [][]flux.Ref
	results, err := apply.Apply(t.Context(), counting, objects, apply.Options{StageWait: func(ctx context.Context, refs []flux.Ref) error {
		waited = append(waited, refs)
		crd := &unstructured.Unstructured{}
		crd.SetGroupVersionKind(refs[0].GVK())
		crd.SetName(refs[0].Name)
		return awaitCtx(ctx, c, crd, func(o *unstructured.Unstructured) bool {
			conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
			return slices.ContainsFunc(conditions, func(v any) bool {
				m := v.(map[string]any)
				return m["type"] == "Established" && m["status"] == "True"
			})
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, r := range results {
		order = append(order, r.Ref.Kind)
		if r.Action != apply.Created {
			t.Errorf("%s %s", r.Ref, r.Action)
		}
	}
	if want := []string{"CustomResourceDefinition", "Namespace", "IngressClass", "ConfigMap", "Gadget"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	slices.Sort(n.order[:2]) // a definition and a Namespace do not need each other, and go at the same time
	for i, kind := range []string{"CustomResourceDefinition", "Namespace", "IngressClass", "ConfigMap", "Gadget"} {
		if !strings.HasPrefix(n.order[i], kind) {
			t.Errorf("write %d was %s, want a %s", i, n.order[i], kind)
		}
	}
	// A namespace and a class are ready at once, and known to be.
	if len(waited) != 1 || len(waited[0]) != 1 || waited[0][0].Kind != "CustomResourceDefinition" {
		t.Errorf("waited for %v, want the definition only", waited)
	}
	// Nothing is waited for when nothing has to become ready.
	waited = nil
	mustApply(t, c, objects, apply.Options{StageWait: func(_ context.Context, refs []flux.Ref) error {
		waited = append(waited, refs)
		return nil
	}})
	if waited != nil {
		t.Errorf("an unchanged stage was waited for: %v", waited)
	}
}

// S4.24, S4.24b: what kubectl owns is taken over, what it left is removed;
// other managers keep theirs.
func TestS4_24TakeOver(t *testing.T) {
	c, ns := connect(t)
	for _, tc := range []struct {
		name, manager string
		override      []string
		extraStays    bool
	}{
		{name: "kubectl", manager: "kubectl-client-side-apply"},
		{name: "before-first-apply", manager: "before-first-apply"},
		{name: "own-update", manager: "kustomize-controller"},
		{name: "foreign", manager: "some-operator", extraStays: true},
		{name: "override", manager: "some-operator", override: []string{"some-"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			first := parse(t, ns, strings.ReplaceAll(configMap, "settings", tc.name))[0]
			first.SetAnnotations(map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}"})
			if err := unstructured.SetNestedField(first.Object, "by hand", "data", "extra"); err != nil {
				t.Fatal(err)
			}
			if err := c.Create(t.Context(), first.DeepCopy().Unstructured, client.FieldOwner(tc.manager)); err != nil {
				t.Fatal(err)
			}
			objects := prepared(t, ns, strings.ReplaceAll(configMap, "settings", tc.name))
			o := apply.Options{OverrideManagers: tc.override}
			if got := mustApply(t, c, objects, o)["ConfigMap/"+tc.name]; got != apply.Configured {
				t.Errorf("action %q", got)
			}
			live := get(t, c, objects[0])
			_, extra, _ := unstructured.NestedString(live.Object, "data", "extra")
			if extra != tc.extraStays {
				t.Errorf("the foreign field is there: %t, want %t", extra, tc.extraStays)
			}
			if _, there := live.GetAnnotations()["kubectl.kubernetes.io/last-applied-configuration"]; there {
				t.Error("the last applied configuration is still there")
			}
			if got := mustApply(t, c, objects, o)["ConfigMap/"+tc.name]; got != apply.Unchanged {
				t.Errorf("again: %q", got)
			}
		})
	}
}

// S4.24: a patch that takes over is made from the object as it is; one that
// has been overtaken is made again instead of undoing what others did.
func TestS4_24TakeOverIsNotMadeFromAnOldReading(t *testing.T) {
	c, ns := connect(t)
	first := parse(t, ns, configMap)[0]
	if err := c.Create(t.Context(), first.DeepCopy().Unstructured, client.FieldOwner("kubectl-create")); err != nil {
		t.Fatal(err)
	}
	objects := prepared(t, ns, configMap)
	var once atomic.Bool
	racing := interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if patch.Type() == types.JSONPatchType && once.CompareAndSwap(false, true) {
				other := parse(t, ns, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {c: other}")[0]
				if err := c.Patch(ctx, other.Unstructured, serverSideApply, client.FieldOwner("somebody")); err != nil {
					return err
				}
			}
			return c.Patch(ctx, obj, patch, opts...)
		},
	})
	if got := mustApply(t, racing, objects, apply.Options{})["ConfigMap/settings"]; got != apply.Configured {
		t.Errorf("action %q", got)
	}
	live := get(t, c, objects[0])
	if got := managers(live, `"f:c"`); !slices.Equal(got, []string{"somebody Apply"}) {
		t.Errorf("data.c is managed by %v", got)
	}
}

// S4.25, S4.26, S4.27: the markers.
func TestS4_25Markers(t *testing.T) {
	c, ns := connect(t)
	with := func(name, marker, value string) []flux.Object {
		objects := prepared(t, ns, strings.ReplaceAll(configMap, "settings", name))
		if marker != "" {
			objects[0].SetAnnotations(map[string]string{"kustomize.toolkit.fluxcd.io/" + marker: value})
		}
		return objects
	}
	drift := func(t *testing.T, o flux.Object, annotations map[string]string) {
		t.Helper()
		live := get(t, c, o)
		if err := unstructured.SetNestedField(live.Object, "drifted", "data", "a"); err != nil {
			t.Fatal(err)
		}
		if err := unstructured.SetNestedField(live.Object, "foreign", "data", "extra"); err != nil {
			t.Fatal(err)
		}
		live.SetAnnotations(annotations)
		if err := c.Update(t.Context(), live, client.FieldOwner("kubectl-edit")); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name          string
		marker, value string // in the manifest, or
		live          map[string]string
		action        apply.Action
		a             string
		extra         bool
		reason        string
	}{
		{name: "none", action: apply.Configured, a: "1"},
		{name: "reconcile", marker: "reconcile", value: "Disabled", action: apply.Skipped, a: "drifted", extra: true,
			reason: "its manifest has kustomize.toolkit.fluxcd.io/reconcile: disabled"},
		{name: "ignore", marker: "ssa", value: "ignore", action: apply.Skipped, a: "drifted", extra: true,
			reason: "its manifest has kustomize.toolkit.fluxcd.io/ssa: Ignore"},
		{name: "if-not-present", marker: "ssa", value: "IfNotPresent", action: apply.Skipped, a: "drifted", extra: true,
			reason: "it exists, and its manifest has kustomize.toolkit.fluxcd.io/ssa: IfNotPresent"},
		{name: "merge", marker: "ssa", value: "Merge", action: apply.Configured, a: "1", extra: true},
		{name: "live", live: map[string]string{"kustomize.toolkit.fluxcd.io/reconcile": "disabled"}, action: apply.Skipped, a: "drifted", extra: true,
			reason: "the object in the cluster has kustomize.toolkit.fluxcd.io/reconcile: disabled"},
		{name: "live-if-not-present", live: map[string]string{"kustomize.toolkit.fluxcd.io/ssa": "IfNotPresent"}, action: apply.Configured, a: "1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plain := with(tc.name, "", "")
			mustApply(t, c, plain, apply.Options{})
			drift(t, plain[0], tc.live)
			results, err := apply.Apply(t.Context(), c, with(tc.name, tc.marker, tc.value), apply.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if results[0].Action != tc.action || results[0].Reason != tc.reason {
				t.Errorf("%s because %q, want %s because %q", results[0].Action, results[0].Reason, tc.action, tc.reason)
			}
			data, _, _ := unstructured.NestedStringMap(get(t, c, plain[0]).Object, "data")
			if _, extra := data["extra"]; data["a"] != tc.a || extra != tc.extra {
				t.Errorf("data %v", data)
			}
		})
	}
	t.Run("if-not-present creates", func(t *testing.T) {
		if got := mustApply(t, c, with("fresh", "ssa", "IfNotPresent"), apply.Options{})["ConfigMap/fresh"]; got != apply.Created {
			t.Errorf("action %q", got)
		}
	})
	t.Run("ignore does not create", func(t *testing.T) {
		objects := with("never", "ssa", "Ignore")
		if got := mustApply(t, c, objects, apply.Options{})["ConfigMap/never"]; got != apply.Skipped || get(t, c, objects[0]) != nil {
			t.Errorf("action %q", got)
		}
	})
}

// S4.26, S2.23: the inventory gets the object as the cluster has it.
func TestS4_26RefIsTheLiveObjects(t *testing.T) {
	c, ns := connect(t)
	text := "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: " + ns + ", namespace: stray}\nspec: {controller: example.com/x}"
	objects := prepared(t, "", text)
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), objects[0].DeepCopy().Unstructured); err != nil {
			t.Error(err)
		}
	})
	want := flux.Ref{Group: "networking.k8s.io", Version: "v1", Kind: "IngressClass", Name: ns}
	for _, step := range []struct {
		marker string
		action apply.Action
	}{{"", apply.Created}, {"", apply.Unchanged}, {"IfNotPresent", apply.Skipped}} {
		if step.marker != "" {
			objects[0].SetAnnotations(map[string]string{"kustomize.toolkit.fluxcd.io/ssa": step.marker})
		}
		results, err := apply.Apply(t.Context(), c, objects, apply.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if results[0].Ref != want || results[0].Action != step.action {
			t.Errorf("%+v %s, want %+v %s", results[0].Ref, results[0].Action, want, step.action)
		}
	}
}

// S4.12: an object that is skipped and does not exist is not waited for.
func TestS4_12SkippedAndMissingIsNotWaitedFor(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, "", "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+ns+"-none, annotations: {kustomize.toolkit.fluxcd.io/ssa: Ignore}}")
	_, err := apply.Apply(t.Context(), c, objects, apply.Options{StageWait: func(_ context.Context, refs []flux.Ref) error {
		t.Errorf("waited for %v", refs)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// S4.33, S4.34, S4.35: ignored fields.
func TestS4_33Ignore(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, ns, deployment)
	ignore := apply.Options{Ignore: apply.IgnoreRules(ignoreSpec(t, "/spec/replicas"))}
	if got := mustApply(t, c, objects, ignore)["Deployment/web"]; got != apply.Created {
		t.Fatalf("action %q", got)
	}
	if n, _, _ := unstructured.NestedInt64(get(t, c, objects[0]).Object, "spec", "replicas"); n != 2 {
		t.Errorf("S4.35: created with %d replicas", n)
	}
	scale := func(n int64) {
		t.Helper()
		patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n))
		if err := c.Patch(t.Context(), objects[0].DeepCopy().Unstructured, patch, client.FieldOwner("scaler")); err != nil {
			t.Fatal(err)
		}
	}
	scale(5)
	if got := mustApply(t, c, objects, ignore)["Deployment/web"]; got != apply.Unchanged {
		t.Errorf("S4.33: %q", got)
	}
	changed := prepared(t, ns, strings.ReplaceAll(deployment, "web:1", "web:2"))
	if got := mustApply(t, c, changed, ignore)["Deployment/web"]; got != apply.Configured {
		t.Errorf("S4.34: %q", got)
	}
	if n, _, _ := unstructured.NestedInt64(get(t, c, objects[0]).Object, "spec", "replicas"); n != 5 {
		t.Errorf("S4.34: %d replicas after another change", n)
	}
	if got := mustApply(t, c, changed, apply.Options{})["Deployment/web"]; got != apply.Configured {
		t.Errorf("without the rule: %q", got)
	}
}

// S4.22: an object that cannot be read is not written, since a marker on it
// could forbid that.
func TestUnreadIsNotWritten(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, ns, configMap)
	blind := interceptor.NewClient(c, interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "settings", errors.New("no get"))
		},
	})
	_, err := apply.Apply(t.Context(), blind, objects, apply.Options{})
	if err == nil || !strings.HasPrefix(err.Error(), "apps/settings.yaml: ConfigMap/"+ns+"/settings query failed: ") || !apierrors.IsForbidden(err) {
		t.Errorf("error %v", err)
	}
	if get(t, c, objects[0]) != nil {
		t.Error("it was written")
	}
}

// S4.48: an object of a namespaced kind without a namespace.
func TestS4_48NamespaceNotSpecified(t *testing.T) {
	c, _ := connect(t)
	_, err := apply.Apply(t.Context(), c, prepared(t, "", configMap), apply.Options{})
	if err == nil || err.Error() != "apps/settings.yaml: ConfigMap/settings namespace not specified" {
		t.Errorf("error %v", err)
	}
}

// Conflicts are tried again from a new reading.
func TestConflictIsRetried(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, ns, configMap)
	var failures atomic.Int32
	busy := interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if !rehearse.IsDryRunApply(patch, opts) && failures.Add(1) <= 2 {
				return apierrors.NewConflict(schema.GroupResource{Resource: "configmaps"}, "settings", errors.New("the object has been modified"))
			}
			return c.Patch(ctx, obj, patch, opts...)
		},
	})
	if got := mustApply(t, busy, objects, apply.Options{})["ConfigMap/settings"]; got != apply.Created {
		t.Errorf("action %q", got)
	}
}

// S4.20, S4.47: a failing write ends the stage after its wave; what was done
// before is told.
func TestS4_47ResultsOnFailure(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, ns, deployment+"---"+configMap+"---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}")
	failing := interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if !rehearse.IsDryRunApply(patch, opts) && obj.GetObjectKind().GroupVersionKind().Kind == "Service" {
				return apierrors.NewGenericServerResponse(http.StatusBadRequest, "patch", schema.GroupResource{Resource: "services"}, "web", "no", 0, true)
			}
			return c.Patch(ctx, obj, patch, opts...)
		},
	})
	var reported []string
	results, err := apply.Apply(t.Context(), failing, objects, apply.Options{Report: func(r apply.Result) { reported = append(reported, r.Ref.Kind) }})
	if err == nil || !strings.Contains(err.Error(), "Service/"+ns+"/web apply failed: ") {
		t.Errorf("error %v", err)
	}
	if len(results) != 2 || results[0].Action != apply.Created || results[1].Err == nil {
		t.Errorf("results %+v", results)
	}
	if want := []string{"ConfigMap", "Service"}; !slices.Equal(reported, want) {
		t.Errorf("reported %v, want %v", reported, want)
	}
	if get(t, c, objects[0]) != nil {
		t.Error("the Deployment was written after the failure")
	}
}

// What goes at the same time is told in its order, whichever the server answers
// first.
func TestReportsInOrder(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, ns, strings.ReplaceAll(configMap, "settings", "a")+"---"+strings.ReplaceAll(configMap, "settings", "b"))
	second := make(chan struct{})
	late := interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if rehearse.IsDryRunApply(patch, opts) {
				return c.Patch(ctx, obj, patch, opts...)
			}
			if obj.GetName() == "a" {
				<-second
			} else {
				defer close(second)
			}
			return c.Patch(ctx, obj, patch, opts...)
		},
	})
	var reported []string
	_, err := apply.Apply(t.Context(), late, objects, apply.Options{Report: func(r apply.Result) { reported = append(reported, r.Ref.Name) }})
	if want := []string{"a", "b"}; err != nil || !slices.Equal(reported, want) {
		t.Errorf("reported %v, want %v; error %v", reported, want, err)
	}
}

// On cancel nothing new is started and the write under way is finished.
func TestCancelFinishesTheRequestInFlight(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, ns, deployment+"---"+configMap)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("told to stop")
	cancelling := interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if !rehearse.IsDryRunApply(patch, opts) {
				cancel(stop)
			}
			return c.Patch(ctx, obj, patch, opts...)
		},
	})
	results, err := apply.Apply(ctx, cancelling, objects, apply.Options{})
	if !errors.Is(err, stop) {
		t.Errorf("error %v", err)
	}
	if got, want := actions(results), (map[string]apply.Action{"ConfigMap/settings": apply.Created}); !reflect.DeepEqual(got, want) {
		t.Errorf("results %v, want %v", got, want)
	}
	if get(t, c, objects[1]) == nil || get(t, c, objects[0]) != nil {
		t.Error("the ConfigMap must exist, the Deployment must not")
	}
}
