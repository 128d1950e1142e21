package prune

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
)

// refusals prints what Check refuses, one line each, with NS for the namespace.
func (c *cluster) refusals(f *Findings) string {
	var b strings.Builder
	for _, r := range f.Refusals {
		fmt.Fprintf(&b, "%s [%s]: %s\n", r.Guard, r.Override, r.Error())
	}
	return strings.ReplaceAll(b.String(), c.namespace, "NS")
}

func (c *cluster) check(p *Plan, g Guards) *Findings {
	c.t.Helper()
	f, err := Check(c.t.Context(), accessTo(c.client, served(c.t)), p, g)
	must(c.t, err)
	return f
}

func (c *cluster) configMaps(n int) []flux.Ref {
	var manifests []string
	for i := range n {
		manifests = append(manifests, configMap(fmt.Sprintf("c%02d", i), ""))
	}
	return c.create(strings.Join(manifests, "\n---\n"))
}

func TestAmounts(t *testing.T) {
	c := newCluster(t)
	refs := c.configMaps(11)
	missing := refs[0]
	missing.Name = "missing"
	guards := DefaultGuards()
	for _, tt := range []struct {
		name         string
		desired, old []flux.Ref
		change       func(*Guards)
		want         string
	}{
		{"5 of 11 pass", refs[5:], refs, nil, ""},
		{"6 of 11 do not", refs[6:], refs, nil, "max-prune [--max-prune=55]: Kustomization \"flux-system/apps\" would lose 6 of its 11 objects, more than " +
			"the 50% that --max-prune allows: ConfigMap/NS/c00, ConfigMap/NS/c01, ConfigMap/NS/c02, ConfigMap/NS/c03, ConfigMap/NS/c04 and 1 more\n"},
		{"unless allowed", refs[6:], refs, func(g *Guards) { g.MaxPrunePercent = 55 }, ""},
		{"9 of 10 are few", refs[9:10], refs[:10], nil, ""},
		{"what is gone does not count", refs[5:], append(slices.Clone(refs), missing), nil, ""},
		{"S0.25 an empty build", nil, refs[:1], nil, "empty-build [--allow-empty]: the build of Kustomization \"flux-system/apps\" is empty, " +
			"which would delete 1 object: ConfigMap/NS/c00\n"},
		{"--allow-empty is enough", nil, refs, func(g *Guards) { g.AllowEmpty = true }, ""},
		{"an empty build that loses nothing", nil, []flux.Ref{missing}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := guards
			if tt.change != nil {
				tt.change(&g)
			}
			if got := c.refusals(c.check(c.plan(tt.desired, tt.old), g)); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
	left, err := Candidates(Input{Records: []*inventory.Record{{ID: c.owner, Entries: inventory.Entries(refs), DeletionPolicy: "Delete"}}})
	must(t, err)
	if got := c.refusals(c.check(left, guards)); !strings.HasPrefix(got,
		"max-prune [--max-prune=100]: Kustomization \"flux-system/apps\" has left Git and would lose 11 of its 11 objects") {
		t.Errorf("got %s", got)
	}
}

func TestVolumes(t *testing.T) {
	c := newCluster(t)
	refs := c.create(`apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: NS}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: none}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: NS}
spec: {accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, hostPath: {path: /x}, storageClassName: none}
---
` + configMap("a", ""))
	p := c.plan(refs[2:], refs)
	want := "volume [--allow-delete PersistentVolume]: Kustomization \"flux-system/apps\" would delete data: PersistentVolume/NS\n" +
		"volume [--allow-delete PersistentVolumeClaim]: Kustomization \"flux-system/apps\" would delete data: PersistentVolumeClaim/NS/data\n"
	if got := c.refusals(c.check(p, DefaultGuards())); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	g := DefaultGuards()
	g.AllowDelete = []string{"persistentvolume", " PersistentVolumeClaim "}
	if got := c.refusals(c.check(p, g)); got != "" {
		t.Errorf("got %s", got)
	}
	if hint := c.check(p, DefaultGuards()).Refusals[0].Hint(); hint != "if this is meant, run again with --allow-delete PersistentVolume" {
		t.Errorf("got %q", hint)
	}
}

// await watches the namespace until all conditions have held at some moment.
func (c *cluster) await(list client.ObjectList, namespace string, conditions ...func(client.Object) bool) {
	c.t.Helper()
	w, err := c.client.Watch(c.t.Context(), list, client.InNamespace(namespace))
	must(c.t, err)
	defer w.Stop()
	for e := range w.ResultChan() {
		o, ok := e.Object.(client.Object)
		if !ok || e.Type == watch.Deleted {
			continue
		}
		conditions = slices.DeleteFunc(conditions, func(holds func(client.Object) bool) bool { return holds(o) })
		if len(conditions) == 0 {
			return
		}
	}
	c.t.Fatal("the watch ended")
}

func named(name string) func(client.Object) bool {
	return func(o client.Object) bool { return o.GetName() == name }
}

func TestNamespaceThatHoldsMore(t *testing.T) {
	c := newCluster(t)
	refs := c.create(`apiVersion: v1
kind: Namespace
metadata: {name: NS-more}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS-more}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: web}]}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS-more}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ours, namespace: NS-more}`)
	inside := c.namespace + "-more"
	c.await(&corev1.ConfigMapList{}, inside, named("kube-root-ca.crt"))
	c.await(&corev1.ServiceAccountList{}, inside, named("default"))
	c.await(&corev1.PodList{}, inside, func(o client.Object) bool { return len(o.GetOwnerReferences()) > 0 })
	// The controller still makes Endpoints beside the slices, and they must not count.
	c.await(&corev1.EndpointsList{}, inside, named("web"))
	c.await(&corev1.EventList{}, inside, func(client.Object) bool { return true })
	g := DefaultGuards()
	g.AllowEmpty = true
	everything := c.plan(nil, refs)
	if f := c.check(everything, g); c.refusals(f) != "" || len(f.Doomed) != 4 {
		t.Errorf("what every namespace has counts: %s", c.refusals(f))
	}

	foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: inside, Name: "foreign"}}
	must(t, c.client.Create(t.Context(), foreign))
	claim := c.create(`apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: NS-more, labels: {kustomize.toolkit.fluxcd.io/name: other}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: none}`)
	want := "namespace [--allow-delete Namespace]: Namespace/NS-more holds 2 objects that this run does not delete: " +
		"ConfigMap/NS-more/foreign, PersistentVolumeClaim/NS-more/data\n"
	data := "volume [--allow-delete PersistentVolumeClaim]: Namespace/NS-more would be deleted with data in it: PersistentVolumeClaim/NS-more/data\n"
	want += data
	f := c.check(everything, g)
	if got := c.refusals(f); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if len(f.Refusals) == 2 && !slices.Equal(f.Refusals[0].Objects, []flux.Ref{
		{Version: "v1", Kind: "ConfigMap", Namespace: inside, Name: "foreign"}, claim[0]}) {
		t.Errorf("got %+v", f.Refusals[0].Objects)
	}
	// To let go of what is in a Namespace is not to let go of data.
	allowed := g
	allowed.AllowDelete = []string{"Namespace"}
	if got := c.refusals(c.check(everything, allowed)); got != data {
		t.Errorf("got %s", got)
	}
	allowed.AllowDelete = []string{"Namespace", "PersistentVolumeClaim"}
	if got := c.refusals(c.check(everything, allowed)); got != "" {
		t.Errorf("got %s", got)
	}

	// What this commit still wants in it is never overridden, even if it is not there yet.
	wanted := []flux.Ref{refs[1], {Version: "v1", Kind: "Secret", Namespace: inside, Name: "new"}}
	f = c.check(c.plan(wanted, refs), allowed)
	want = "namespace []: Namespace/NS-more would be deleted with what this commit still wants in it: Secret/NS-more/new, Deployment/NS-more/web\n"
	if got := c.refusals(f); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if len(f.Refusals) == 1 && f.Refusals[0].Hint() != "keep it in Git, or remove with it what it holds" {
		t.Errorf("got %q", f.Refusals[0].Hint())
	}

	// What cannot be seen is not taken for empty.
	must(t, c.client.Delete(t.Context(), foreign))
	c.remove(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: inside, Name: "data"}})
	f, err := Check(t.Context(), accessTo(blind{c.client}, served(t)), everything, g)
	must(t, err)
	if got := c.refusals(f); !strings.HasPrefix(got, "namespace [--allow-delete Namespace]: Namespace/NS-more may hold objects that this run does not "+
		"delete: cannot list Secret: not for you") {
		t.Errorf("got %s", got)
	}
	f, err = Check(t.Context(), accessTo(c.client, partial{served(t)}), everything, g)
	must(t, err)
	if got := c.refusals(f); !strings.Contains(got, "may hold objects that this run does not delete") || !strings.Contains(got, "down.example.com/v1") {
		t.Errorf("got %s", got)
	}
}

