package owned_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/owned"
)

// cluster is the test cluster; what a test creates belongs to a Kustomization of its own namespace.
type cluster struct {
	*testing.T
	client    client.WithWatch
	kinds     owned.Kinds
	namespace string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{T: t, namespace: kubetest.Namespace(t, kubetest.Shared(t))}
	c.client = c.as("")
	var err error
	if c.kinds, err = discovery.NewDiscoveryClientForConfig(kubetest.Shared(t).Config()); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) as(user string) client.WithWatch {
	c.Helper()
	config := kubetest.Shared(c).Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: user}
	made, err := client.NewWithWatch(config, client.Options{})
	if err != nil {
		c.Fatal(err)
	}
	return made
}

// create creates the objects of a manifest, in which NS stands for the namespace; LABELS are the owner labels of Kustomization apps.
func (c *cluster) create(manifest string) {
	c.Helper()
	manifest = strings.ReplaceAll(manifest, "LABELS", "labels: {"+flux.NameLabel+": apps, "+flux.NamespaceLabel+": NS}")
	for _, doc := range strings.Split(strings.ReplaceAll(manifest, "NS", c.namespace), "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &o.Object); err != nil {
			c.Fatal(err)
		}
		if err := c.client.Create(c.Context(), o); err != nil {
			c.Fatalf("%s: %v", flux.RefOf(o), err)
		}
		if o.GetNamespace() == "" {
			c.Cleanup(func() {
				if err := client.IgnoreNotFound(c.client.Delete(context.Background(), o)); err != nil {
					c.Error(err)
				}
			})
		}
	}
}

func (c *cluster) find(with owned.Client, kinds owned.Kinds) *owned.Found {
	c.Helper()
	found, err := owned.Find(c.Context(), with, kinds, func(schema.GroupKind) bool { return false })
	if err != nil {
		c.Fatal(err)
	}
	return found
}

// ours are the objects of the test, one line each.
func (c *cluster) ours(found *owned.Found) string {
	var b strings.Builder
	for _, o := range found.Objects {
		if o.Owner.Namespace != c.namespace {
			continue
		}
		fmt.Fprintf(&b, "%s of %s", strings.ReplaceAll(o.Ref.String(), c.namespace, "NS"), o.Owner.Name)
		if o.Derived {
			b.WriteString(", derived")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func configMap(name, metadata string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n  namespace: NS\n" + metadata
}

// await watches until an object of a kind in the namespace is as it should be.
func (c *cluster) await(list client.ObjectList, done func(client.Object) bool) {
	c.Helper()
	w, err := c.client.Watch(c.Context(), list, client.InNamespace(c.namespace))
	if err != nil {
		c.Fatal(err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if o, ok := e.Object.(client.Object); ok && done(o) {
			return
		}
	}
	c.Fatal("the watch ended")
}

func TestFind(t *testing.T) {
	c := newCluster(t)
	c.create(configMap("ours", "  LABELS\ndata: {a: b}") + "\n---\n" +
		configMap("half", "  labels: {"+flux.NameLabel+": apps}") + "\n---\n" +
		configMap("empty", "  labels: {"+flux.NameLabel+": '', "+flux.NamespaceLabel+": NS}") + "\n---\n" +
		configMap("nobodys", "") + `
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS, LABELS}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NS-view, LABELS}`)
	// The cluster makes Endpoints and slices of a Service, with its labels.
	c.await(&corev1.EndpointsList{}, func(o client.Object) bool { return o.GetName() == "web" })
	c.await(&discoveryv1.EndpointSliceList{}, func(o client.Object) bool { return strings.HasPrefix(o.GetName(), "web-") })
	found := c.find(c.client, c.kinds)
	want := "ClusterRole/NS-view of apps\nConfigMap/NS/ours of apps\nEndpoints/NS/web of apps, derived\nService/NS/web of apps\nEndpointSlice/NS/web-"
	got := c.ours(found)
	lines := strings.Split(strings.TrimSpace(got), "\n")
	slices.Sort(lines)
	for _, line := range strings.Split(want, "\n") {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, line) }) {
			t.Errorf("there is no %q in\n%s", line, got)
		}
	}
	if len(lines) != 5 || !found.Listed(schema.GroupKind{Kind: "ConfigMap"}) || found.Listed(schema.GroupKind{Kind: "Event"}) {
		t.Errorf("got\n%s", got)
	}
	for _, o := range found.Objects {
		if strings.HasPrefix(o.Ref.Name, "web-") && !o.Derived {
			t.Errorf("%s is told as nobody's", o.Ref)
		}
		if data, there, _ := unstructured.NestedMap(o.Content.Object, "data"); there {
			t.Errorf("%s came with its content: %v", o.Ref, data)
		}
	}
}

func TestFindContentOfSomeKinds(t *testing.T) {
	c := newCluster(t)
	c.create(configMap("ours", "  LABELS\ndata: {a: b}"))
	found, err := owned.Find(t.Context(), c.client, c.kinds, func(kind schema.GroupKind) bool { return kind.Kind == "ConfigMap" })
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(found.Objects, func(o owned.Object) bool { return o.Ref.Namespace == c.namespace && o.Ref.Kind == "ConfigMap" })
	if i < 0 {
		t.Fatal(c.ours(found))
	}
	if data, _, _ := unstructured.NestedStringMap(found.Objects[i].Content.Object, "data"); data["a"] != "b" {
		t.Errorf("got %v", found.Objects[i].Content)
	}
}

// paged asks for pages of two objects, and lets the nth page of ConfigMaps expire.
type paged struct {
	owned.Client
	expire int
	pages  int
}

func (p *paged) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	o := (&client.ListOptions{}).ApplyOptions(opts)
	if list.GetObjectKind().GroupVersionKind().Kind == "ConfigMapList" {
		if p.pages++; p.pages == p.expire {
			return apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result.")
		}
		if o.Limit > 0 {
			o.Limit = 2
		}
	}
	return p.Client.List(ctx, list, o)
}

