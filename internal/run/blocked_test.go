//go:build unix

package run_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/run"
)

// Tests of runs that something in the cluster holds up: a webhook that does not answer, a namespace that does not go.

// guard registers an admission webhook for the ConfigMaps of the world that have the label guarded.
func (w *world) guard(where admissionregistrationv1.WebhookClientConfig) string {
	w.Helper()
	name := w.namespace + ".example.com"
	fail, none, seconds := admissionregistrationv1.Fail, admissionregistrationv1.SideEffectClassNone, int32(1)
	configurations := w.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := configurations.Create(w.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: name, ClientConfig: where, FailurePolicy: &fail, SideEffects: &none, TimeoutSeconds: &seconds, AdmissionReviewVersions: []string{"v1"},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: w.namespace}},
			ObjectSelector:    &metav1.LabelSelector{MatchLabels: map[string]string{"guarded": "true"}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		// The test's own context has ended by now, and it may have done so itself.
		if err := configurations.Delete(context.Background(), w.namespace, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			w.Error(err)
		}
	})
	return name
}

func guarded(name string) string {
	return strings.NewReplacer("name: a,", "name: "+name+",", "namespace: NAMESPACE}", `namespace: NAMESPACE, labels: {guarded: "true"}}`).Replace(configMapA)
}

// answers is a webhook that says yes to everything once it is up, and does not answer until then.
func (w *world) answers() (where admissionregistrationv1.WebhookClientConfig, up *atomic.Bool) {
	w.Helper()
	up = &atomic.Bool{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !up.Load() {
			panic(http.ErrAbortHandler)
		}
		var review admissionv1.AdmissionReview
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &review)
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(review)
	}))
	w.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return admissionregistrationv1.WebhookClientConfig{URL: &server.URL, CABundle: ca}, up
}

// A webhook whose service has no backend fails what it is to judge, and says how to put it right; it holds up no other
// Kustomization, and however many objects it is to judge, the time that it is given is spent once.
func TestWebhookWithoutBackend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.yaml": configMapA})
	w.live()
	if _, err := w.client.CoreV1().Services(w.namespace).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "judge"},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 443}}, Selector: map[string]string{"no": "body"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	name := w.guard(admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: w.namespace, Name: "judge"}})
	const objects = 120
	var all []string
	for i := range objects {
		all = append(all, guarded("g"+string(rune('a'+i/26))+string(rune('a'+i%26))))
	}
	w.commit(map[string]string{"b.yaml": configMapB},
		gittest.File("guarded/all.yaml", w.in(strings.Join(all, "---\n"))),
		gittest.File("entry/guarded.yaml", w.kustomization("guarded", "guarded", "")))
	w.Take()
	e := w.do(run.CommandRun, nil)
	if e.Verdict != event.VerdictFailed {
		t.Fatal(e)
	}
	if names, _ := w.configMaps(); !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("there is %v: of the one nothing, and all of the other", names)
	}
	failures := e.failures()
	if len(failures) == 0 {
		t.Fatal("it does not say why")
	}
	f := failures[0]
	if f.Reason != "WebhookUnavailable" || f.Object != w.in("ConfigMap/NAMESPACE/gaa") || f.File != "guarded/all.yaml" ||
		!strings.Contains(f.Text, name) || !strings.Contains(f.Text, " more of the Kustomization's objects were not tried") || !strings.Contains(f.Hint, name) {
		t.Errorf("%+v", f)
	}
	// Those that are asked about first are asked about eight times, and only they.
	if n := len(w.Take()); n > 7*objects {
		t.Errorf("%d requests", n)
	}
	if err := w.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(t.Context(), w.namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := w.do(run.CommandRun, nil); e.Verdict != event.Live {
		t.Errorf("once it is gone: %s", e)
	}
}

// A webhook that comes up while the run tries again lets it end well; the report counts what it took.
func TestWebhookThatComesUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.yaml": configMapA})
	w.live()
	where, up := w.answers()
	w.guard(where)
	w.commit(map[string]string{"g.yaml": guarded("g"), "b.yaml": configMapB})
	e := w.do(run.CommandRun, func(e event.Event) {
		if is[event.NodeRetrying](e) {
			up.Store(true)
		}
	}, func(o *run.Options) { o.Retries = 2 })
	if e.Verdict != event.Live {
		t.Fatal(e)
	}
	if names, _ := w.configMaps(); !slices.Equal(names, []string{"a", "b", "g"}) {
		t.Errorf("there is %v", names)
	}
	s := report.Summarize(e.events...)
	if s.Retries == nil || s.Retries.Kustomizations < 1 || s.Retries.Requests < 7 {
		t.Errorf("counted %v", s.Retries)
	}
}

