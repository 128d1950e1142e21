package apply_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/plan"
)

// serverSideApply is the patch that ssa sends.
//
//lint:ignore SA1019 its successor takes typed apply configurations, which manifests are not
var serverSideApply = client.Apply

var connection struct {
	once    sync.Once
	cluster *cluster.Cluster
	err     error
}

// connect returns a client for the test cluster, and a namespace.
func connect(t *testing.T) (client.WithWatch, string) {
	t.Helper()
	k := kubetest.Shared(t)
	connection.once.Do(func() {
		connection.cluster, connection.err = cluster.Connect(context.Background(), cluster.Options{Kubeconfig: k.Kubeconfig()})
	})
	if connection.err != nil {
		t.Fatal(connection.err)
	}
	c, err := connection.cluster.Client("")
	if err != nil {
		t.Fatal(err)
	}
	return c, kubetest.Namespace(t, k)
}

// parse reads objects as a build would give them; those without a namespace
// get the given one, unless it is empty.
func parse(t *testing.T, namespace, text string) []flux.Object {
	t.Helper()
	var out []flux.Object
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewBufferString(text), 4096)
	for {
		u := &unstructured.Unstructured{}
		if err := d.Decode(&u.Object); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		if u.GetNamespace() == "" && namespace != "" {
			u.SetNamespace(namespace)
		}
		out = append(out, flux.Object{Unstructured: u, File: "apps/" + u.GetName() + ".yaml"})
	}
}

// prepared are parsed objects as they are applied.
func prepared(t *testing.T, namespace, text string) []flux.Object {
	t.Helper()
	k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "apps"}}
	labelled, err := build.Label(k, parse(t, namespace, text))
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := plan.Normalize(labelled)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func get(t *testing.T, c client.Client, like flux.Object) *unstructured.Unstructured {
	t.Helper()
	answer := rehearse.Ask(t.Context(), c, like.Unstructured, client.ObjectKeyFromObject(like.Unstructured))
	if answer.Err != nil {
		t.Fatal(answer.Err)
	}
	return answer.Object
}

// mustApply applies and returns the actions by object.
func mustApply(t *testing.T, c client.WithWatch, objects []flux.Object, o apply.Options) map[string]apply.Action {
	t.Helper()
	results, err := apply.Apply(t.Context(), c, objects, o)
	if err != nil {
		t.Fatal(err)
	}
	return actions(results)
}

func actions(results []apply.Result) map[string]apply.Action {
	out := map[string]apply.Action{}
	for _, r := range results {
		out[r.Object.GetKind()+"/"+r.Object.GetName()] = r.Action
	}
	return out
}

// requests counts what is asked of the server.
type requests struct {
	mu                                       sync.Mutex
	get, list, dryRun, apply, patch, deletes int
	order                                    []string
}

func (r *requests) add(n *int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*n++
}

func (r *requests) writes() int { return r.apply + r.patch + r.deletes }

// counted wraps a client; the counters are read after the work is done.
func counted(c client.WithWatch) (client.WithWatch, *requests) {
	r := &requests{}
	return interceptor.NewClient(c, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			r.add(&r.get)
			return c.Get(ctx, key, obj, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			r.add(&r.list)
			return c.List(ctx, list, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			switch {
			case rehearse.IsDryRunApply(patch, opts):
				r.add(&r.dryRun)
			case patch.Type() == types.ApplyPatchType:
				r.add(&r.apply)
				r.mu.Lock()
				r.order = append(r.order, obj.GetObjectKind().GroupVersionKind().Kind+"/"+obj.GetName())
				r.mu.Unlock()
			default:
				r.add(&r.patch)
			}
			return c.Patch(ctx, obj, patch, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			r.add(&r.deletes)
			return c.Delete(ctx, obj, opts...)
		},
	}), r
}

// await watches an object until it is as wanted.
func await(t *testing.T, c client.WithWatch, like flux.Object, what string, wanted func(*unstructured.Unstructured) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := awaitCtx(ctx, c, like.Unstructured, wanted); err != nil {
		t.Fatalf("%s is not %s: %v", like.Ref(), what, err)
	}
}

func awaitCtx(ctx context.Context, c client.WithWatch, like *unstructured.Unstructured, wanted func(*unstructured.Unstructured) bool) error {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(like.GroupVersionKind().GroupVersion().WithKind(like.GetKind() + "List"))
	w, err := c.Watch(ctx, list, client.InNamespace(like.GetNamespace()), client.MatchingFields{"metadata.name": like.GetName()})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				return errors.New("the watch ended")
			}
			if u, ok := e.Object.(*unstructured.Unstructured); ok && e.Type != watch.Deleted && wanted(u) {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// managers returns who owns a field, given as its FieldsV1 text.
func managers(o *unstructured.Unstructured, field string) []string {
	var out []string
	for _, e := range o.GetManagedFields() {
		if bytes.Contains(e.FieldsV1.GetRawBytes(), []byte(field)) {
			out = append(out, e.Manager+" "+string(e.Operation))
		}
	}
	return out
}
