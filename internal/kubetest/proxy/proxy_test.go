//go:build unix

package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

func TestDescribe(t *testing.T) {
	for _, test := range []struct {
		method, url, contentType string
		want                     proxy.Request
		writes                   bool
	}{
		{method: "GET", url: "/version", want: proxy.Request{Verb: "discovery"}},
		{method: "GET", url: "/api", want: proxy.Request{Verb: "discovery"}},
		{method: "GET", url: "/apis/apps/v1", want: proxy.Request{Verb: "discovery"}},
		{method: "GET", url: "/openapi/v3/apis/apps/v1", want: proxy.Request{Verb: "discovery"}},
		{method: "GET", url: "/api/v1/namespaces", want: proxy.Request{Verb: "list", Resource: "namespaces"}},
		{method: "GET", url: "/api/v1/namespaces/a", want: proxy.Request{Verb: "get", Resource: "namespaces", Name: "a"}},
		{method: "PUT", url: "/api/v1/namespaces/a/finalize", want: proxy.Request{Verb: "update", Resource: "namespaces", Name: "a", Subresource: "finalize"}, writes: true},
		{method: "GET", url: "/api/v1/namespaces/a/configmaps", want: proxy.Request{Verb: "list", Resource: "configmaps", Namespace: "a"}},
		{method: "GET", url: "/apis/apps/v1/deployments?watch=true", want: proxy.Request{Verb: "watch", Group: "apps", Resource: "deployments"}},
		{method: "GET", url: "/api/v1/namespaces/a/pods/b/log", want: proxy.Request{Verb: "get", Resource: "pods", Namespace: "a", Name: "b", Subresource: "log"}},
		{method: "PATCH", url: "/api/v1/namespaces/a/configmaps/b", contentType: "application/apply-patch+yaml",
			want: proxy.Request{Verb: "apply", Resource: "configmaps", Namespace: "a", Name: "b"}, writes: true},
		{method: "PATCH", url: "/api/v1/namespaces/a/configmaps/b?dryRun=All&force=true", contentType: "application/apply-patch+yaml",
			want: proxy.Request{Verb: "dry-run", Resource: "configmaps", Namespace: "a", Name: "b"}},
		{method: "PATCH", url: "/api/v1/namespaces/a/configmaps/b", contentType: "application/json-patch+json",
			want: proxy.Request{Verb: "patch", Resource: "configmaps", Namespace: "a", Name: "b"}, writes: true},
		{method: "POST", url: "/api/v1/namespaces/a/configmaps", want: proxy.Request{Verb: "create", Resource: "configmaps", Namespace: "a"}, writes: true},
		{method: "DELETE", url: "/api/v1/nodes/a", want: proxy.Request{Verb: "delete", Resource: "nodes", Name: "a"}, writes: true},
		{method: "POST", url: "/apis/authentication.k8s.io/v1/selfsubjectreviews",
			want: proxy.Request{Verb: "review", Group: "authentication.k8s.io", Resource: "selfsubjectreviews"}},
	} {
		r, err := http.NewRequestWithContext(t.Context(), test.method, "http://localhost"+test.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", test.contentType)
		got := proxy.Describe(r)
		if got.Writes() != test.writes {
			t.Errorf("%s: writes %t", got, got.Writes())
		}
		got.Method, got.Path, got.Query = "", "", nil
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s %s: got %+v, want %+v", test.method, test.url, got, test.want)
		}
	}
}

// env is a namespace and a client that sees it through a proxy.
type env struct {
	*proxy.Proxy
	namespace string
	client    *kubernetes.Clientset
}

func newEnv(t *testing.T) env {
	t.Helper()
	cluster := kubetest.Shared(t)
	p := proxy.New(t, cluster)
	client, err := kubernetes.NewForConfig(p.Config())
	if err != nil {
		t.Fatal(err)
	}
	return env{p, kubetest.Namespace(t, cluster), client}
}

func (e env) create(ctx context.Context, name string) error {
	_, err := e.client.CoreV1().ConfigMaps(e.namespace).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"text": strings.Repeat("x", 2000)},
	}, metav1.CreateOptions{})
	return err
}

