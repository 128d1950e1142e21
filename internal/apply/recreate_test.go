package apply_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/flux"
)

func ignoreSpec(t *testing.T, paths ...string) kustomizev1.KustomizationSpec {
	t.Helper()
	return kustomizev1.KustomizationSpec{Ignore: []kustomizev1.IgnoreRule{{Paths: paths}, {Paths: []string{"/spec/none"}}}}
}

const job = `
apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: app, image: "registry.example.com/app:1"}]
`

// S4.28: what makes force delete an object, and what does not.
func TestS4_28Force(t *testing.T) {
	c, ns := connect(t)
	force := apply.Options{Force: true}
	// An address that no other test, and no earlier run of this one, holds.
	address := fmt.Sprintf("10.0.%d.%d", 16+rand.IntN(200), 1+rand.IntN(250))
	for _, tc := range []struct {
		name, before, after string
		options             apply.Options
		recreated           bool
		err, hint           string
	}{
		{name: "job", before: job, after: strings.Replace(job, "app:1", "app:2", 1), options: force, recreated: true},
		{name: "marker", before: job, after: strings.Replace(job, "{name: migrate}", `{name: migrate, annotations: {kustomize.toolkit.fluxcd.io/force: Enabled}}`, 1),
			recreated: false},
		{name: "marker and change", before: job,
			after:     strings.NewReplacer("{name: migrate}", `{name: migrate, labels: {kustomize.toolkit.fluxcd.io/force: enabled}}`, "app:1", "app:2").Replace(job),
			recreated: true},
		{name: "not asked for", before: job, after: strings.Replace(job, "app:1", "app:2", 1),
			err: "/migrate dry-run failed (Invalid): ", hint: "kustomize.toolkit.fluxcd.io/force: enabled"},
		{name: "plain mistake", before: job, after: strings.Replace(job, "restartPolicy: Never", "restartPolicy: Sometimes", 1), options: force,
			err: "/migrate dry-run failed (Invalid): "},
		{name: "mistake and immutable", before: job, after: strings.NewReplacer("app:1", "app:2", "{name: app,", "{name: NOT_A_NAME,").Replace(job), options: force,
			err: "/migrate dry-run failed (Invalid): "},
		{name: "deployment selector", before: deployment, after: strings.ReplaceAll(deployment, "app: web", "app: other"), options: force, recreated: true},
		{name: "service", before: "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {a: b}, clusterIP: None, ports: [{port: 1}]}",
			after: "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {a: b}, clusterIP: " + address + ", ports: [{port: 1}]}", options: force, recreated: true},
		{name: "secret type", before: "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: Opaque",
			after: "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: example.com/other", options: force, recreated: true},
		{name: "immutable config map", before: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: i}\nimmutable: true\ndata: {a: x}",
			after: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: i}\nimmutable: true\ndata: {a: z}", options: force, recreated: true},
		{name: "role binding", before: binding("view"), after: binding("edit"), options: force, recreated: true},
		{name: "claim", before: claim("1Gi"), after: claim("500Mi"), options: force,
			// What the server says depends on whether it is bound already.
			err: "/data dry-run failed (", hint: anyHint},
		{name: "claim class", before: claim("1Gi"), after: strings.Replace(claim("1Gi"), "spec: {", "spec: {storageClassName: other, ", 1), options: force,
			err: "/data dry-run failed (Invalid): ", hint: "--allow-delete PersistentVolumeClaim"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			prefix := strings.ReplaceAll(tc.name, " ", "-") + "-"
			named := func(text string) []flux.Object {
				objects := prepared(t, ns, text)
				for _, o := range objects {
					o.SetName(prefix + o.GetName())
				}
				return objects
			}
			before, after := named(tc.before), named(tc.after)
			mustApply(t, c, before, apply.Options{})
			old := get(t, c, before[0])
			results, err := apply.Apply(t.Context(), c, after, tc.options)
			now := get(t, c, after[0])
			if now == nil {
				t.Fatal("the object is gone")
			}
			if recreated := now.GetUID() != old.GetUID(); recreated != tc.recreated {
				t.Errorf("made again: %t, want %t (%v)", recreated, tc.recreated, err)
			}
			if tc.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				want := apply.Configured
				if tc.recreated {
					want = apply.Recreated
				}
				if results[0].Action != want {
					t.Errorf("action %q, want %q", results[0].Action, want)
				}
				return
			}
			var hinted interface{ Hint() string }
			if err == nil || !strings.Contains(err.Error(), prefix+strings.TrimPrefix(tc.err, "/")) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if hinted, _ = err.(interface{ Hint() string }); tc.hint != anyHint && (hinted == nil || !strings.Contains(hinted.Hint(), tc.hint) || (tc.hint == "" && hinted.Hint() != "")) {
				t.Errorf("hint of %v, want %q", err, tc.hint)
			}
		})
	}
}

const anyHint = "any"

func binding(role string) string {
	return "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: b}\n" +
		"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: " + role + "}"
}

func claim(size string) string {
	return "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\n" +
		"spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: " + size + "}}}"
}

