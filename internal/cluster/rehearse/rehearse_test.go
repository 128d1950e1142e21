package rehearse_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// serverSideApply is the patch that ssa sends.
//
//lint:ignore SA1019 its successor takes typed apply configurations, which manifests are not
var serverSideApply = client.Apply

// real returns a client that notes the requests that reach the server.
func real(t *testing.T) (client.WithWatch, string, *[]string) {
	t.Helper()
	k := kubetest.Shared(t)
	c, err := cluster.Connect(t.Context(), cluster.Options{Kubeconfig: k.Kubeconfig()})
	if err != nil {
		t.Fatal(err)
	}
	cl, err := c.Client("")
	if err != nil {
		t.Fatal(err)
	}
	var sent []string
	return interceptor.NewClient(cl, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			sent = append(sent, "get")
			return c.Get(ctx, key, obj, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			kind := "write"
			if rehearse.IsDryRunApply(patch, opts) {
				kind = "dry run"
			}
			sent = append(sent, kind)
			return c.Patch(ctx, obj, patch, opts...)
		},
	}), kubetest.Namespace(t, k), &sent
}

func configMap(namespace string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "c", "namespace": namespace}, "data": map[string]any{"a": "b"}}}
}

func empty() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}
}

// A rehearsal reads and dry-runs, and refuses every write; played again it
// asks the server nothing twice.
func TestRehearseThenPerform(t *testing.T) {
	c, ns, sent := real(t)
	key := client.ObjectKey{Namespace: ns, Name: "c"}
	owner := client.FieldOwner("test")

	r := rehearse.New(c, nil, nil)
	if err := r.Get(t.Context(), key, empty()); !apierrors.IsNotFound(err) || r.Exists() {
		t.Errorf("get: %v", err)
	}
	if err := r.Patch(t.Context(), configMap(ns), serverSideApply, client.DryRunAll, owner); err != nil {
		t.Error(err)
	}
	patch := client.RawPatch(types.JSONPatchType, []byte(`[]`))
	for name, err := range map[string]error{
		"apply":         r.Patch(t.Context(), configMap(ns), serverSideApply, owner),
		"patch":         r.Patch(t.Context(), configMap(ns), patch),
		"create":        r.Create(t.Context(), configMap(ns)),
		"update":        r.Update(t.Context(), configMap(ns)),
		"delete":        r.Delete(t.Context(), configMap(ns)),
		"delete all of": r.DeleteAllOf(t.Context(), configMap(ns), client.InNamespace(ns)),
		"typed apply":   r.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(configMap(ns)), owner),
	} {
		if !errors.Is(err, rehearse.ErrWrite) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if want := []string{"get", "dry run"}; !slices.Equal(*sent, want) {
		t.Errorf("sent %q, want %q", *sent, want)
	}

	*sent = nil
	p := rehearse.Perform(c, r.Live, r.DryRun)
	if err := p.Get(t.Context(), key, empty()); !apierrors.IsNotFound(err) {
		t.Errorf("get: %v", err)
	}
	for _, opts := range [][]client.PatchOption{{client.DryRunAll, owner}, {owner}} {
		if err := p.Patch(t.Context(), configMap(ns), serverSideApply, opts...); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"write"}; !slices.Equal(*sent, want) || p.Written.Object.GetUID() == "" {
		t.Errorf("sent %q, want %q", *sent, want)
	}
	// An answer is given once.
	if err := p.Get(t.Context(), key, empty()); err != nil || !p.Exists() {
		t.Errorf("second get: %v", err)
	}
}

// A JSON patch made from an old reading is a conflict.
func TestPatchOfAnOldReadingConflicts(t *testing.T) {
	c, ns, _ := real(t)
	old := configMap(ns)
	if err := c.Create(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	newer := configMap(ns)
	newer.Object["data"] = map[string]any{"a": "c"}
	if err := c.Update(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	patch := client.RawPatch(types.JSONPatchType, []byte(`[{"op":"add","path":"/data/x","value":"y"}]`))
	if err := rehearse.Perform(c, nil, nil).Patch(t.Context(), old, patch); !apierrors.IsConflict(err) {
		t.Errorf("old reading: %v", err)
	}
	if err := rehearse.Perform(c, nil, nil).Patch(t.Context(), newer, patch); err != nil {
		t.Errorf("new reading: %v", err)
	}
}
