//go:build unix

package run_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
	"github.com/sluicerun/sluice/internal/run"
)

// Tests of what the plan of a run does when the server does not answer it as on a
// good day.

// newGadgets makes a world that is live, with objects that only the server's
// OpenAPI, or a dry run, shows to be as they should be: their lists get defaults.
func newGadgets(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, map[string]string{"a.yaml": configMapA, "b.yaml": configMapB, "d.yaml": deployment, "kind.yaml": gadgets, "gadgets.yaml": gadgetsSized(1)})
	t.Cleanup(func() {
		api, err := client.New(kubetest.Shared(t).Config(), client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		crd := &unstructured.Unstructured{}
		crd.SetAPIVersion("apiextensions.k8s.io/v1")
		crd.SetKind("CustomResourceDefinition")
		crd.SetName(w.in("gadgets.NAMESPACE.example.com"))
		if err := api.Delete(context.Background(), crd); err != nil {
			t.Error(err)
		}
	})
	w.live()
	// The server publishes the types of a definition some time after it serves it.
	for {
		w.Take()
		e := w.do(run.CommandPlan, nil)
		if e.Verdict != event.VerdictPlanned || len(e.planned()) > 0 {
			t.Fatalf("%s: %q", e, e.planned())
		}
		if dryRuns(w.Requests()) == 0 {
			return w
		}
	}
}

// change commits another size of the third gadget and another ConfigMap a, and
// returns what is to be planned for that.
func (w *world) change(n int) []string {
	w.Helper()
	w.commit(map[string]string{"gadgets.yaml": gadgetsSized(n), "a.yaml": strings.ReplaceAll(configMapA, `"1"`, fmt.Sprintf("%q", fmt.Sprint(n)))})
	return []string{w.in("configure ConfigMap/NAMESPACE/a"), w.in("configure Gadget/NAMESPACE/g3")}
}

func dryRuns(requests []proxy.Request) int { return proxy.Count(requests)["dry-run"] }

func toOpenAPI(r proxy.Request) bool { return strings.HasPrefix(r.Path, "/openapi/") }

// The server's OpenAPI only saves dry runs: without it, or with one that makes no
// sense, a plan and a run find and do the same.
func TestPlanWithOddOpenAPI(t *testing.T) {
	w := newGadgets(t)
	documents := func(r proxy.Request) bool { return strings.HasPrefix(r.Path, "/openapi/v3/") }
	replace := func(old, new string) proxy.Action {
		return proxy.Rewrite(func(body []byte) []byte { return bytes.ReplaceAll(body, []byte(old), []byte(new)) })
	}
	n := 1
	for _, test := range []struct {
		name  string
		match func(proxy.Request) bool
		do    proxy.Action
		// proves is set if the answers are good for proofs all the same.
		proves bool
	}{
		{"not there", toOpenAPI, proxy.Answer(http.StatusNotFound, 0), false},
		{"forbidden", toOpenAPI, proxy.Answer(http.StatusForbidden, 0), false},
		{"not acceptable", toOpenAPI, proxy.Answer(http.StatusNotAcceptable, 0), false},
		{"an error", toOpenAPI, proxy.Answer(http.StatusInternalServerError, 0), false},
		{"a page of somebody else", toOpenAPI, proxy.Reply(http.StatusOK, "text/html", []byte("<html>log in first</html>")), false},
		{"nothing", toOpenAPI, proxy.Reply(http.StatusOK, "application/json", nil), false},
		{"null", toOpenAPI, proxy.Reply(http.StatusOK, "application/json", []byte("null")), false},
		{"an index of nothing", toOpenAPI, proxy.Reply(http.StatusOK, "application/json", []byte(`{"paths":{}}`)), false},
		{"addresses of nothing", toOpenAPI, proxy.Reply(http.StatusOK, "application/json", []byte(w.in(`{"paths":{"apis/NAMESPACE.example.com/v1":{}}}`))), false},
		{"cut short", toOpenAPI, proxy.Truncate(30), false},
		{"documents that are not there", documents, proxy.Answer(http.StatusNotFound, 0), false},
		{"documents cut short", documents, proxy.Truncate(300), false},
		{"documents of nothing", documents, proxy.Reply(http.StatusOK, "application/json", []byte(`{"components":{"schemas":{}}}`)), false},
		{"documents without kinds", documents, replace("x-kubernetes-group-version-kind", "x-unheard-of"), false},
		{"documents of other types", documents, replace(`"type":"array"`, `"type":"string"`), false},
		{"documents with references to nothing", documents, replace("#/components/schemas/", "#/components/schemas/no."), false},
		{"documents without defaults", documents, replace(`"default":1`, `"description":"one"`), false},
		{"good ones", toOpenAPI, proxy.Warn("a warning"), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			fault := w.Fail(proxy.Fault{Match: test.match, Do: test.do})
			defer fault.Lift()
			w.Take()
			e := w.do(run.CommandPlan, nil)
			if e.Verdict != event.VerdictPlanned || len(e.planned()) > 0 {
				t.Errorf("nothing has changed: %s: %q", e, e.planned())
			}
			requests := w.Take()
			readOnly(t, requests)
			if n := dryRuns(requests); (n == 0) != test.proves {
				t.Errorf("%d dry runs", n)
			}
			if fault.Hits() == 0 {
				t.Error("the OpenAPI was not asked for")
			}
			n++
			want := w.change(n)
			if e := w.do(run.CommandPlan, nil); e.Verdict != event.VerdictPlanned || !slices.Equal(e.planned(), want) {
				t.Errorf("%s: planned %q, want %q", e, e.planned(), want)
			}
			readOnly(t, w.Take())
			if e := w.do(run.CommandRun, nil); e.Verdict != event.Live || !slices.Equal(e.planned(), want) {
				t.Errorf("%s: planned %q, want %q", e, e.planned(), want)
			}
			fault.Lift()
			if e := w.do(run.CommandPlan, nil); e.Verdict != event.VerdictPlanned || len(e.planned()) > 0 {
				t.Errorf("after the run: %s: %q", e, e.planned())
			}
		})
	}
}

