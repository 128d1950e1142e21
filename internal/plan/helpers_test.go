package plan

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/cluster/schemas"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/plan/proof"
	"github.com/sluicerun/sluice/internal/retry"
)

var connection struct {
	once    sync.Once
	cluster *cluster.Cluster
	err     error
}

// bench is the test cluster with counters on all its clients.
type bench struct {
	t         testing.TB
	namespace string

	mu                            sync.Mutex
	gets, lists, dryRuns, applies int
}

func connect(t testing.TB) *bench {
	t.Helper()
	k := kubetest.Shared(t)
	connection.once.Do(func() {
		connection.cluster, connection.err = cluster.Connect(context.Background(), cluster.Options{Kubeconfig: k.Kubeconfig()})
	})
	if connection.err != nil {
		t.Fatal(connection.err)
	}
	return &bench{t: t, namespace: kubetest.Namespace(t, k)}
}

func (b *bench) reset() { b.gets, b.lists, b.dryRuns, b.applies = 0, 0, 0, 0 }

func (b *bench) add(n *int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	*n++
}

func (b *bench) client(user string) (client.WithWatch, error) {
	c, err := connection.cluster.Client(user)
	if err != nil {
		return nil, err
	}
	return interceptor.NewClient(c, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			b.add(&b.gets)
			return c.Get(ctx, key, obj, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			b.add(&b.lists)
			return c.List(ctx, list, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if rehearse.IsDryRunApply(patch, opts) {
				b.add(&b.dryRuns)
			} else {
				b.add(&b.applies)
			}
			return c.Patch(ctx, obj, patch, opts...)
		},
	}), nil
}

func (b *bench) admin() client.WithWatch {
	b.t.Helper()
	c, err := b.client("")
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// node makes a prepared node; objects without a namespace get the test's.
func (b *bench) node(name, text string) Node {
	b.t.Helper()
	return b.nodeWith(name, text, apply.Options{})
}

func (b *bench) nodeWith(name, text string, o apply.Options) Node {
	b.t.Helper()
	k := &flux.Kustomization{ID: flux.ID{Namespace: b.namespace, Name: name}}
	objects, _, err := prepare(k, parse(b.t, b.namespace, text))
	if err != nil {
		b.t.Fatal(err)
	}
	return Node{ID: k.ID, Objects: objects, Rules: Rules{SSA: o.SSA(), Recreate: o.Recreate}}
}

func (b *bench) options() Options {
	return Options{Client: func(n *Node) (client.WithWatch, error) { return b.client(n.User) }, Owner: apply.Owner()}
}

func (b *bench) plan(nodes ...Node) *Plan {
	b.t.Helper()
	p, err := Make(b.t.Context(), b.options(), nodes)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// types loads types of kinds. A server publishes the schema of a definition
// some time after it begins to serve it.
func (b *bench) types(gv schema.GroupVersion, kinds ...string) proof.Types {
	b.t.Helper()
	var loaded proof.Types
	err := retry.Do(b.t.Context(), retry.Policy{Attempts: 40, Base: 250 * time.Millisecond, Factor: 1}, func(ctx context.Context, _ int) error {
		disco, err := connection.cluster.Discovery()
		if err != nil {
			return retry.Permanent(err)
		}
		loaded, err = schemas.New(disco.RESTClient()).Load(ctx, gv, kinds)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return loaded
}

// apply applies a planned node.
func (b *bench) apply(p *Plan, n Node, o apply.Options) []apply.Result {
	b.t.Helper()
	c, err := b.client(n.User)
	if err != nil {
		b.t.Fatal(err)
	}
	o.Known = func(o flux.Object) (flux.Ref, string, bool) { return p.Known(n.ID, o) }
	results, err := apply.Apply(b.t.Context(), p.Client(n.ID, c), n.Objects, o)
	if err != nil {
		b.t.Fatal(err)
	}
	return results
}

func (b *bench) expect(what string, gets, lists, dryRuns, applies int) {
	b.t.Helper()
	if b.gets != gets || b.lists != lists || b.dryRuns != dryRuns || b.applies != applies {
		b.t.Errorf("%s: %d gets, %d lists, %d dry runs, %d writes; want %d, %d, %d, %d",
			what, b.gets, b.lists, b.dryRuns, b.applies, gets, lists, dryRuns, applies)
	}
	b.reset()
}

func parse(t testing.TB, namespace, text string) []flux.Object {
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
		if len(u.Object) == 0 {
			continue
		}
		if _, given := u.Object["metadata"].(map[string]any)["namespace"]; !given && namespace != "" {
			u.SetNamespace(namespace)
		}
		out = append(out, flux.Object{Unstructured: u, File: "apps/" + u.GetName() + ".yaml"})
	}
}

// prepare makes of a build what is applied, as a run does.
func prepare(k *flux.Kustomization, objects []flux.Object) ([]flux.Object, []Dropped, error) {
	labelled, err := build.Label(k, objects)
	if err != nil {
		return nil, nil, err
	}
	return Normalize(labelled)
}
