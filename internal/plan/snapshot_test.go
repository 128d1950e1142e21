package plan

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// watched is a connection through a proxy that writes down what passes.
type watched struct {
	t *testing.T
	*proxy.Proxy
	cluster *cluster.Cluster
}

func watch(t *testing.T, to proxy.Source) *watched {
	t.Helper()
	p := proxy.New(t, to)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := p.WriteKubeconfig(kubeconfig); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Connect(t.Context(), cluster.Options{Kubeconfig: kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &watched{t, p, c}
}

func (w *watched) make(nodes ...Node) (*Plan, []proxy.Request, error) {
	w.t.Helper()
	w.Take()
	p, err := Make(w.t.Context(), Options{Client: func(n *Node) (client.WithWatch, error) { return w.cluster.Client(n.User) }, Owner: apply.Owner()}, nodes)
	sent := slices.DeleteFunc(w.Take(), func(r proxy.Request) bool { return r.Verb == "discovery" })
	return p, sent, err
}

func (w *watched) plan(nodes ...Node) (*Plan, []proxy.Request) {
	w.t.Helper()
	p, sent, err := w.make(nodes...)
	if err != nil {
		w.t.Fatal(err)
	}
	return p, sent
}

// told are requests as text, without the namespace of the test.
func told(requests []proxy.Request) []string {
	var out []string
	for _, r := range requests {
		where := ""
		if r.Namespace != "" {
			where = " in one"
		}
		out = append(out, strings.TrimSpace(r.Verb+" "+r.Resource+" "+r.Name)+where)
	}
	slices.Sort(out)
	return out
}

func several(kind, rest string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: %s\nmetadata: {name: %s%02d}\n%s\n", kind, strings.ToLower(kind[:1]), i, rest)
	}
	return b.String()
}

// What is unchanged costs one request for each kind, however many objects of it
// there are.
func TestOneRequestPerKind(t *testing.T) {
	b := connect(t)
	w := watch(t, kubetest.Shared(t))
	n := b.node("shapes", several("ConfigMap", "data: {a: b}", 1)+several("Secret", "stringData: {a: b}", 2)+several("ServiceAccount", "", 3)+several("Service", "spec: {ports: [{port: 80}]}", 7))
	b.apply(b.plan(n), n, apply.Options{})
	p, sent := w.plan(n)
	if got := p.Count(); got[Unchanged] != 13 || len(got) != 1 {
		t.Fatalf("got %v", got)
	}
	want := []string{"get configmaps c00 in one", "list secrets in one", "list serviceaccounts in one", "list services in one"}
	if got := told(sent); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// What carries a node's owner labels and is not among its objects is told as far as a
// list brings it: not what another Kustomization owns, nor what the cluster made from
// another object, nor what a second node asks for.
func TestStrays(t *testing.T) {
	b := connect(t)
	w := watch(t, kubetest.Shared(t))
	before, other := b.node("strays", several("ConfigMap", "data: {a: b}", 4)), b.node("others", several("ServiceAccount", "", 3))
	b.apply(b.plan(before, other), before, apply.Options{})
	b.apply(b.plan(before, other), other, apply.Options{})
	var made unstructured.Unstructured
	made.SetAPIVersion("v1")
	made.SetKind("ConfigMap")
	made.SetNamespace(b.namespace)
	made.SetName("derived")
	made.SetLabels(map[string]string{flux.NameLabel: before.ID.Name, flux.NamespaceLabel: before.ID.Namespace})
	made.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "nobody", UID: "1", Controller: new(true)}})
	if err := b.admin().Create(t.Context(), &made); err != nil {
		t.Fatal(err)
	}
	now, fewer := b.node("strays", several("ConfigMap", "data: {a: b}", 2)), b.node("others", several("ServiceAccount", "", 1))
	p, sent := w.plan(now, fewer)
	var got []string
	for _, s := range p.Strays {
		got = append(got, s.Ref.Name+" of "+s.Owner.Name)
	}
	if want := []string{"c02 of strays", "c03 of strays"}; !reflect.DeepEqual(got, want) || len(sent) != 2 {
		t.Errorf("got %q after %q", got, told(sent))
	}
}