func (e env) get(ctx context.Context, name string) error {
	_, err := e.client.CoreV1().ConfigMaps(e.namespace).Get(ctx, name, metav1.GetOptions{})
	return err
}

func TestRequestsAreWrittenDown(t *testing.T) {
	e := newEnv(t)
	if err := e.create(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := e.get(t.Context(), "b"); !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	apply := &metav1.PatchOptions{FieldManager: "test", DryRun: []string{metav1.DryRunAll}}
	manifest := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":%q}}`, e.namespace)
	if _, err := e.client.CoreV1().ConfigMaps(e.namespace).Patch(t.Context(), "a", types.ApplyPatchType, []byte(manifest), *apply); err != nil {
		t.Fatal(err)
	}
	got := e.Requests()
	if len(got) != 3 {
		t.Fatalf("%v", got)
	}
	if r := got[0]; r.N != 1 || r.Verb != "create" || r.Up < 2000 || r.Down < 2000 || r.Code != http.StatusCreated {
		t.Errorf("%+v", r)
	}
	if r := got[1]; r.N != 2 || r.Verb != "get" || r.Name != "b" || r.Code != http.StatusNotFound {
		t.Errorf("%+v", r)
	}
	if want := map[string]int{"create": 1, "get": 1, "dry-run": 1}; !reflect.DeepEqual(proxy.Count(got), want) {
		t.Errorf("%v", proxy.Count(got))
	}
	if want := []string{"POST /api/v1/namespaces/" + e.namespace + "/configmaps"}; !reflect.DeepEqual(proxy.Writing(got), want) {
		t.Errorf("%v", proxy.Writing(got))
	}
	e.Take()
	if err := e.get(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if got := e.Requests(); len(got) != 1 || got[0].N != 4 {
		t.Errorf("%+v", got)
	}
	if err := e.AwaitIdle(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestKubeconfig(t *testing.T) {
	e := newEnv(t)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := e.WriteKubeconfig(file); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Namespaces().Get(t.Context(), e.namespace, metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := len(e.Requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// What a client sees of each fault, and whether the server has done what it was asked for.
func TestFaults(t *testing.T) {
	cut := func(err error) bool {
		var netError *net.OpError
		return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &netError)
	}
	for name, test := range map[string]struct {
		do   proxy.Action
		seen func(error) bool
		done bool
	}{
		"cut":       {proxy.Cut(), cut, false},
		"cut after": {proxy.CutAfter(), cut, true},
		"truncate":  {proxy.Truncate(100), cut, true},
		"500":       {proxy.Answer(500, 0), apierrors.IsInternalError, false},
		"503":       {proxy.Answer(503, 0), apierrors.IsServiceUnavailable, false},
		"403":       {proxy.Answer(403, 0), apierrors.IsForbidden, false},
		"409":       {proxy.Answer(409, 0), apierrors.IsAlreadyExists, false},
		"429":       {proxy.Answer(429, 0), apierrors.IsTooManyRequests, false},
		"odd":       {proxy.Reply(200, "application/json", []byte("[")), func(err error) bool { return err != nil }, false},
		"rewrite":   {proxy.Rewrite(func(body []byte) []byte { return body[:len(body)-5] }), func(err error) bool { return err != nil }, true},
		"warn":      {proxy.Warn("mind the gap"), func(err error) bool { return err == nil }, true},
		"delay":     {proxy.Delay(time.Millisecond), func(err error) bool { return err == nil }, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			fault := e.Fail(proxy.Fault{Match: proxy.To("create", "configmaps"), Skip: 1, Times: 1, Do: test.do})
			for i, name := range []string{"a", "b", "c"} {
				err := e.create(t.Context(), name)
				if ok := err == nil; i != 1 && !ok || i == 1 && !test.seen(err) {
					t.Errorf("%s: %v", name, err)
				}
				if done := e.get(t.Context(), name) == nil; done != (i != 1 || test.done) {
					t.Errorf("%s is there: %t", name, done)
				}
			}
			if fault.Hits() != 1 {
				t.Errorf("%d hits", fault.Hits())
			}
		})
	}
}

// Retry-After is passed on as the API server does, so client-go obeys it.
func TestRetryAfter(t *testing.T) {
	e := newEnv(t)
	e.Fail(proxy.Nth(1, proxy.Answer(http.StatusTooManyRequests, 1)))
	began := time.Now()
	if err := e.create(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("repeated after %s", took)
	}
	if got := e.Requests(); len(got) != 2 || got[0].Code != http.StatusTooManyRequests {
		t.Errorf("%+v", got)
	}
}

// A request hangs until it is released, and a hook is called before it goes on to the server.
func TestHangAndCall(t *testing.T) {
	e := newEnv(t)
	hang := e.Fail(proxy.Fault{Match: proxy.To("create", ""), Do: proxy.Hang()})
	var called []proxy.Request
	e.Fail(proxy.Fault{Match: proxy.To("create", ""), Do: proxy.Call(func(r proxy.Request) { called = append(called, r) })})
	created := make(chan error)
	go func() { created <- e.create(t.Context(), "a") }()
	if err := hang.Await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := e.get(t.Context(), "a"); !apierrors.IsNotFound(err) {
		t.Errorf("while it hangs: %v", err)
	}
	ended, end := context.WithCancelCause(t.Context())
	end(errors.New("no more time"))
	if err := e.AwaitIdle(ended); err == nil || !strings.Contains(err.Error(), "no more time") {
		t.Errorf("while a request hangs, the proxy is idle: %v", err)
	}
	idle := make(chan error)
	go func() { idle <- e.AwaitIdle(t.Context()) }()
	hang.Lift()
	if err := <-created; err != nil {
		t.Error(err)
	}
	if err := <-idle; err != nil {
		t.Error(err)
	}
	if err := e.get(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if len(called) != 1 || called[0].N != 1 {
		t.Errorf("%+v", called)
	}
}

// While the server is down, watches end and nothing gets through.
func TestDown(t *testing.T) {
	e := newEnv(t)
	watch, err := e.client.CoreV1().ConfigMaps(e.namespace).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	down := e.Down()
	for range watch.ResultChan() { // ends with the connection
	}
	if err := e.get(t.Context(), "a"); err == nil || apierrors.IsNotFound(err) {
		t.Errorf("while it is down: %v", err)
	}
	down.Lift()
	if err := e.get(t.Context(), "a"); !apierrors.IsNotFound(err) {
		t.Errorf("afterwards: %v", err)
	}
}

// The n-th request is one request, whatever the concurrency.
func TestCountsUnderConcurrency(t *testing.T) {
	e := newEnv(t)
	fault := e.Fail(proxy.Fault{Match: proxy.To("create", ""), Skip: 3, Times: 2, Do: proxy.Answer(http.StatusForbidden, 0)})
	var all sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		all.Go(func() { errs[i] = e.create(t.Context(), fmt.Sprint(i)) })
	}
	all.Wait()
	failed := 0
	for _, err := range errs {
		if apierrors.IsForbidden(err) {
			failed++
		} else if err != nil {
			t.Error(err)
		}
	}
	if failed != 2 || fault.Hits() != 2 {
		t.Errorf("%d failed, %d hits", failed, fault.Hits())
	}
	for i, r := range e.Requests() {
		if r.N != i+1 || i < 20 && (r.Code == http.StatusForbidden) != (i == 3 || i == 4) {
			t.Errorf("%+v", r)
		}
	}
}

// A client in this process can be counted without a proxy.
func TestRecorder(t *testing.T) {
	cluster := kubetest.Shared(t)
	config, recorder := cluster.Config(), &proxy.Recorder{}
	config.Wrap(recorder.Wrap)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := recorder.Take(); len(got) != 1 || got[0].Verb != "list" || got[0].Code != http.StatusOK || !got[0].Done {
		t.Errorf("%+v", got)
	}
}

// A request that does not get through is not hidden.
func TestProxyTellsWhatFailed(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	p, err := proxy.Start(&rest.Config{Host: gone.URL})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(p.URL() + "/first")
	if err == nil {
		resp.Body.Close()
		t.Error("an answer came through")
	}
	if err := p.Close(); err == nil || !strings.Contains(err.Error(), "GET /first: ") {
		t.Errorf("error %v, want that of the request", err)
	}
}
