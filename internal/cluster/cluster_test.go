package cluster_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// serverSideApply is the patch that ssa sends.
//
//lint:ignore SA1019 its successor takes typed apply configurations, which manifests are not
var serverSideApply = client.Apply

// kubeconfig writes one for an address, with the given user.
func kubeconfig(t *testing.T, server string, ca []byte, user *clientcmdapi.AuthInfo) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos["u"] = user
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "test"
	path := filepath.Join(t.TempDir(), "config")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func ca(t *testing.T, c *rest.Config) []byte {
	t.Helper()
	if len(c.CAData) > 0 {
		return c.CAData
	}
	data, err := os.ReadFile(c.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func connect(t *testing.T, o cluster.Options) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func clientFor(t *testing.T, c *cluster.Cluster, user string) client.WithWatch {
	t.Helper()
	out, err := c.Client(user)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func whoami(t *testing.T, c *cluster.Cluster, user string) authenticationv1.UserInfo {
	t.Helper()
	review := &authenticationv1.SelfSubjectReview{}
	if err := clientFor(t, c, user).Create(t.Context(), review); err != nil {
		t.Fatal(err)
	}
	return review.Status.UserInfo
}

func TestConnect(t *testing.T) {
	k := kubetest.Shared(t)
	c := connect(t, cluster.Options{Kubeconfig: k.Kubeconfig()})
	if c.Context == "" || !strings.HasPrefix(c.ServerVersion, "v1.") || c.User == "" || c.Server != strings.TrimSuffix(k.Server(), "/") {
		t.Errorf("%+v", c)
	}
	if clientFor(t, c, "") != clientFor(t, c, "") {
		t.Error("two clients for one user")
	}
	if config := c.Config("x"); config.QPS != -1 || config.Impersonate.UserName != "x" {
		t.Errorf("%+v", config)
	}
}

// S4.40: only the user name is impersonated, the server adds the groups; a
// Kustomization's account replaces --as.
func TestS4_40Impersonation(t *testing.T) {
	k := kubetest.Shared(t)
	user := cluster.ServiceAccountUser("team", "deployer")
	if user != "system:serviceaccount:team:deployer" || cluster.ServiceAccountUser("team", "") != "" {
		t.Errorf("user %q", user)
	}
	for _, as := range []string{"", "jane"} {
		c := connect(t, cluster.Options{Kubeconfig: k.Kubeconfig(), As: as})
		if as != "" && (c.User != as || whoami(t, c, "").Username != as) {
			t.Errorf("as %q: %q", as, c.User)
		}
		who := whoami(t, c, user)
		if who.Username != user || !strings.Contains(strings.Join(who.Groups, " "), "system:serviceaccounts:team") {
			t.Errorf("%+v", who)
		}
	}
}

// Whatever keeps a server from being used has its own words and remedy.
func TestServerProblems(t *testing.T) {
	k := kubetest.Shared(t)
	authority := ca(t, k.Config())
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := "https://" + closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	website := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello</html>")) }))
	t.Cleanup(website.Close)
	missing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(missing.Close)
	bob, err := k.KubeconfigFor("bob")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		options cluster.Options
		problem cluster.Problem
		text    string
	}{
		{"nobody answers", cluster.Options{Kubeconfig: kubeconfig(t, refusing, nil, &clientcmdapi.AuthInfo{})}, cluster.Unreachable,
			"cannot reach the API server " + refusing + ` (context "test"): `},
		{"wrong token", cluster.Options{Kubeconfig: kubeconfig(t, k.Server(), authority, &clientcmdapi.AuthInfo{Token: "no"})}, cluster.Unauthorized,
			"the API server " + k.Server()},
		{"no credentials", cluster.Options{Kubeconfig: kubeconfig(t, k.Server(), authority, &clientcmdapi.AuthInfo{})}, cluster.Unauthorized,
			"the API server " + k.Server()},
		{"other authority", cluster.Options{Kubeconfig: kubeconfig(t, k.Server(), nil, &clientcmdapi.AuthInfo{Token: "no"})}, cluster.Unreachable, "do not trust the API server"},
		{"no plug-in", cluster.Options{Kubeconfig: kubeconfig(t, k.Server(), authority, &clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
			APIVersion: "client.authentication.k8s.io/v1", Command: "no-such-plug-in", InteractiveMode: clientcmdapi.NeverExecInteractiveMode}})},
			cluster.Unauthorized, "no-such-plug-in"},
		{"may not act as another", cluster.Options{Kubeconfig: bob, As: "jane"}, cluster.Forbidden, `not allowed to act as "jane" on`},
		{"a website", cluster.Options{Kubeconfig: kubeconfig(t, website.URL, nil, &clientcmdapi.AuthInfo{})}, cluster.NotKubernetes, "does not look like"},
		{"another website", cluster.Options{Kubeconfig: kubeconfig(t, missing.URL, nil, &clientcmdapi.AuthInfo{})}, cluster.NotKubernetes, "does not look like"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := cluster.Connect(t.Context(), tc.options)
			var e *cluster.Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v", err)
			}
			if e.Problem != tc.problem || !strings.Contains(e.Error(), tc.text) || e.Hint() == "" {
				t.Errorf("%s: %q (%s), want %s: %q", e.Problem, e, e.Hint(), tc.problem, tc.text)
			}
		})
	}
	if _, err := cluster.Connect(t.Context(), cluster.Options{Kubeconfig: bob}); err != nil {
		t.Errorf("bob may connect: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("told to stop")
	cancel(stop)
	if _, err := cluster.Connect(ctx, cluster.Options{Kubeconfig: k.Kubeconfig()}); !errors.Is(err, stop) {
		t.Errorf("cancelled: %v", err)
	}
}

// behind connects by way of a proxy.
func behind(t *testing.T) (*cluster.Cluster, *proxy.Proxy) {
	t.Helper()
	p := proxy.New(t, kubetest.Shared(t))
	return connect(t, cluster.Options{Kubeconfig: kubeconfig(t, p.URL(), nil, &clientcmdapi.AuthInfo{})}), p
}

// Requests that can be repeated are, whatever way they fail.
func TestRetries(t *testing.T) {
	c, p := behind(t)
	etcd := []byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"etcdserver: leader changed","code":500}`)
	// fail makes the next so many requests for ConfigMaps fail, and no others.
	var last *proxy.Active
	fail := func(times int, do proxy.Action) {
		if last != nil {
			last.Lift()
		}
		last = p.Fail(proxy.Fault{Match: proxy.To("", "configmaps"), Times: times, Do: do})
	}
	ways := []struct {
		name string
		do   proxy.Action
	}{
		{"cut", proxy.Cut()},
		{"busy", proxy.Answer(http.StatusTooManyRequests, 0)},
		{"etcd", proxy.Reply(http.StatusInternalServerError, "application/json", etcd)},
		{"unavailable", proxy.Answer(http.StatusServiceUnavailable, 0)},
	}
	cl := clientFor(t, c, "")
	ns := kubetest.Namespace(t, kubetest.Shared(t))
	for _, way := range ways {
		m := way.name
		fail(2, way.do)
		desired := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": m, "namespace": ns}}}
		if err := cl.Patch(t.Context(), desired, serverSideApply, client.FieldOwner("test")); err != nil {
			t.Errorf("%s: apply: %v", m, err)
		}
		fail(2, way.do)
		if err := cl.Get(t.Context(), client.ObjectKeyFromObject(desired), desired); err != nil {
			t.Errorf("%s: get: %v", m, err)
		}
		fail(1, way.do)
		if err := cl.List(t.Context(), &corev1.ConfigMapList{}, client.InNamespace(ns)); err != nil {
			t.Errorf("%s: list: %v", m, err)
		}
		fail(1, way.do)
		w, err := cl.Watch(t.Context(), &corev1.ConfigMapList{}, client.InNamespace(ns))
		if err != nil {
			t.Errorf("%s: watch: %v", m, err)
			continue
		}
		if e := <-w.ResultChan(); e.Type != watch.Added {
			t.Errorf("%s: the watch ends with its first request: %v", m, e)
		}
		w.Stop()
	}
	// A create that leaves the name to the server is not sent twice if the server may have seen it: that could make two.
	fail(1, ways[2].do)
	p.Take()
	err := cl.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "once-", Namespace: ns}})
	if sent := p.Take(); err == nil || len(sent) != 1 {
		t.Errorf("create: %v after %v", err, sent)
	}
	// Nor is an update, or a deletion, of whatever is there.
	fail(1, proxy.CutAfter())
	err = cl.Update(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cut", Namespace: ns}})
	if sent := p.Take(); err == nil || len(sent) != 1 {
		t.Errorf("update: %v after %v", err, sent)
	}
	fail(1, proxy.CutAfter())
	err = cl.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cut", Namespace: ns}})
	if sent := p.Take(); err == nil || len(sent) != 1 {
		t.Errorf("delete: %v after %v", err, sent)
	}
	// Nor is what cannot pass.
	err = cl.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "none"}, &corev1.ConfigMap{})
	if sent := p.Take(); err == nil || len(sent) != 1 {
		t.Errorf("get: %v after %v", err, sent)
	}
}

// Writes that hold for one name, version or UID only are sent again, too. Where the first has been carried out and its answer
// was lost, the second says so in the words that those have to expect who write this way.
func TestConditionalWritesAreRepeated(t *testing.T) {
	c, p := behind(t)
	cl := clientFor(t, c, "")
	ns := kubetest.Namespace(t, kubetest.Shared(t))
	for _, way := range []struct {
		name string
		do   proxy.Action
		// done says that the server has carried out the first.
		done bool
	}{
		{"cut", proxy.Cut(), false},
		{"cut-after", proxy.CutAfter(), true},
		{"truncated", proxy.Truncate(20), true},
		{"unwell", proxy.Answer(http.StatusInternalServerError, 0), false},
	} {
		t.Run(way.name, func(t *testing.T) {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: way.name, Namespace: ns}}
			send := func(what string, request func() error, told func(error) bool) {
				t.Helper()
				before := c.Repeated()
				fault := p.Fail(proxy.Fault{Match: proxy.To("", "configmaps"), Times: 1, Do: way.do})
				defer fault.Lift()
				err := request()
				if way.done && !told(err) || !way.done && err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if n := c.Repeated() - before; n != 1 {
					t.Errorf("%s: %d requests sent again are counted", what, n)
				}
			}
			live := func() *corev1.ConfigMap {
				t.Helper()
				now := &corev1.ConfigMap{}
				if err := cl.Get(t.Context(), client.ObjectKeyFromObject(cm), now); err != nil {
					t.Fatal(err)
				}
				return now
			}
			send("create", func() error { return cl.Create(t.Context(), cm.DeepCopy()) }, apierrors.IsAlreadyExists)
			now := live()
			now.Data = map[string]string{"a": "b"}
			send("update", func() error { return cl.Update(t.Context(), now) }, apierrors.IsConflict)
			now = live()
			if now.Data["a"] != "b" {
				t.Errorf("not updated: %v", now.Data)
			}
			send("delete", func() error { return cl.Delete(t.Context(), now, client.Preconditions{UID: &now.UID}) }, apierrors.IsNotFound)
			if err := cl.Get(t.Context(), client.ObjectKeyFromObject(cm), now); !apierrors.IsNotFound(err) {
				t.Errorf("after the deletion: %v", err)
			}
		})
	}
}

// client-go repeats a GET whose connection was lost ten times by itself, once in a second; that would come on top of each of
// the attempts here, and hold up those who want an answer soon, such as who asks for the server's OpenAPI.
func TestLostConnectionsAreRepeatedInOnePlace(t *testing.T) {
	c, p := behind(t)
	dyn, err := c.Dynamic("") // does not repeat
	if err != nil {
		t.Fatal(err)
	}
	maps := dyn.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("default")
	p.Fail(proxy.Fault{Match: proxy.To("", "configmaps"), Do: proxy.Cut()})
	for name, request := range map[string]func() error{
		"get":   func() error { _, err := maps.Get(t.Context(), "x", metav1.GetOptions{}); return err },
		"list":  func() error { _, err := maps.List(t.Context(), metav1.ListOptions{}); return err },
		"watch": func() error { _, err := maps.Watch(t.Context(), metav1.ListOptions{}); return err },
	} {
		p.Take()
		err := request()
		// Go's own client sends a GET twice if the connection had been used.
		if sent := p.Take(); faults.Of(err) != faults.Lost || len(sent) > 2 {
			t.Errorf("%s: %v after %d requests", name, err, len(sent))
		}
	}
}

// Whoever asks for a kind gives no context: the end of the run ends the question, wherever it is.
func TestKindsAreNotAskedForAfterTheEnd(t *testing.T) {
	for name, do := range map[string]proxy.Action{
		"a server that hangs": proxy.Hang(), "one that is busy": proxy.Answer(http.StatusTooManyRequests, 60), "one that is away": proxy.Cut(),
	} {
		t.Run(name, func(t *testing.T) {
			p := proxy.New(t, kubetest.Shared(t))
			done := make(chan struct{})
			c := connect(t, cluster.Options{Kubeconfig: kubeconfig(t, p.URL(), nil, &clientcmdapi.AuthInfo{}), Done: done})
			fault := p.Fail(proxy.Fault{Match: func(r proxy.Request) bool { return r.Path == "/api" }, Do: do})
			meta.MaybeResetRESTMapper(c.Mapper())
			asked := make(chan error)
			go func() {
				for {
					// That a kind is unknown is believed for a moment.
					_, err := c.Mapper().RESTMapping(schema.GroupKind{Group: "example.com", Kind: "Gizmo"}, "v1")
					if err == nil || strings.Contains(err.Error(), "cannot ask the server") {
						asked <- err
						return
					}
				}
			}()
			if err := fault.Await(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			close(done)
			if err := <-asked; err == nil || !strings.Contains(err.Error(), "the run is at its end") {
				t.Errorf("%v", err)
			}
			if spent := time.Since(began); spent > 4*time.Second { // it would be a minute, or half of one
				t.Errorf("it took %s", spent)
			}
		})
	}
}

// A server that is busy gets each request once more when the time that it named is
// over, from all kinds of clients.
func TestBusyServer(t *testing.T) {
	c, p := behind(t)
	refuse := func(times int) *proxy.Active {
		p.Take()
		return p.Fail(proxy.Fault{Match: proxy.To("", "configmaps"), Times: times, Do: proxy.Answer(http.StatusTooManyRequests, 1)})
	}
	ns := kubetest.Namespace(t, kubetest.Shared(t))
	cl := clientFor(t, c, "")
	dyn, err := c.Dynamic("")
	if err != nil {
		t.Fatal(err)
	}
	maps := dyn.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(ns)
	// Many at once.
	fault := refuse(5)
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() {
			_, err := maps.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
				"metadata": map[string]any{"name": "many-" + strconv.Itoa(i)}}}, metav1.CreateOptions{})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := len(p.Take()); n != 105 {
		t.Errorf("%d requests for 100, of which 5 were refused", n)
	}
	fault.Lift()
	for _, tc := range []struct {
		name    string
		request func(ctx context.Context) error
	}{
		{"create", func(ctx context.Context) error {
			return cl.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "one", Namespace: ns}})
		}},
		{"list", func(ctx context.Context) error { return cl.List(ctx, &corev1.ConfigMapList{}, client.InNamespace(ns)) }},
		{"dynamic get", func(ctx context.Context) error {
			_, err := maps.Get(ctx, "one", metav1.GetOptions{})
			return err
		}},
		{"dynamic watch", func(ctx context.Context) error {
			w, err := maps.Watch(ctx, metav1.ListOptions{})
			if err == nil {
				w.Stop()
			}
			return err
		}},
	} {
		fault := refuse(1)
		if err := tc.request(t.Context()); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if n := len(p.Take()); n != 2 {
			t.Errorf("%s: %d requests", tc.name, n)
		}
		fault.Lift()
	}
	// A server that stays busy: the answer comes when there is no more time,
	// and is not asked for by several layers.
	refuse(1000)
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	err = cl.Get(ctx, client.ObjectKey{Namespace: ns, Name: "one"}, &corev1.ConfigMap{})
	if n := len(p.Take()); !apierrors.IsTooManyRequests(err) || n > 3 {
		t.Errorf("%v after %d requests", err, n)
	}
}

// A kind is known as soon as its definition is, and asking for unknown kinds
// does not ask the server each time.
func TestMapperLearns(t *testing.T) {
	c, p := behind(t)
	group := strings.ToLower(strings.ReplaceAll(kubetest.Namespace(t, kubetest.Shared(t)), "-", "")) + ".example.com"
	kind := schema.GroupKind{Group: group, Kind: "Gadget"}
	p.Take()
	for range 200 {
		if _, err := c.Mapper().RESTMapping(kind, "v1"); !meta.IsNoMatchError(err) {
			t.Fatalf("error %v", err)
		}
	}
	discoveries := slices.DeleteFunc(p.Take(), func(r proxy.Request) bool { return r.Path != "/apis" })
	if n := len(discoveries); n > 20 {
		t.Errorf("%d questions to the server for one unknown kind", n)
	}
	crd := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "gadgets." + group},
		"spec": map[string]any{"group": group, "scope": "Cluster",
			"names":    map[string]any{"kind": "Gadget", "plural": "gadgets", "singular": "gadget", "listKind": "GadgetList"},
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object"}}}}},
	}}
	// It is defined by somebody else, while a third only waits for it to come.
	waiting := connect(t, cluster.Options{Kubeconfig: kubetest.Shared(t).Kubeconfig()})
	if _, err := waiting.Mapper().RESTMapping(kind, "v1"); !meta.IsNoMatchError(err) {
		t.Fatalf("error %v", err)
	}
	cl := clientFor(t, c, "")
	if err := cl.Create(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cl.Delete(context.Background(), crd); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30e9)
	defer cancel()
	for _, mapper := range []meta.RESTMapper{c.Mapper(), waiting.Mapper()} {
		for {
			m, err := mapper.RESTMapping(kind, "v1")
			if err == nil {
				if m.Resource.Resource != "gadgets" {
					t.Errorf("%+v", m)
				}
				break
			}
			if !meta.IsNoMatchError(err) || ctx.Err() != nil {
				t.Fatalf("error %v", err)
			}
			meta.MaybeResetRESTMapper(mapper)
		}
	}
}

// Warnings of the server and log lines of the libraries go to the callbacks.
func TestNothingIsPrinted(t *testing.T) {
	var mu sync.Mutex
	var warnings, lines []string
	collect := func(to *[]string) func(string) {
		return func(s string) {
			mu.Lock()
			defer mu.Unlock()
			*to = append(*to, s)
		}
	}
	c := connect(t, cluster.Options{Kubeconfig: kubetest.Shared(t).Kubeconfig(), Warning: collect(&warnings), Log: collect(&lines)})
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "EndpointsList"})
	if err := clientFor(t, c, "").List(rehearse.Quiet(t.Context()), list); err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Errorf("of a quiet request: warnings %q", warnings)
	}
	if err := clientFor(t, c, "").List(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	klog.Error("a library complains")
	mu.Lock()
	defer mu.Unlock()
	if len(warnings) == 0 || !strings.Contains(warnings[0], "deprecated") {
		t.Errorf("warnings %q", warnings)
	}
	if len(lines) != 1 || !strings.Contains(lines[0], "a library complains") {
		t.Errorf("lines %q", lines)
	}
}
