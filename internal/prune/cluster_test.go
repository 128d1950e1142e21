package prune

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/kubetest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, user string) client.WithWatch {
	t.Helper()
	config := kubetest.Shared(t).Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: user}
	c, err := client.NewWithWatch(config, client.Options{})
	must(t, err)
	return c
}

func served(t *testing.T) Kinds {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(kubetest.Shared(t).Config())
	must(t, err)
	return d
}

// world of a test: a namespace, a client, and the Kustomization "apps" that owns what is created.
type cluster struct {
	t         *testing.T
	client    client.WithWatch
	namespace string
	owner     flux.ID
}

func newCluster(t *testing.T) *cluster {
	return &cluster{t: t, client: connect(t, ""), namespace: kubetest.Namespace(t, kubetest.Shared(t)), owner: id("apps")}
}

// create creates the objects of a manifest, in which NS stands for the namespace, with the owner labels unless they have some.
func (c *cluster) create(manifest string) []flux.Ref {
	c.t.Helper()
	var refs []flux.Ref
	for _, doc := range strings.Split(strings.ReplaceAll(manifest, "NS", c.namespace), "\n---\n") {
		o := &unstructured.Unstructured{}
		must(c.t, yaml.Unmarshal([]byte(doc), &o.Object))
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		if _, set := labels[flux.NameLabel]; !set {
			labels[flux.NameLabel], labels[flux.NamespaceLabel] = c.owner.Name, c.owner.Namespace
		}
		o.SetLabels(labels)
		if err := c.client.Create(c.t.Context(), o); err != nil {
			c.t.Fatalf("%s: %v", flux.RefOf(o), err)
		}
		if o.GetNamespace() == "" {
			c.t.Cleanup(func() { c.remove(o) })
		}
		refs = append(refs, flux.RefOf(o))
	}
	return refs
}

// remove deletes what is not in the test's namespace; the test may have done so itself.
func (c *cluster) remove(o client.Object) {
	if err := client.IgnoreNotFound(c.client.Delete(context.Background(), o)); err != nil {
		c.t.Error(err)
	}
}

func configMap(name, metadata string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n  namespace: NS\n%s", name, metadata)
}

// exists reports whether an object is there and not being deleted.
func (c *cluster) exists(ref flux.Ref) bool {
	c.t.Helper()
	f, err := lookup(c.t.Context(), c.client, ref)
	must(c.t, err)
	return !f.gone && f.live.DeletionTimestamp == nil
}

func (c *cluster) deletion(refs ...flux.Ref) Deletion {
	c.t.Helper()
	sorted, err := inventory.SortForDeletion(inventory.Entries(refs))
	must(c.t, err)
	return Deletion{Node: c.owner, Entries: sorted, Tracked: len(sorted), Timeout: time.Minute}
}

// plan is what Candidates makes of a Kustomization whose build no longer holds the objects.
func (c *cluster) plan(desired, old []flux.Ref) *Plan {
	c.t.Helper()
	p, err := Candidates(Input{
		Nodes:   []Node{{ID: c.owner, Desired: inventory.Entries(desired), Succeeded: true, Prune: true, Timeout: time.Minute}},
		Records: []*inventory.Record{{ID: c.owner, Root: id("root"), Entries: inventory.Entries(old), Prune: true}},
	})
	must(c.t, err)
	return p
}

// accessTo is that of a run with one cluster.
func accessTo(c Client, k Kinds) Access {
	return func(flux.ClusterRef) (Client, Kinds, error) { return c, k, nil }
}

func as(c Client) func(Deletion) (Client, error) {
	return func(Deletion) (Client, error) { return c, nil }
}

// outcomes prints results, one line each.
func outcomes(results []Result) string {
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintf(&b, "%s %s/%s", r.Outcome, r.Ref.Kind, r.Ref.Name)
		if r.Reason != "" {
			fmt.Fprintf(&b, ": %s", r.Reason)
		}
		if r.Err != nil {
			fmt.Fprintf(&b, ": %v", r.Err)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// spy sees the deletions of a client and can act before one is sent.
type spy struct {
	client.WithWatch
	before func(o client.Object)

	mu      sync.Mutex
	deleted []string
	options []*client.DeleteOptions
}

func (s *spy) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	if s.before != nil {
		s.before(o)
	}
	s.mu.Lock()
	s.deleted = append(s.deleted, o.GetObjectKind().GroupVersionKind().Kind)
	s.options = append(s.options, (&client.DeleteOptions{}).ApplyOptions(opts))
	s.mu.Unlock()
	return s.WithWatch.Delete(ctx, o, opts...)
}

const widgets = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: widgets.NS.example.com
spec:
  group: NS.example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// define makes the kind Widget of a group that only this test has, and waits until it is served.
func (c *cluster) define() flux.Ref {
	c.t.Helper()
	crd := c.create(widgets)[0]
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: crd.Group, Version: crd.Version, Kind: crd.Kind + "List"})
	w, err := c.client.Watch(c.t.Context(), list, client.MatchingFields{"metadata.name": crd.Name})
	must(c.t, err)
	defer w.Stop()
	for e := range w.ResultChan() {
		o, ok := e.Object.(*unstructured.Unstructured)
		if !ok {
			c.t.Fatalf("got %v", e)
		}
		conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
		if slices.ContainsFunc(conditions, func(each any) bool {
			condition, _ := each.(map[string]any)
			return condition["type"] == "Established" && condition["status"] == "True"
		}) {
			return crd
		}
	}
	c.t.Fatal("the watch ended")
	return flux.Ref{}
}

// widget creates a Widget; what was defined a moment ago may still answer that it is not found.
func (c *cluster) widget(name, metadata string) flux.Ref {
	c.t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{}}
	manifest := fmt.Sprintf("apiVersion: NS.example.com/v1\nkind: Widget\nmetadata:\n  name: %s\n  namespace: NS\n%s", name, metadata)
	must(c.t, yaml.Unmarshal([]byte(strings.ReplaceAll(manifest, "NS", c.namespace)), &o.Object))
	o.SetLabels(map[string]string{flux.NameLabel: c.owner.Name, flux.NamespaceLabel: c.owner.Namespace})
	for {
		err := c.client.Create(c.t.Context(), o)
		if err == nil {
			return flux.RefOf(o)
		}
		if client.IgnoreNotFound(err) != nil && !meta.IsNoMatchError(err) {
			c.t.Fatal(err)
		}
	}
}

// unfinish removes all finalizers of an object.
func (c *cluster) unfinish(ref flux.Ref) {
	c.t.Helper()
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(ref.GVK())
	o.Namespace, o.Name = ref.Namespace, ref.Name
	must(c.t, client.IgnoreNotFound(c.client.Patch(context.Background(), o,
		client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))))
}
