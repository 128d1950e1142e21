package run

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/gate"
	"github.com/sluicerun/sluice/internal/health"
)

// recorder keeps the events of a test.
type recorder struct{ events []event.Event }

func (r *recorder) Emit(e event.Event) { r.events = append(r.events, e) }

// newTestRun makes a run of nodes from lines "name words…", each in namespace
// ns. The words are: needs:NAME for dependsOn, in:NAME for the parent, wait,
// checks:NAME for healthChecks of a Kustomization, deferred, excluded,
// suspended, gate:NAME for dependsOn with a readyExpr that is always true.
func newTestRun(t *testing.T, wait health.Mode, lines string) (*run, *recorder) {
	t.Helper()
	events := &recorder{}
	r := newRun(Options{Wait: wait}, Sinks{Events: events, Learn: func(...string) {}, Public: func(...string) {}})
	r.outside = t.Context()
	for line := range strings.Lines(lines) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		n := &node{Kustomization: &flux.Kustomization{ID: id(words[0]), File: words[0] + ".yaml", Line: 1}, built: true}
		for _, word := range words[1:] {
			what, name, _ := strings.Cut(word, ":")
			switch what {
			case "needs":
				n.Spec.DependsOn = append(n.Spec.DependsOn, kustomizev1.DependencyReference{Name: name})
			case "gate":
				n.Spec.DependsOn = append(n.Spec.DependsOn, kustomizev1.DependencyReference{Name: name, ReadyExpr: "true"})
			case "in":
				n.Parent = id(name)
				parent := r.nodes.get(n.Parent)
				parent.children = append(parent.children, n.ID)
			case "wait":
				n.Spec.Wait = true
			case "checks":
				n.Spec.HealthChecks = append(n.Spec.HealthChecks, meta.NamespacedObjectKindReference{
					APIVersion: flux.Group + "/v1", Kind: flux.KustomizationKind, Namespace: "ns", Name: name})
			case "deferred":
				n.deferred, n.built = "waits", false
			case "excluded":
				n.excluded = true
			case "suspended":
				n.Spec.Suspend, n.built = true, false
			default:
				t.Fatalf("word %q", word)
			}
		}
		var err error
		if n.gates, err = gate.Parse(n.Kustomization); err != nil {
			t.Fatal(err)
		}
		n.live = gate.New(n.Kustomization, nil)
		r.nodes.add(n)
	}
	return r, events
}

func id(name string) flux.ID { return flux.ID{Namespace: "ns", Name: name} }

// Each step's needs, with "+" for applied and "!" for ready.
func TestNeeds(t *testing.T) {
	for _, tc := range []struct {
		name  string
		wait  health.Mode
		lines string
		node  string
		apply string
		ready string
	}{
		{"a dependent waits for ready (S7.4)", health.Spec, "a\nb needs:a", "b", "!a", "+b"},
		{"a child waits for applied", health.Spec, "p\nc in:p", "c", "+p", "+c"},
		{"a parent does not wait for children by itself (S6.1)", health.Auto, "p\nc in:p", "p", "", "+p"},
		{"wait: true waits for children (S6.2)", health.Spec, "p wait\nc in:p", "p", "", "+p !c"},
		{"--wait all likewise", health.All, "p\nc in:p", "p", "", "+p !c"},
		{"--wait none for nothing", health.None, "p wait checks:c\nc in:p", "p", "", "+p"},
		{"healthChecks that name a child", health.Spec, "p checks:c checks:d\nc in:p\nd in:p", "p", "", "+p !c !d"},
		{"and one that is not a child", health.Auto, "p checks:x\nx", "p", "", "+p !x"},
		{"a check of itself is dropped (S6.6)", health.Spec, "p checks:p", "p", "", "+p"},
		{"a check of one that is not in the run is left to the cluster", health.Spec, "p checks:gone", "p", "", "+p"},
		{"a readyExpr is a gate instead (S7.8)", health.Spec, "a\nb\nc gate:a needs:b", "c", "!b gate ns/a ns/c 0", "+c"},
		{"a gate on what is unknown is asked after who may hold it", health.Spec, "d deferred\na gate:later", "a", "+d gate ns/later ns/a 0", "+a"},
		{"what is unknown is waited for with who may hold it", health.Spec, "d deferred\na needs:later", "a", "+d", "+a"},
		{"but not with one that waits in turn", health.Spec, "d deferred needs:a\na needs:later", "a", "", "+a"},
		{"nor with itself", health.Spec, "d deferred needs:later", "d", "", "+d"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := newTestRun(t, tc.wait, tc.lines)
			needs := r.needsOf(r.nodes.get(id(tc.node)))
			if got := signs(needs.toApply); got != tc.apply {
				t.Errorf("to apply: %q, want %q", got, tc.apply)
			}
			if got := signs(needs.toBeReady); got != tc.ready {
				t.Errorf("to be ready: %q, want %q", got, tc.ready)
			}
		})
	}
}

// With Flux's gate AdditiveCELDependencyCheck a dependency must be ready besides
// (S7.8), which makes a cycle of a parent that waits for its child again (S7.16).
func TestS7_8Additive(t *testing.T) {
	r, _ := newTestRun(t, health.Spec, "p wait\nc in:p gate:p")
	r.options.AdditiveCELDependencyCheck = true
	if got, want := signs(r.needsOf(r.nodes.get(id("c"))).toApply), "+p !p gate ns/p ns/c 0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	failures := r.check(t.Context())
	if len(failures) != 1 || failures[0].Reason != "DependencyCycle" {
		t.Errorf("got %+v", failures)
	}
}

