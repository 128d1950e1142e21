//go:build unix

package health

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// shelf is a cluster that serves a kind of the test's own, which nothing but the test ever changes.
type shelf struct {
	*env
	group string
	owner flux.ID
}

func newShelf(t *testing.T) *shelf {
	e := newEnv(t)
	s := &shelf{env: e, group: e.namespace + ".example.com", owner: flux.ID{Namespace: "flux-system", Name: e.namespace}}
	definition := fmt.Sprintf(gradebookCRD, s.group)
	t.Cleanup(func() { e.delete(definition) })
	e.apply(definition)
	// Only when a book is known to be missing is the kind known.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ref := flux.Ref{Group: s.group, Version: "v1", Kind: "GradeBook", Namespace: e.namespace, Name: "none"}
	statuses, err := wait(ctx, e.clients, []Target{{Ref: ref}}, Options{Timeout: long, Report: func(s Status) {
		if s.Status == NotFound {
			cancel()
		}
	}})
	if ctx.Err() == nil {
		t.Fatalf("%v, %v", statuses, err)
	}
	return s
}

func (s *shelf) manifest(name string) string {
	return fmt.Sprintf("apiVersion: %s/v1\nkind: GradeBook\nmetadata: {name: %s, labels: {kustomize.toolkit.fluxcd.io/name: %s, kustomize.toolkit.fluxcd.io/namespace: %s}}\n",
		s.group, name, s.owner.Name, s.owner.Namespace)
}

// put makes sure that there is a book with the given condition, and returns the target for what was written.
func (s *shelf) put(name, ready string) Target {
	s.Helper()
	target := s.apply(s.manifest(name))[0]
	o := parse(s, s.manifest(name))
	s.setStatus(o, fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":%q,"reason":"Test","message":""}]}}`, ready))
	live, err := s.resource(o).Get(s.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	target.Owner, target.Version = s.owner, live.GetResourceVersion()
	return target
}

// waiting is a wait that goes on.
type waiting struct {
	*journal
	done chan error
}

func (s *shelf) await(h *Hub, targets ...Target) *waiting {
	w := &waiting{newJournal(), make(chan error, 1)}
	go func() {
		_, err := h.Wait(s.Context(), targets, Options{Timeout: long, FailFast: true, Report: w.report})
		w.done <- err
	}()
	return w
}

// hold is a fault that keeps the events of watches back until it is let go.
type hold struct {
	mu   sync.Mutex
	held chan struct{}
}

func newHold() *hold {
	open := make(chan struct{})
	close(open)
	return &hold{held: open}
}

func (h *hold) on() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = make(chan struct{})
}

func (h *hold) off() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.held)
}

func (h *hold) line(ctx context.Context) {
	h.mu.Lock()
	held := h.held
	h.mu.Unlock()
	select {
	case <-held:
	case <-ctx.Done():
	}
}

func count(p *proxy.Proxy, verb, resource string) int {
	n := 0
	for _, r := range p.Requests() {
		if proxy.To(verb, resource)(r) {
			n++
		}
	}
	return n
}

// However late the events of a watch are, no gate opens on what was before the write.
func TestLateEventsOpenNoGate(t *testing.T) {
	s := newShelf(t)
	p := proxy.New(t, kubetest.Shared(t))
	held := newHold()
	p.Fail(proxy.Fault{Match: proxy.To("watch", "gradebooks"), Do: proxy.Lines(func(_ proxy.Request, line []byte) [][]byte {
		held.line(t.Context())
		return [][]byte{line}
	})})
	h := newHub(s.through(p))
	defer func() { held.off(); h.Close(); noneLeft(t) }()
	if _, err := h.Wait(t.Context(), []Target{s.put("algebra", "True")}, Options{Timeout: long}); err != nil {
		t.Fatal(err)
	}

	held.on()
	w := s.await(h, s.put("algebra", "False"))
	// After two seconds the set is listed again; the watch alone would still say nothing.
	w.journal.await(t, "algebra status: 'InProgress'")
	if w.has("Current") {
		t.Errorf("a gate opened on what was before the write:\n%s", w)
	}
	held.off()
	s.put("algebra", "True")
	if err := <-w.done; err != nil {
		t.Errorf("%v\n%s", err, w)
	}
	held.on()
}