// Another attempt goes on where the last one stopped: what is as it should be by then is not asked for again, be it that the plan
// had found it so or that it was applied.
func TestAnotherAttemptGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.yaml": configMapA, "b.yaml": configMapB, "c.yaml": strings.Replace(configMapA, "name: a,", "name: c,", 1)})
	w.live()
	w.commit(map[string]string{"b.yaml": strings.Replace(configMapB, `"1"`, `"2"`, 1),
		"c.yaml": strings.NewReplacer("name: a,", "name: c,", `"1"`, `"2"`).Replace(configMapA)})
	fault := w.Fail(proxy.Fault{Match: func(r proxy.Request) bool { return r.Verb == "apply" && r.Name == "c" }, Times: 1, Do: proxy.Answer(http.StatusForbidden, 0)})
	e := w.do(run.CommandRun, func(e event.Event) {
		if is[event.NodeRetrying](e) {
			w.Take()
		}
	}, func(o *run.Options) { o.Retries = 1 })
	if e.Verdict != event.Live || fault.Hits() != 1 {
		t.Fatalf("%s, refused %d times", e, fault.Hits())
	}
	asked := map[string]int{}
	for _, r := range w.Take() {
		if r.Resource == "configmaps" && len(r.Name) == 1 {
			asked[r.Name]++
		}
	}
	if asked["a"] != 0 || asked["b"] != 0 || asked["c"] == 0 {
		t.Errorf("the second attempt asked for %v", asked)
	}
	if s := report.Summarize(e.events...); s.Retries == nil || *s.Retries != (report.Retries{Kustomizations: 1}) || s.Counts.Configured != 2 {
		t.Errorf("counted %v, and of objects %+v", s.Retries, s.Counts)
	}
}

// An attempt that failed because something is not there asks about every object again: one of its own that was there, and that
// somebody has deleted since the plan, may be what is missing.
func TestAnotherAttemptMakesAnewWhatWent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.yaml": configMapA, "b.yaml": configMapB})
	w.live()
	w.commit(map[string]string{"b.yaml": strings.Replace(configMapB, `"1"`, `"2"`, 1)})
	fault := w.Fail(proxy.Fault{Match: func(r proxy.Request) bool { return r.Verb == "apply" && r.Name == "b" }, Times: 1, Do: proxy.Answer(http.StatusNotFound, 0)})
	e := w.do(run.CommandRun, func(e event.Event) {
		if is[event.NodeRetrying](e) {
			if err := w.client.CoreV1().ConfigMaps(w.namespace).Delete(w.Context(), "a", metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		}
	}, func(o *run.Options) { o.Retries = 1 })
	if e.Verdict != event.Live || fault.Hits() != 1 {
		t.Fatalf("%s, refused %d times", e, fault.Hits())
	}
	if _, err := w.client.CoreV1().ConfigMaps(w.namespace).Get(w.Context(), "a", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

// dying makes a namespace that is being deleted and cannot go: nobody serves a finalizer of what is in it. release lets it go.
func (w *world) dying() (name string, release func()) {
	w.Helper()
	name = w.namespace + "-dying"
	if _, err := w.client.CoreV1().Namespaces().Create(w.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		w.Fatal(err)
	}
	maps := w.client.CoreV1().ConfigMaps(name)
	if _, err := maps.Create(w.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"example.com/nobody"}}}, metav1.CreateOptions{}); err != nil {
		w.Fatal(err)
	}
	if err := w.client.CoreV1().Namespaces().Delete(w.Context(), name, metav1.DeleteOptions{}); err != nil {
		w.Fatal(err)
	}
	var once sync.Once
	release = func() {
		once.Do(func() {
			// The test's own context may have ended by now.
			if _, err := maps.Patch(context.Background(), "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
				w.Error(err)
			}
		})
	}
	w.Cleanup(release)
	return name, release
}

// A commit that puts something into a namespace which is being deleted is refused before the first write, with the reason and
// what to look at; a namespace that the commit itself holds is waited for and made anew.
func TestNamespaceThatDoesNotGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.yaml": configMapA})
	w.live()
	name, release := w.dying()
	inside := strings.Replace(configMapB, "NAMESPACE", name, 1)
	w.commit(map[string]string{"b.yaml": inside})
	w.Take()
	e := w.do(run.CommandRun, nil)
	readOnly(t, w.Take())
	failures := e.failures()
	if e.Verdict != event.VerdictInvalid || len(failures) != 1 {
		t.Fatal(e)
	}
	if f := failures[0]; f.Reason != "NamespaceTerminating" || !strings.Contains(f.Text, name) || !strings.Contains(f.Text, "being terminated") || !strings.Contains(f.Hint, "finalizers") {
		t.Errorf("%+v", f)
	}
	// With the Namespace in the commit. It goes while the run is waiting for that.
	w.commit(map[string]string{"n.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + "}\n"})
	began := time.Now()
	waits := w.Fail(proxy.Fault{Match: proxy.To("watch", "namespaces"), Do: proxy.Call(func(proxy.Request) {})})
	go func() {
		if err := waits.Await(t.Context(), 1); err == nil {
			release()
		}
	}()
	e = w.do(run.CommandRun, nil)
	if e.Verdict != event.Live {
		t.Fatalf("%s after %s", e, time.Since(began))
	}
	if _, err := w.client.CoreV1().ConfigMaps(name).Get(t.Context(), "b", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if e := w.do(run.CommandPlan, nil); e.Verdict != event.VerdictPlanned || len(e.planned()) > 0 {
		t.Errorf("there is something left to do: %s: %v", e, e.planned())
	}
	if err := w.client.CoreV1().Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}