// What happens once to one request, whichever it is, a plan gets over; what is
// refused from some request on ends it before anything was written, with a verdict
// and a reason. What it tells is never something else than on a good day.
func TestPlanFaultAtEachRequest(t *testing.T) {
	w := newGadgets(t)
	want := w.change(2)
	for _, test := range []struct {
		name string
		do   proxy.Action
		// times is 2 where Go's client repeats a GET by itself, and 0 for what stays.
		times int
	}{
		{"a connection that is cut", proxy.Cut(), 2},
		{"an error of the server", proxy.Answer(http.StatusInternalServerError, 0), 1},
		{"an answer cut short", proxy.Truncate(20), 1},
		{"rights that are gone", proxy.Answer(http.StatusForbidden, 0), 0},
		{"credentials that have expired", proxy.Answer(http.StatusUnauthorized, 0), 0},
		{"a page of somebody else", proxy.Reply(http.StatusOK, "text/html", []byte("<html>log in first</html>")), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			for n := 1; ; n++ {
				w.Take()
				fault := w.Fail(proxy.Fault{Skip: n - 1, Times: test.times, Do: test.do})
				e := w.do(run.CommandPlan, nil)
				fault.Lift()
				readOnly(t, w.Take())
				if last, ok := e.events[len(e.events)-1].(event.RunFinished); !ok || last.Verdict != e.Verdict {
					t.Errorf("request %d: the plan has no end", n)
				}
				switch {
				case e.Verdict == event.VerdictPlanned:
					if e.ExitCode != 0 || !slices.Equal(e.planned(), want) {
						t.Errorf("request %d: %s: planned %q, want %q", n, e, e.planned(), want)
					}
				case e.Verdict == event.VerdictInvalid && test.times == 0:
					failures := e.failures()
					if e.ExitCode != 3 || len(failures) == 0 || len(e.planned()) > 0 {
						t.Errorf("request %d: %s: planned %q", n, e, e.planned())
					}
					for _, f := range failures {
						if f.Reason == "" || f.Reason == "InternalError" || f.Text == "" {
							t.Errorf("request %d: %+v", n, f)
						}
					}
				default:
					t.Errorf("request %d: %s", n, e)
				}
				if fault.Hits() == 0 {
					if n <= 10 {
						t.Errorf("only %d requests", n-1)
					}
					return
				}
			}
		})
	}
}

// What the server asks for with 429 is done: nothing is sent before the time that it
// names, and then the run goes on as if nothing had been.
func TestBusyServer(t *testing.T) {
	w := newGadgets(t)
	want := w.change(2)
	const pause = time.Second
	var mu sync.Mutex
	var refused time.Time
	early := 0
	// These the plan sends one after the other; others may be under way already.
	after := func(r proxy.Request) bool {
		return slices.Contains([]string{"customresourcedefinitions", "gadgets", "deployments"}, r.Resource)
	}
	w.Fail(proxy.Fault{Match: after, Do: proxy.Call(func(proxy.Request) {
		mu.Lock()
		defer mu.Unlock()
		if !refused.IsZero() && time.Since(refused) < pause {
			early++
		}
	})})
	// Definitions are read before all other objects.
	busy := w.Fail(proxy.Fault{Match: proxy.To("get", "customresourcedefinitions"), Times: 2, Do: proxy.Call(func(proxy.Request) {
		mu.Lock()
		defer mu.Unlock()
		refused = time.Now()
	})})
	told := w.Fail(proxy.Fault{Match: proxy.To("get", "customresourcedefinitions"), Times: 2, Do: proxy.Answer(http.StatusTooManyRequests, int(pause/time.Second))})
	e := w.do(run.CommandRun, nil)
	if e.Verdict != event.Live || !slices.Equal(e.planned(), want) {
		t.Errorf("%s: planned %q, want %q", e, e.planned(), want)
	}
	if busy.Hits() != 2 || told.Hits() != 2 {
		t.Errorf("refused %d times", told.Hits())
	}
	if early > 0 {
		t.Errorf("%d requests came too early", early)
	}
	if got := e.notices(); !slices.Contains(got, "server-busy") {
		t.Errorf("told %q", got)
	}
}

const gadgets = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: gadgets.NAMESPACE.example.com}\n" +
	"spec:\n  group: NAMESPACE.example.com\n  names: {kind: Gadget, plural: gadgets}\n  scope: Namespaced\n  versions:\n" +
	"    - name: v1\n      served: true\n      storage: true\n      schema:\n        openAPIV3Schema:\n          type: object\n          properties:\n" +
	"            spec:\n              type: object\n              properties:\n                parts:\n                  type: array\n" +
	"                  items: {type: object, properties: {name: {type: string}, weight: {type: integer, default: 1}, size: {type: integer}}}\n"

// gadgetsSized are three gadgets, the third of which has a part of this size.
func gadgetsSized(size int) string {
	text := ""
	for i, sized := range []int{1, 1, size} {
		text += fmt.Sprintf("---\napiVersion: NAMESPACE.example.com/v1\nkind: Gadget\nmetadata: {name: g%d, namespace: NAMESPACE}\n"+
			"spec: {parts: [{name: a, size: %d}, {name: b}]}\n", i+1, sized)
	}
	return text
}