// S4.28: a StatefulSet that is made again keeps its pods.
func TestS4_28StatefulSetKeepsItsPods(t *testing.T) {
	c, ns := connect(t)
	text := `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: app, image: "registry.example.com/db:1"}]}
`
	objects := prepared(t, ns, text)
	mustApply(t, c, objects, apply.Options{})
	pod := parse(t, ns, "apiVersion: v1\nkind: Pod\nmetadata: {name: db-0}")[0]
	await(t, c, pod, "there", func(*unstructured.Unstructured) bool { return true })
	old := get(t, c, pod).GetUID()
	changed := prepared(t, ns, strings.Replace(text, "serviceName: db", "serviceName: other", 1))
	if got := mustApply(t, c, changed, apply.Options{Force: true})["StatefulSet/db"]; got != apply.Recreated {
		t.Errorf("action %q", got)
	}
	set := get(t, c, changed[0])
	await(t, c, pod, "adopted", func(o *unstructured.Unstructured) bool {
		owners := o.GetOwnerReferences()
		return len(owners) == 1 && owners[0].UID == set.GetUID()
	})
	if now := get(t, c, pod); now.GetUID() != old {
		t.Error("the pod was replaced")
	}
}

// S4.29: the end of a deleted object is awaited, finalizers included.
func TestS4_29WaitsForFinalizers(t *testing.T) {
	c, ns := connect(t)
	text := strings.Replace(job, "{name: migrate}", "{name: migrate, finalizers: [example.com/hold]}", 1)
	objects := prepared(t, ns, text)
	mustApply(t, c, objects, apply.Options{})
	release := func(ctx context.Context) error {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		return c.Patch(ctx, objects[0].DeepCopy().Unstructured, patch, client.FieldOwner("holder"))
	}
	t.Cleanup(func() {
		if err := release(context.Background()); err != nil {
			t.Error(err)
		}
	})
	changed := prepared(t, ns, strings.Replace(text, "app:1", "app:2", 1))

	_, err := apply.Apply(t.Context(), c, changed, apply.Options{Force: true, RecreateTimeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "still there after 300ms, held by the finalizers ") || !strings.Contains(err.Error(), "example.com/hold") {
		t.Fatalf("error %v", err)
	}
	deleted := get(t, c, objects[0])
	if deleted == nil || deleted.GetDeletionTimestamp() == nil {
		t.Fatal("the object is not being deleted")
	}

	// The next attempt finds it being deleted, and goes on when it is gone.
	waiting := make(chan struct{})
	watching := interceptor.NewClient(c, interceptor.Funcs{
		Watch: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
			w, err := c.Watch(ctx, list, opts...)
			close(waiting)
			return w, err
		},
	})
	released := make(chan error, 1)
	go func() {
		<-waiting
		released <- release(context.Background())
	}()
	if got := mustApply(t, watching, changed, apply.Options{Force: true})["Job/migrate"]; got != apply.Recreated {
		t.Errorf("action %q", got)
	}
	if err := <-released; err != nil {
		t.Error(err)
	}
	if now := get(t, c, objects[0]); now == nil || now.GetUID() == deleted.GetUID() {
		t.Error("the object was not made again")
	}
}

// An object that somebody has deleted, and that a finalizer still holds, is gone
// sooner or later whatever is written to it: it is awaited and made again, even
// if nothing else would have to change.
func TestMakesAgainWhatIsBeingDeleted(t *testing.T) {
	c, ns := connect(t)
	const text = `{apiVersion: v1, kind: ConfigMap, metadata: {name: revert}, data: {a: "1"}}`
	objects := prepared(t, ns, text)
	mustApply(t, c, objects, apply.Options{})
	old := get(t, c, objects[0])
	hold := func(finalizers string) error {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":`+finalizers+`}}`))
		return c.Patch(context.Background(), objects[0].DeepCopy().Unstructured, patch, client.FieldOwner("holder"))
	}
	if err := hold(`["example.com/hold"]`); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), objects[0].DeepCopy().Unstructured); err != nil {
		t.Fatal(err)
	}

	_, err := apply.Apply(t.Context(), c, objects, apply.Options{RecreateTimeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "is being deleted since ") || !strings.Contains(err.Error(), "example.com/hold") {
		t.Errorf("error %v", err)
	}
	if now := get(t, c, objects[0]); now == nil || now.GetResourceVersion() == old.GetResourceVersion() || now.GetUID() != old.GetUID() {
		t.Errorf("the object is %v", now)
	}

	waiting := make(chan struct{})
	watching := interceptor.NewClient(c, interceptor.Funcs{
		Watch: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
			w, err := c.Watch(ctx, list, opts...)
			close(waiting)
			return w, err
		},
		Delete: func(context.Context, client.WithWatch, client.Object, ...client.DeleteOption) error {
			return errors.New("it is deleted already")
		},
	})
	released := make(chan error, 1)
	go func() {
		<-waiting
		released <- hold("null")
	}()
	if got := mustApply(t, watching, objects, apply.Options{})["ConfigMap/revert"]; got != apply.Recreated {
		t.Errorf("action %q", got)
	}
	if err := <-released; err != nil {
		t.Error(err)
	}
	if now := get(t, c, objects[0]); now == nil || now.GetUID() == old.GetUID() {
		t.Error("the object was not made again")
	}
}
