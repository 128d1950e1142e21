//go:build unix

package health

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// long is how long a test lets a wait take that is to end by itself.
const long = 60 * time.Second

// env is a namespace on the test cluster and the clients of an administrator.
type env struct {
	testing.TB
	config    *rest.Config
	namespace string
	clients   Clients
	mapper    meta.RESTMapper
	started   time.Time
}

func newEnv(t testing.TB) *env {
	t.Helper()
	c := kubetest.Shared(t)
	config := c.Config()
	config.QPS, config.Burst = -1, -1
	e := &env{TB: t, config: config, namespace: kubetest.Namespace(t, c), started: time.Now()}
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	if e.mapper, err = apiutil.NewDynamicRESTMapper(config, httpClient); err != nil {
		t.Fatal(err)
	}
	e.clients = e.clientsFor(config)
	return e
}

func (e *env) clientsFor(config *rest.Config) Clients {
	e.Helper()
	c, err := NewClients(config, nil, e.mapper)
	if err != nil {
		e.Fatal(err)
	}
	return c
}

func (e *env) resource(o *unstructured.Unstructured) dynamic.ResourceInterface {
	e.Helper()
	m, err := e.mapper.RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
	if err != nil {
		e.Fatal(err)
	}
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		if o.GetNamespace() == "" {
			o.SetNamespace(e.namespace)
		}
		return e.clients.Dynamic.Resource(m.Resource).Namespace(o.GetNamespace())
	}
	return e.clients.Dynamic.Resource(m.Resource)
}

// apply applies manifests and returns the targets that wait for them.
func (e *env) apply(manifests ...string) []Target {
	e.Helper()
	var targets []Target
	for _, m := range manifests {
		o := parse(e, m)
		if _, err := e.resource(o).Apply(e.Context(), o.GetName(), o, metav1.ApplyOptions{FieldManager: "test", Force: true}); err != nil {
			e.Fatalf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
		}
		targets = append(targets, Target{Ref: flux.RefOf(o)})
	}
	return targets
}

func (e *env) delete(manifest string) {
	e.Helper()
	o := parse(e, manifest)
	if err := e.resource(o).Delete(context.Background(), o.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		e.Errorf("delete %s %s: %v", o.GetKind(), o.GetName(), err)
	}
}

// journal collects reports.
type journal struct {
	mu    sync.Mutex
	lines []string
	seen  chan string
}

func newJournal() *journal { return &journal{seen: make(chan string, 1000)} }

func (j *journal) report(s Status) {
	j.mu.Lock()
	defer j.mu.Unlock()
	line := s.text()
	j.lines = append(j.lines, line)
	j.seen <- line
}

// await returns once a line with the text was reported.
func (j *journal) await(t testing.TB, text string) {
	t.Helper()
	limit := time.NewTimer(long)
	defer limit.Stop()
	for {
		select {
		case line := <-j.seen:
			if strings.Contains(line, text) {
				return
			}
		case <-limit.C:
			t.Fatalf("no report with %q among\n%s", text, j)
		}
	}
}

func (j *journal) has(text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.lines, func(l string) bool { return strings.Contains(l, text) })
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

// newHub makes a hub that has no fault.
func newHub(c Clients) *Hub { return NewHub(c, func(err error) { panic(err) }) }

// wait is a wait on a hub of its own.
func wait(ctx context.Context, c Clients, targets []Target, o Options) ([]Status, error) {
	h := newHub(c)
	defer h.Close()
	return h.Wait(ctx, targets, o)
}

// noneLeft fails the test if goroutines of this package or of its watches go on.
func noneLeft(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		buffer := make([]byte, 4<<20)
		buffer = buffer[:runtime.Stack(buffer, true)]
		var left []string
		for _, g := range strings.Split(string(buffer), "\n\n") {
			for _, mine := range []string{"health.(*waiter)", "health.(*stream)", "health.(*newKinds)", "health.(*set)", "health.(*podWatch)", "health.(*Hub)", "watch.(*StreamWatcher)", "watch.(*filteredWatch)"} {
				if strings.Contains(g, mine) {
					left = append(left, g)
					break
				}
			}
		}
		if len(left) == 0 {
			return
		}
		// A goroutine that has closed its channel may need a moment more to end.
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		runtime.Gosched()
	}
}

func deploymentOf(name, image string, replicas int, annotations string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}, annotations: {%[4]s}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: app, image: %[2]q}]}
`, name, image, replicas, annotations)
}

func jobOf(name, annotations, spec string) string {
	return fmt.Sprintf(`apiVersion: batch/v1
kind: Job
metadata: {name: %s}
spec:
  backoffLimit: 0
  %s
  template:
    metadata: {annotations: {%s}}
    spec: {restartPolicy: Never, terminationGracePeriodSeconds: 0, containers: [{name: app, image: "migrate:1"}]}
`, name, spec, annotations)
}

// await waits until the live object satisfies done.
func (e *env) await(manifest, what string, done func(*unstructured.Unstructured) bool) {
	e.Helper()
	o := parse(e, manifest)
	ctx, cancel := context.WithTimeout(e.Context(), long)
	defer cancel()
	found := false
	s := &stream{lister: dynamicLister{e.resource(o)}, name: o.GetName(), emit: func(b batch) bool {
		for _, o := range b.objects {
			found = found || done(o)
		}
		return !found
	}}
	if err := s.run(ctx, true); err != nil || !found {
		e.Fatalf("%s %s never had %s: %v", o.GetKind(), o.GetName(), what, err)
	}
}

func (e *env) awaitField(manifest string, path ...string) {
	e.Helper()
	e.await(manifest, strings.Join(path, "."), func(o *unstructured.Unstructured) bool {
		_, found, err := unstructured.NestedFieldNoCopy(o.Object, path...)
		return err == nil && found
	})
}

func (e *env) awaitCondition(manifest, name string) {
	e.Helper()
	e.await(manifest, "condition "+name, func(o *unstructured.Unstructured) bool {
		return slices.ContainsFunc(conditionsOf(o), func(c status.BasicCondition) bool { return c.Type == name && c.Status == "True" })
	})
}

func (e *env) setStatus(o *unstructured.Unstructured, patch string) {
	e.Helper()
	if _, err := e.resource(o).Patch(e.Context(), o.GetName(), types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
		e.Fatal(err)
	}
}