// Objects of others neither come over the wire nor count, whoever they belong to:
// nobody, a root with Kustomizations of other names, one with the same names in
// another namespace.
func TestForeignObjectsStayAway(t *testing.T) {
	b := connect(t)
	w := watch(t, kubetest.Shared(t))
	text := several("ConfigMap", "data: {a: b}", 12) + several("Secret", "stringData: {a: b}", 12)
	n := b.node("crowd", text)
	other := b.node("crowd-2", strings.ReplaceAll(text, "name: ", "name: second-"))
	b.apply(b.plan(n), n, apply.Options{})
	b.apply(b.plan(other), other, apply.Options{})
	size := func() int64 {
		t.Helper()
		p, sent := w.plan(n, other)
		if got := p.Count(); got[Unchanged] != 48 {
			t.Fatalf("got %v", got)
		}
		down := int64(0)
		for _, r := range sent {
			down += r.Down
		}
		return down
	}
	before := size()
	admin := b.admin()
	payload := strings.Repeat("x", 2<<10)
	var group sync.WaitGroup
	slots := make(chan struct{}, 16)
	failed := make(chan error, 1)
	for i := range 4000 {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{"a": payload}}}
		if i%2 == 1 {
			o.Object["kind"], o.Object["data"] = "Secret", map[string]any{"a": base64.StdEncoding.EncodeToString([]byte(payload))}
		}
		o.SetName(fmt.Sprintf("foreign-%d", i))
		o.SetNamespace(b.namespace)
		switch i % 4 {
		case 0:
			o.SetLabels(map[string]string{"owner": "helm"})
		case 1:
			o.SetLabels(map[string]string{flux.NameLabel: "other-root", flux.NamespaceLabel: b.namespace})
		case 2:
			o.SetLabels(map[string]string{flux.NameLabel: "crowd", flux.NamespaceLabel: "elsewhere"})
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := admin.Create(t.Context(), o); err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	group.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	// The version in a list's own metadata may have got a digit more.
	if after := size(); after > before+64 {
		t.Errorf("%d bytes came before others had 4,000 objects, %d after", before, after)
	}
}

// A list whose token has expired on the way goes on, or starts again if the
// server does not say how.
func TestExpiredList(t *testing.T) {
	b := connect(t)
	w := watch(t, kubetest.Shared(t))
	n := b.node("pages", several("ConfigMap", "data: {a: b}", pageSize+20))
	b.apply(b.plan(n), n, apply.Options{})

	p, sent := w.plan(n)
	if got := told(sent); len(got) != 2 || p.Count()[Unchanged] != pageSize+20 {
		t.Fatalf("undisturbed: %v, %q", p.Count(), got)
	}
	for name, offer := range map[string]bool{"continued": true, "from the start": false} {
		t.Run(name, func(t *testing.T) {
			expired := metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: 410,
				Reason: metav1.StatusReasonExpired, Message: "The provided continue parameter is too old"}
			if offer {
				expired.Continue = presentToken(t, sent[1].Query.Get("continue"))
			}
			body, err := json.Marshal(expired)
			if err != nil {
				t.Fatal(err)
			}
			fault := w.Fail(proxy.Fault{Times: 1, Do: proxy.Reply(410, "application/json", body),
				Match: func(r proxy.Request) bool { return r.Query.Get("continue") != "" }})
			defer fault.Lift()
			p, sent := w.plan(n)
			if p.Count()[Unchanged] != pageSize+20 || len(sent) != 3 || fault.Hits() != 1 {
				t.Errorf("got %v after %q", p.Count(), told(sent))
			}
		})
	}
}