// blind cannot list Secrets.
type blind struct{ client.WithWatch }

func (b blind) List(ctx context.Context, l client.ObjectList, opts ...client.ListOption) error {
	if l.GetObjectKind().GroupVersionKind().Kind == "SecretList" {
		return errors.New("not for you")
	}
	return b.WithWatch.List(ctx, l, opts...)
}

// partial is a server one of whose API groups does not answer.
type partial struct{ Kinds }

func (p partial) ServerPreferredNamespacedResources() ([]*metav1.APIResourceList, error) {
	lists, err := p.Kinds.ServerPreferredNamespacedResources()
	if err != nil {
		return nil, err
	}
	return lists, &discovery.ErrGroupDiscoveryFailed{Groups: map[schema.GroupVersion]error{
		{Group: "down.example.com", Version: "v1"}: errors.New("the server is currently unable to handle the request")}}
}

func TestDefinitionThatHasMore(t *testing.T) {
	c := newCluster(t)
	crd := c.define()
	one, two := c.widget("one", ""), c.widget("two", "")
	g := DefaultGuards()
	g.AllowEmpty = true
	if got := c.refusals(c.check(c.plan(nil, []flux.Ref{crd, one, two}), g)); got != "" {
		t.Errorf("deleted with all of its kind: %s", got)
	}
	want := "definition [--allow-delete CustomResourceDefinition]: CustomResourceDefinition/widgets.NS.example.com has 1 object that this run does not " +
		"delete: Widget/NS/two\n"
	if got := c.refusals(c.check(c.plan(nil, []flux.Ref{crd, one}), g)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	g.AllowDelete = []string{"CustomResourceDefinition"}
	if got := c.refusals(c.check(c.plan(nil, []flux.Ref{crd, one}), g)); got != "" {
		t.Errorf("got %s", got)
	}
	want = "definition []: CustomResourceDefinition/widgets.NS.example.com would be deleted with what this commit still wants of its kind: Widget/NS/two\n"
	if got := c.refusals(c.check(c.plan([]flux.Ref{two}, []flux.Ref{crd, one, two}), g)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	// And the whole of it goes in the right order.
	p := c.plan(nil, []flux.Ref{crd, one, two})
	results, err := Delete(t.Context(), p.Deletions, Options{Client: as(c.client)})
	must(t, err)
	if got, want := outcomes(results), "deleted Widget/two\ndeleted Widget/one\ndeleted CustomResourceDefinition/widgets."+c.namespace+".example.com\n"; got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestCheckReportsAllThatCannotBeRead(t *testing.T) {
	c := newCluster(t)
	refs := c.configMaps(2)
	_, err := Check(t.Context(), accessTo(connect(t, "nobody"), served(t)), c.plan(nil, refs), DefaultGuards())
	var access *inventory.AccessError
	if !errors.As(err, &access) || access.Verb != "get" || !strings.Contains(err.Error(), "c00") || !strings.Contains(err.Error(), "c01") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	cancel(interrupted)
	if _, err := Check(ctx, accessTo(c.client, served(t)), c.plan(nil, refs), DefaultGuards()); !errors.Is(err, interrupted) {
		t.Errorf("got %v", err)
	}
}