// However many pages a list has, and also if the server forgets half-way what it began with, all is seen, and once.
func TestFindManyPages(t *testing.T) {
	c := newCluster(t)
	var docs []string
	var want strings.Builder
	for i := range 7 {
		docs = append(docs, configMap(fmt.Sprintf("c%d", i), "  LABELS"))
		fmt.Fprintf(&want, "ConfigMap/NS/c%d of apps\n", i)
	}
	c.create(strings.Join(docs, "\n---\n"))
	for _, expire := range []int{0, 2, 3} {
		p := &paged{Client: c.client, expire: expire}
		found := c.find(p, c.kinds)
		if got := c.ours(found); got != want.String() || !found.Listed(schema.GroupKind{Kind: "ConfigMap"}) {
			t.Errorf("page %d expires: got\n%s", expire, got)
		}
		if expire == 0 && p.pages < 4 || expire > 0 && p.pages != expire+1 {
			t.Errorf("page %d expires: %d requests", expire, p.pages)
		}
	}
	// One that expires at once has not begun.
	found := c.find(&paged{Client: c.client, expire: 1}, c.kinds)
	if found.Listed(schema.GroupKind{Kind: "ConfigMap"}) || !slices.ContainsFunc(found.Unlisted, func(u owned.Unlisted) bool { return u.Kind == "ConfigMap" && !u.Forbidden }) {
		t.Errorf("got %+v", found.Unlisted)
	}
}