// presentToken makes of a token one for the present state, as the API server
// offers it when a list has expired.
func presentToken(t *testing.T, token string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	var parts map[string]any
	if err := json.Unmarshal(raw, &parts); err != nil {
		t.Fatal(err)
	}
	parts["rv"] = -1
	if raw, err = json.Marshal(parts); err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// Who may not list the cluster lists namespaces, and who may not even do that
// reads object by object. The plan is the same, and tells.
func TestRefusedLists(t *testing.T) {
	b, second := connect(t), connect(t)
	w := watch(t, kubetest.Shared(t))
	user := b.namespace + "-limited"
	grant := func(namespace string, verbs ...string) {
		t.Helper()
		for _, o := range []client.Object{
			&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "limited"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: verbs}}},
			&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "limited"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "limited"},
				Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}}},
		} {
			if err := b.admin().Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
	}
	grant(b.namespace, "get", "list", "create", "patch")
	grant(second.namespace, "get", "create", "patch")

	here := b.node("here", several("ConfigMap", "data: {a: b}", 4))
	there := second.node("there", several("ConfigMap", "data: {a: b}", 3))
	here.User, there.User = user, user
	c, err := w.cluster.Client(user)
	if err != nil {
		t.Fatal(err)
	}
	// The authorizer learns of the roles in its own time.
	for _, n := range []Node{here, there} {
		for {
			err := c.Get(t.Context(), client.ObjectKeyFromObject(n.Objects[0]), n.Objects[0].DeepCopy().Unstructured)
			if client.IgnoreNotFound(err) == nil {
				break
			}
		}
	}
	for {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "ConfigMapList"})
		if c.List(t.Context(), list, client.InNamespace(b.namespace)) == nil {
			break
		}
	}
	b.apply(b.plan(here), here, apply.Options{})
	second.apply(second.plan(there), there, apply.Options{})

	configMap := schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	for name, tt := range map[string]struct {
		nodes    []Node
		sent     []string
		unlisted []Unlisted
	}{
		"both": {[]Node{here, there}, []string{"get configmaps c00 in one", "get configmaps c01 in one", "get configmaps c02 in one",
			"list configmaps", "list configmaps in one", "list configmaps in one"},
			[]Unlisted{{User: user, Kind: configMap, Everywhere: true, Requests: 4}}},
		"one that may be listed": {[]Node{here}, []string{"list configmaps in one"}, nil},
		"one that may not": {[]Node{there}, []string{"get configmaps c00 in one", "get configmaps c01 in one", "get configmaps c02 in one", "list configmaps in one"},
			[]Unlisted{{User: user, Kind: configMap, Namespace: second.namespace, Requests: 3}}},
	} {
		t.Run(name, func(t *testing.T) {
			p, sent := w.plan(tt.nodes...)
			if n := p.Count(); len(n) != 1 || n[Unchanged] != len(p.Changes) {
				t.Errorf("got %v", n)
			}
			if got := told(sent); !reflect.DeepEqual(got, tt.sent) {
				t.Errorf("sent %q\nwant %q", got, tt.sent)
			}
			if !reflect.DeepEqual(p.Unlisted, tt.unlisted) {
				t.Errorf("told %+v\nwant %+v", p.Unlisted, tt.unlisted)
			}
		})
	}
}