func signs(vertices []string) string {
	text := strings.Join(vertices, " ")
	return strings.NewReplacer("applied ns/", "+", "ready ns/", "!").Replace(text)
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name  string
		wait  health.Mode
		lines string
		want  []string // "Reason node: text"
		hint  string
	}{
		{"sound", health.Spec, "a\nb needs:a\nc needs:a needs:b", nil, ""},
		{"a cycle (S7.11)", health.Spec, "a needs:b\nb needs:c\nc needs:a", []string{"DependencyCycle ns/a: cycle: ns/a → ns/b → ns/c → ns/a"}, "remove one of these"},
		{"a cycle of one", health.Spec, "a needs:a", []string{"DependencyCycle ns/a: cycle: ns/a → ns/a"}, ""},
		{"two cycles", health.Spec, "a needs:b\nb needs:a\nc needs:d\nd needs:c",
			[]string{"DependencyCycle ns/a: cycle: ns/a → ns/b → ns/a", "DependencyCycle ns/c: cycle: ns/c → ns/d → ns/c"}, ""},
		{"a parent that waits for a child that depends on it (S7.16)", health.Spec, "p wait\nc in:p needs:p",
			[]string{"DependencyCycle ns/c: cycle: ns/c → ns/p → ns/c"}, "wait: true"},
		{"the same without wait", health.Spec, "p\nc in:p needs:p", nil, ""},
		{"the same by --wait all", health.All, "p\nc in:p needs:p", []string{"DependencyCycle ns/c: cycle: ns/c → ns/p → ns/c"}, ""},
		{"a cycle through a readyExpr", health.Spec, "a gate:b\nb needs:c\nc needs:a", []string{"DependencyCycle ns/a: cycle: ns/a → ns/b → ns/c → ns/a"}, "remove one of these"},
		{"of readyExpr alone", health.Spec, "a gate:b\nb gate:a", []string{"DependencyCycle ns/a: cycle: ns/a → ns/b → ns/a"}, ""},
		{"of one", health.Spec, "a gate:a", []string{"DependencyCycle ns/a: cycle: ns/a → ns/a"}, ""},
		{"a readyExpr may be true of a parent that waits, so that is none", health.Spec, "p wait\nc in:p gate:p", nil, ""},
		{"missing for a readyExpr", health.Spec, "a gate:gone", []string{"DependencyNotFound ns/a: ns/a depends on ns/gone, which does not exist"}, ""},
		{"missing (S7.3)", health.Spec, "a needs:gone", []string{"DependencyNotFound ns/a: ns/a depends on ns/gone, which does not exist"}, "no other"},
		{"missing, but something may hold it", health.Spec, "d deferred\na needs:later", nil, ""},
		{"missing, and only what comes after it could hold it", health.Spec, "d deferred needs:a\na needs:later",
			[]string{"DependencyNotFound ns/a: ns/a depends on ns/later, which does not exist"}, ""},
		{"missing twice and a cycle", health.Spec, "a needs:gone needs:lost\nb needs:c\nc needs:b", []string{
			"DependencyNotFound ns/a: ns/a depends on ns/gone, which does not exist",
			"DependencyNotFound ns/a: ns/a depends on ns/lost, which does not exist",
			"DependencyCycle ns/b: cycle: ns/b → ns/c → ns/b"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := newTestRun(t, tc.wait, tc.lines)
			failures := r.check(context.Background())
			var got []string
			for _, f := range failures {
				got = append(got, f.Reason+" "+f.Node+": "+f.Text)
				if f.File == "" {
					t.Errorf("%s: no file", f.Text)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
			if tc.hint != "" && !strings.Contains(failures[0].Hint, tc.hint) {
				t.Errorf("hint %q does not say %q", failures[0].Hint, tc.hint)
			}
		})
	}
}

func TestMissingNamesTheNamespace(t *testing.T) {
	r, _ := newTestRun(t, health.Spec, "a needs:db")
	r.nodes.add(&node{Kustomization: &flux.Kustomization{ID: flux.ID{Namespace: "data", Name: "db"}}})
	failures := r.check(context.Background())
	if len(failures) != 1 || failures[0].Hint != "there is data/db: set the namespace in dependsOn" {
		t.Errorf("got %+v", failures)
	}
}

func TestSelects(t *testing.T) {
	for _, tc := range []struct {
		only, skip []string
		want       bool
	}{
		{nil, nil, true},
		{[]string{"ns/app"}, nil, true},
		{[]string{"*/app"}, nil, true},
		{[]string{"ns/a*"}, nil, true},
		{[]string{"app"}, nil, false}, // a pattern is for namespace/name
		{[]string{"*"}, nil, false},   // "*" ends at the slash
		{[]string{"ns/web", "ns/app"}, nil, true},
		{nil, []string{"ns/*"}, false},
		{[]string{"ns/app"}, []string{"*/app"}, false}, // Skip is stronger
		{[]string{"ns/web"}, nil, false},
	} {
		o := Options{Only: tc.only, Skip: tc.skip}
		if got := o.selects(id("app")); got != tc.want {
			t.Errorf("only %q skip %q: %v", tc.only, tc.skip, got)
		}
	}
}