// An event that never comes is noticed by the next one, and the set is listed again at once.
func TestLostEventIsNoticed(t *testing.T) {
	s := newShelf(t)
	p := proxy.New(t, kubetest.Shared(t))
	lost := make(chan struct{}, 100)
	p.Fail(proxy.Fault{Match: proxy.To("watch", "gradebooks"), Do: proxy.Lines(func(_ proxy.Request, line []byte) [][]byte {
		if bytes.Contains(line, []byte(`"name":"algebra"`)) {
			lost <- struct{}{}
			return nil
		}
		return [][]byte{line}
	})})
	h := newHub(s.through(p))
	defer h.Close()
	s.put("algebra", "False")
	biology := s.put("biology", "False")
	w := s.await(h, biology)
	w.journal.await(t, "biology status: 'InProgress'")
	lists := count(p, "list", "gradebooks")
	algebra := s.put("algebra", "True")
	<-lost
	s.put("biology", "True")
	if err := <-w.done; err != nil {
		t.Fatal(err)
	}
	if _, err := h.Wait(t.Context(), []Target{algebra}, Options{Timeout: long}); err != nil {
		t.Error(err)
	}
	if got := count(p, "list", "gradebooks"); got != lists+1 {
		t.Errorf("%d lists, want %d", got, lists+1)
	}
}

// Events that come twice, old ones after new ones, take nothing back.
func TestRepeatedEventsTakeNothingBack(t *testing.T) {
	s := newShelf(t)
	p := proxy.New(t, kubetest.Shared(t))
	var mu sync.Mutex
	var all [][]byte
	p.Fail(proxy.Fault{Match: proxy.To("watch", "gradebooks"), Do: proxy.Lines(func(_ proxy.Request, line []byte) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, slices.Clone(line))
		return slices.Concat([][]byte{line}, all)
	})})
	h := newHub(s.through(p))
	defer h.Close()
	w := s.await(h, s.put("algebra", "False"), s.put("biology", "False"))
	w.journal.await(t, "biology status: 'InProgress'")
	s.put("algebra", "True")
	w.journal.await(t, "algebra status: 'Current'")
	s.put("algebra", "False")
	w.journal.await(t, "algebra status: 'InProgress'")
	s.put("biology", "True")
	w.journal.await(t, "biology status: 'Current'")
	s.put("algebra", "True")
	if err := <-w.done; err != nil {
		t.Error(err)
	}
	want := []string{"InProgress", "InProgress", "Current", "InProgress", "Current", "Current"}
	var got []string
	for _, line := range w.lines {
		_, status, _ := strings.Cut(line, "status: '")
		status, _, _ = strings.Cut(status, "'")
		got = append(got, status)
	}
	if !slices.Equal(got, want) {
		t.Errorf("reports %q, want %q\n%s", got, want, w)
	}
}

// An object that is replaced is judged anew, and one that loses its labels, or never had them, is found by its name.
func TestReplacedAndUnlabelledObjects(t *testing.T) {
	s := newShelf(t)
	h := newHub(s.clients)
	defer func() { h.Close(); noneLeft(t) }()
	first := s.put("algebra", "False")
	w := s.await(h, first, s.put("biology", "False")) // which keeps the wait from ending
	w.journal.await(t, "algebra status: 'InProgress'")
	s.delete(s.manifest("algebra"))
	w.journal.await(t, "algebra status: 'NotFound'")
	second := s.put("algebra", "False")
	w.journal.await(t, "algebra status: 'InProgress'")
	s.put("algebra", "True")
	w.journal.await(t, "algebra status: 'Current'")
	s.put("biology", "True")
	if err := <-w.done; err != nil {
		t.Errorf("%v\n%s", err, w)
	}

	bare := s.apply(fmt.Sprintf("apiVersion: %s/v1\nkind: GradeBook\nmetadata: {name: bare}\n", s.group))[0]
	bare.Owner, bare.Version = first.Owner, second.Version
	if statuses, err := h.Wait(t.Context(), []Target{bare}, Options{Timeout: long}); err != nil {
		t.Errorf("%v, %v", statuses, err)
	}
}