// What may not be listed is told, kind by kind, and the rest is found.
func TestFindWithoutTheRightToList(t *testing.T) {
	c := newCluster(t)
	c.create(configMap("ours", "  LABELS") + "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: ours, namespace: NS, LABELS}")
	name := c.namespace + "-reader"
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}}}}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}}}
	for _, o := range []client.Object{role, binding} {
		if err := c.client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.client.Delete(context.Background(), o); err != nil {
				t.Error(err)
			}
		})
	}
	reader := c.as(name)
	for apierrors.IsForbidden(reader.List(t.Context(), &corev1.ConfigMapList{}, client.Limit(1))) { // the authorizer learns of it in a moment
		if t.Context().Err() != nil {
			t.Fatal(t.Context().Err())
		}
	}
	found := c.find(reader, c.kinds)
	if got := c.ours(found); got != "ConfigMap/NS/ours of apps\n" {
		t.Errorf("got\n%s", got)
	}
	forbidden := map[string]bool{}
	for _, u := range found.Unlisted {
		forbidden[u.Kind] = u.Forbidden && apierrors.IsForbidden(u.Err)
	}
	if !forbidden["Secret"] || !forbidden["Deployment.apps"] || forbidden["ConfigMap"] || found.Listed(schema.GroupKind{Kind: "Secret"}) {
		t.Errorf("got %+v", found.Unlisted)
	}
	if !slices.IsSortedFunc(found.Unlisted, func(a, b owned.Unlisted) int { return strings.Compare(a.Kind, b.Kind) }) {
		t.Errorf("not in order: %+v", found.Unlisted)
	}
}

// A group whose own API server is down is told, and the rest is found.
func TestFindWithAnAPIServerThatIsDown(t *testing.T) {
	c := newCluster(t)
	group := c.namespace + ".example.com"
	c.create(configMap("ours", "  LABELS") + `
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.` + group + `}
spec: {group: ` + group + `, version: v1, groupPriorityMinimum: 1, versionPriority: 1, insecureSkipTLSVerify: true, service: {name: none, namespace: NS}}`)
	for { // the server takes a moment to list the group among those that it has
		found := c.find(c.client, c.kinds)
		if got := c.ours(found); got != "ConfigMap/NS/ours of apps\n" {
			t.Fatalf("got\n%s", got)
		}
		i := slices.IndexFunc(found.Unlisted, func(u owned.Unlisted) bool { return u.Kind == group+"/v1" })
		if i >= 0 {
			if u := found.Unlisted[i]; u.Forbidden || u.Err == nil {
				t.Errorf("got %+v", u)
			}
			return
		}
		if t.Context().Err() != nil {
			t.Fatalf("%s is not among %+v", group, found.Unlisted)
		}
	}
}

// server is one that has one kind, with these objects.
type server struct {
	items []metav1.PartialObjectMetadata
}

func (s server) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	page, ok := list.(*metav1.PartialObjectMetadataList)
	if !ok {
		return errors.New("metadata alone was to be asked for")
	}
	page.Items = s.items
	return nil
}

func (server) ServerPreferredResources() ([]*metav1.APIResourceList, error) {
	thing := []metav1.APIResource{{Name: "things", Kind: "Thing", Namespaced: true, Verbs: metav1.Verbs{"list"}}}
	return []*metav1.APIResourceList{{GroupVersion: "a.example.com/v1", APIResources: thing}, {GroupVersion: "b.example.com/v1", APIResources: thing}}, nil
}

// One object that two groups serve is told once; two that an aggregated server gives no uid are two.
func TestFindTellsObjectsApart(t *testing.T) {
	labels := map[string]string{flux.NameLabel: "apps", flux.NamespaceLabel: "flux-system"}
	thing := func(name string, uid types.UID) metav1.PartialObjectMetadata {
		return metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: uid, Labels: labels}}
	}
	s := server{[]metav1.PartialObjectMetadata{thing("one", "1"), thing("bare", ""), thing("naked", "")}}
	found, err := owned.Find(t.Context(), s, s, func(schema.GroupKind) bool { return false })
	var got []string
	for _, o := range found.Objects {
		got = append(got, o.Ref.Group+" "+o.Ref.Name)
	}
	want := []string{"a.example.com bare", "a.example.com naked", "a.example.com one", "b.example.com bare", "b.example.com naked"}
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q and %v", got, err)
	}
}

func TestFindEndsWithItsContext(t *testing.T) {
	c := newCluster(t)
	stop := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := owned.Find(ctx, c.client, c.kinds, func(schema.GroupKind) bool { return false }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}