// An object that two selectors match (a name in two namespaces, where one list
// ends and the next begins), or that a list brings twice, is taken once: by then
// its live object may have been let go of.
func TestTakenOnce(t *testing.T) {
	page := parse(t, "shop", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
	it := &item{node: &Node{}, object: page[0], gvk: page[0].GroupVersionKind(), namespaced: true}
	r, w := &run{options: Options{Concurrency: 2}}, wants([]*item{it})
	receive := func() {
		r.receive(t.Context(), it.gvk, []unstructured.Unstructured{{Object: page[0].DeepCopy().Object}}, w)
	}
	receive()
	if it.live == nil {
		t.Fatal("not taken")
	}
	it.live = nil // let go of
	var both sync.WaitGroup
	both.Go(receive)
	both.Go(receive)
	both.Wait()
	if it.live != nil {
		t.Error("taken again")
	}
}

// Selectors name all Kustomizations, each once, and none is too long for an
// address.
func TestOwnerSelectors(t *testing.T) {
	var items []*item
	owners := map[flux.ID]bool{}
	for i := range 1500 {
		id := flux.ID{Namespace: fmt.Sprintf("team-%d", i%7), Name: fmt.Sprintf("application-%d", i)}
		owners[id] = true
		for range 2 {
			items = append(items, &item{node: &Node{ID: id}})
		}
	}
	items = append(items, &item{node: &Node{ID: flux.ID{Namespace: "team-1", Name: strings.Repeat("long", 20)}}})
	selectors, err := ownerSelectors(items)
	if err != nil {
		t.Fatal(err)
	}
	if len(selectors) < 2 || len(selectors) > 12 {
		t.Errorf("%d lists for 1,500 Kustomizations", len(selectors))
	}
	for _, s := range selectors {
		if n := len(url.QueryEscape(s.String())); n > longestSelector+200 {
			t.Errorf("a selector of %d bytes", n)
		}
	}
	for id := range owners {
		n := 0
		for _, s := range selectors {
			if s.Matches(labels.Set{flux.NameLabel: id.Name, flux.NamespaceLabel: id.Namespace}) {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("%s is selected by %d lists", id, n)
		}
	}
	again, err := ownerSelectors(items)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(selectors) {
		t.Errorf("not the same a second time (%v)", err)
	}
}

// An aggregated API whose server is down spoils its own kinds, is named as the
// reason, and costs nothing: no further question, and no waiting.
func TestAggregatedAPIDown(t *testing.T) {
	// A cluster of its own: with such a group no Namespace can be deleted.
	k, err := kubetest.Start(context.Background(), kubetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Stop(); err != nil {
			t.Error(err)
		}
	})
	w := watch(t, k)
	c, err := w.cluster.Client("")
	if err != nil {
		t.Fatal(err)
	}
	service := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": "v1beta1.gone.example.com"},
		"spec": map[string]any{"group": "gone.example.com", "version": "v1beta1", "groupPriorityMinimum": int64(100), "versionPriority": int64(100),
			"insecureSkipTLSVerify": true, "service": map[string]any{"namespace": "default", "name": "nobody"}},
	}}
	if err := c.Create(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	for known := false; !known && t.Context().Err() == nil; {
		// Until then the group is not there at all.
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(service), service); err != nil {
			t.Fatal(err)
		}
		conditions, _, _ := unstructured.NestedSlice(service.Object, "status", "conditions")
		known = slices.ContainsFunc(conditions, func(v any) bool {
			m := v.(map[string]any)
			return m["type"] == "Available" && m["status"] == "False"
		})
	}

	w = watch(t, k) // what was learned before is not known here
	id := flux.ID{Namespace: "default", Name: "apps"}
	objects, _, err := prepare(&flux.Kustomization{ID: id}, parse(t, "default", several("ConfigMap", "data: {a: b}", 3)+
		"---\napiVersion: gone.example.com/v1beta1\nkind: Widget\nmetadata: {name: w}\n"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Make(t.Context(), Options{Client: func(n *Node) (client.WithWatch, error) { return w.cluster.Client("") }, Owner: apply.Owner()},
		[]Node{{ID: id, Objects: objects, Rules: Rules{SSA: apply.Options{}.SSA()}}})
	var failed Errors
	if !errors.As(err, &failed) || len(failed) != 1 || failed[0].Ref.Kind != "Widget" ||
		!strings.Contains(err.Error(), "the API server that gone.example.com/v1beta1 is delegated to does not answer") ||
		!strings.Contains(failed[0].Hint(), "APIService v1beta1.gone.example.com") {
		t.Errorf("got %v", err)
	}
	if got := p.Count(); got[Create] != 3 || len(got) != 1 {
		t.Errorf("got %v", got)
	}
	// The third discovery is /version.
	want := []string{"discovery", "discovery", "discovery", "dry-run configmaps c00 in one", "dry-run configmaps c01 in one", "dry-run configmaps c02 in one", "list configmaps in one", "review selfsubjectreviews"}
	if got := told(w.Take()); !reflect.DeepEqual(got, want) {
		t.Errorf("sent %q\nwant %q", got, want)
	}
}