// All waits for a kind share one list and one watch, in however many namespaces; an account that may not look at the cluster
// shares one for each namespace.
func TestWaitsShareOneWatch(t *testing.T) {
	s := newShelf(t)
	var targets []Target
	for i := range 6 {
		namespace := fmt.Sprintf("%s-%d", s.namespace, i%3)
		if i < 3 {
			manifest := "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + namespace + "}\n"
			s.apply(manifest, "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: viewer, namespace: "+namespace+"}\n"+
				"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}\nsubjects: [{kind: User, name: viewer}]\n")
			t.Cleanup(func() { s.delete(manifest) })
		}
		target := s.apply(fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: s%d, namespace: %s, labels: {kustomize.toolkit.fluxcd.io/name: %s}}\nspec: {ports: [{port: 80}]}\n",
			i, namespace, s.owner.Name))[0]
		o := parse(t, "apiVersion: v1\nkind: Service\nmetadata: {name: "+target.Ref.Name+", namespace: "+namespace+"}\n")
		live, err := s.resource(o).Get(t.Context(), target.Ref.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		target.Owner, target.Version = s.owner, live.GetResourceVersion()
		targets = append(targets, target)
	}
	for user, want := range map[string]string{
		"":       "list /api/v1/services, watch /api/v1/services",
		"viewer": "list /api/v1/services, list NS-0, list NS-1, list NS-2, watch NS-0, watch NS-1, watch NS-2",
	} {
		p := proxy.New(t, kubetest.Shared(t))
		config := rest.CopyConfig(p.Config())
		config.Impersonate.UserName = user
		h := newHub(s.clientsFor(config))
		h.Expect(targets)
		h.Watch(targets[:1])
		for range 2 {
			var waits sync.WaitGroup
			for _, target := range targets {
				waits.Go(func() {
					if _, err := h.Wait(t.Context(), []Target{target}, Options{Timeout: long}); err != nil {
						t.Error(err)
					}
				})
			}
			waits.Wait()
		}
		h.Close()
		var got []string
		for _, r := range p.Requests() {
			if r.Resource == "services" {
				path := r.Path
				if r.Namespace != "" {
					path = strings.Replace(r.Namespace, s.namespace, "NS", 1)
				}
				got = append(got, r.Verb+" "+path)
			}
		}
		slices.Sort(got)
		// Any watch may not have been asked for yet when all was over.
		expected := slices.DeleteFunc(strings.Split(want, ", "), func(request string) bool {
			return strings.HasPrefix(request, "watch ") && !slices.Contains(got, request)
		})
		if !slices.Equal(got, expected) {
			t.Errorf("user %q: requests %q, want %s", user, got, want)
		}
		noneLeft(t)
	}
}

// A hub shows an expression the whole object, and shares nothing of it with waits that need less.
func TestExpressionsSeeWholeObjects(t *testing.T) {
	s := newShelf(t)
	target := s.put("algebra", "True")
	k := &flux.Kustomization{}
	if err := json.Unmarshal([]byte(fmt.Sprintf(`[{"apiVersion":"%s/v1","kind":"GradeBook","current":"metadata.labels['kustomize.toolkit.fluxcd.io/name'] != '' && has(metadata.managedFields)"}]`, s.group)), &k.Spec.HealthCheckExprs); err != nil {
		t.Fatal(err)
	}
	expressions, err := ParseExpressions(k)
	if err != nil {
		t.Fatal(err)
	}
	h := newHub(s.clients)
	defer h.Close()
	for _, targets := range [][]Target{{target}, expressions.Attach([]Target{target}), {target}} {
		if _, err := h.Wait(t.Context(), targets, Options{Timeout: long}); err != nil {
			t.Error(err)
		}
	}
}

// Many workloads in trouble open few watches of pods.
func TestWatchesOfPodsAreBounded(t *testing.T) {
	e := newEnv(t)
	p := proxy.New(t, kubetest.Shared(t))
	var targets []Target
	for i := range 7 {
		targets = append(targets, e.apply(deploymentOf(fmt.Sprintf("web-%d", i), "ghcr.io/your-org/web:does-not-exist", 1, ""))...)
	}
	h := newHub(e.through(p))
	j := newJournal()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := h.Wait(ctx, targets, Options{Timeout: long, Report: j.report})
		done <- err
	}()
	told := map[string]bool{}
	for len(told) < len(targets) {
		select {
		case line := <-j.seen:
			if name, _, _ := strings.Cut(line, " "); strings.Contains(line, "ImagePull") {
				told[name] = true
			}
		case err := <-done:
			t.Fatalf("%v\n%s", err, j)
		}
	}
	cancel()
	<-done
	if n := count(p, "list", "pods"); n > maxPodSelectors+1 {
		t.Errorf("%d lists of pods for %d Deployments, want at most %d", n, len(targets), maxPodSelectors+1)
	}
	h.Close()
	noneLeft(t)
}
