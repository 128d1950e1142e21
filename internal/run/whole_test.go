//go:build unix

package run_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
	"github.com/sluicerun/sluice/internal/run"
	"github.com/sluicerun/sluice/internal/source"
	"github.com/sluicerun/sluice/internal/substitute"
)

// Tests of whole runs, by way of a proxy: what they do when something fails that
// does not fail on a good day.

// world is a repository and a namespace in the cluster, which is that of the
// records, too.
type world struct {
	*testing.T
	*proxy.Proxy
	namespace  string
	repo       *gittest.Repo
	dir        string
	kubeconfig string
	client     *kubernetes.Clientset
}

// newWorld makes one whose first commit has these files in its folder apps, and
// a Kustomization of that name for them; NAMESPACE stands for the namespace.
func newWorld(t *testing.T, files map[string]string) *world {
	t.Helper()
	return newWorldIn(t, kubetest.Shared(t), files)
}

// newWorldIn makes one in a cluster of the caller.
func newWorldIn(t *testing.T, c *kubetest.Cluster, files map[string]string) *world {
	t.Helper()
	w := &world{T: t, Proxy: proxy.New(t, c), namespace: kubetest.Namespace(t, c), dir: t.TempDir()}
	var err error
	if w.repo, err = gittest.Create(w.dir); err != nil {
		t.Fatal(err)
	}
	w.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := w.WriteKubeconfig(w.kubeconfig); err != nil {
		t.Fatal(err)
	}
	if w.client, err = kubernetes.NewForConfig(c.Config()); err != nil {
		t.Fatal(err)
	}
	w.commit(files, gittest.File("entry/apps.yaml", w.kustomization("apps", "apps", "")))
	return w
}

func (w *world) kustomization(name, path, more string) string {
	return w.in(fmt.Sprintf("apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: %s, namespace: NAMESPACE}\n"+
		"spec: {interval: 5m, retryInterval: 1ms, prune: true, path: %s, sourceRef: {kind: GitRepository, name: gitops}%s}\n", name, path, more))
}

func (w *world) in(text string) string { return strings.ReplaceAll(text, "NAMESPACE", w.namespace) }

// commit commits files of the folder apps, and other changes. An empty file goes.
func (w *world) commit(files map[string]string, changes ...gittest.Change) {
	w.Helper()
	for name, text := range files {
		if text == "" {
			changes = append(changes, gittest.Remove("apps/"+name))
			continue
		}
		changes = append(changes, gittest.File("apps/"+name, w.in(text)))
	}
	if _, err := w.repo.Commit("a commit", changes...); err != nil {
		w.Fatal(err)
	}
}

// ended is how a run ended.
type ended struct {
	run.Outcome
	events []event.Event
}

// failures are all that were told.
func (e ended) failures() []event.Failure {
	var all []event.Failure
	for _, ev := range e.events {
		switch ev := ev.(type) {
		case event.NodeFinished:
			all = append(all, ev.Failures...)
		case event.PruneFinished:
			all = append(all, ev.Failures...)
		case event.RunFinished:
			all = append(all, ev.Failures...)
		}
	}
	return all
}

func (e ended) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%d)", e.Verdict, e.ExitCode)
	for _, f := range e.failures() {
		fmt.Fprintf(&b, "\n%s %s: %s", f.Phase, f.Reason, f.Text)
	}
	return b.String()
}

// planned are the changes of the plan, each as "action object".
func (e ended) planned() []string {
	var all []string
	for _, ev := range e.events {
		if p, ok := ev.(event.Planned); ok {
			for _, c := range p.Changes {
				all = append(all, string(c.Action)+" "+c.Object)
			}
		}
	}
	return all
}

func (e ended) notices() []string {
	var all []string
	for _, ev := range e.events {
		if n, ok := ev.(event.Notice); ok {
			all = append(all, n.Code)
		}
	}
	return all
}

// do runs a command against the cluster behind the proxy; meanwhile, if not nil, is
// called with every event before it counts.
func (w *world) do(command run.Command, meanwhile func(event.Event), more ...func(*run.Options)) ended {
	w.Helper()
	var mu sync.Mutex
	var e ended
	options := run.Options{
		Command: command, Version: "test", Identity: w.Name(), Source: source.Options{Repo: w.dir}, Path: "entry",
		Sources: map[string]string{"GitRepository/" + w.namespace + "/gitops": w.dir},
		Cluster: cluster.Options{Kubeconfig: w.kubeconfig}, StateNamespace: w.namespace, Strict: true, Precedence: substitute.InlineFirst,
		Concurrency: 8, Wait: health.Auto, Timeout: 2 * time.Minute, MaxPrune: 100,
	}
	for _, change := range more {
		change(&options)
	}
	e.Outcome = run.Run(w.Context(), options, run.Sinks{
		Events: sink(func(ev event.Event) {
			if meanwhile != nil {
				meanwhile(ev)
			}
			mu.Lock()
			defer mu.Unlock()
			e.events = append(e.events, ev)
		}),
		Learn: func(...string) {}, Public: func(...string) {},
	})
	return e
}

type sink func(event.Event)

func (s sink) Emit(e event.Event) { s(e) }

// configMaps are the names of the ConfigMaps in the namespace that are neither
// the cluster's nor records, and records are those.
func (w *world) configMaps() (names, records []string) {
	w.Helper()
	list, err := w.client.CoreV1().ConfigMaps(w.namespace).List(w.Context(), metav1.ListOptions{})
	if err != nil {
		w.Fatal(err)
	}
	for _, c := range list.Items {
		switch {
		case c.Name == "kube-root-ca.crt":
		case isRecord(c):
			records = append(records, c.Name)
		default:
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names, records
}

func isRecord(c corev1.ConfigMap) bool { return strings.HasPrefix(c.Name, "sluice") }

// leases are those that somebody holds.
func (w *world) leases() []coordinationv1.Lease { return w.leasesIn(w.namespace) }

func (w *world) leasesIn(namespace string) []coordinationv1.Lease {
	w.Helper()
	list, err := w.client.CoordinationV1().Leases(namespace).List(w.Context(), metav1.ListOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(l coordinationv1.Lease) bool { return l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == "" })
}

const (
	configMapA = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: NAMESPACE}\ndata: {x: \"1\"}\n"
	configMapB = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: NAMESPACE}\ndata: {x: \"1\"}\n"
	deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: NAMESPACE}\nspec:\n  selector: {matchLabels: {app: d}}\n" +
		"  template: {metadata: {labels: {app: d}}, spec: {containers: [{name: c, image: \"example.com/c:v1\"}]}}\n"
)
