package run

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/plan"
)

func TestValueText(t *testing.T) {
	for _, tc := range []struct {
		in   any
		want string
	}{
		{nil, ""}, {"plain text", "plain text"}, {"", `""`}, {" x", `" x"`}, {"a\nb", `"a\nb"`}, {int64(3), "3"}, {true, "true"},
		{map[string]any{"b": "<x>", "a": []any{int64(1)}}, `{"a":[1],"b":"<x>"}`},
		{strings.Repeat("ä", 200), strings.Repeat("ä", 150) + "… (100 more bytes)"},
	} {
		if got := valueText(tc.in); got != tc.want {
			t.Errorf("%v became %q, want %q", tc.in, got, tc.want)
		}
	}
}

// An object that changes hands is told as that, and as a mere relabelling if
// nothing else changes.
func TestWhy(t *testing.T) {
	const name, namespace = "metadata.labels[" + flux.NameLabel + "]", "metadata.labels[" + flux.NamespaceLabel + "]"
	live := func(owner string) *unstructured.Unstructured {
		o := configMap("c").Unstructured
		o.SetLabels(map[string]string{flux.NameLabel: owner, flux.NamespaceLabel: "ns"})
		return o
	}
	for _, tc := range []struct {
		change plan.Change
		want   string
	}{
		{plan.Change{Action: plan.Create}, ""},
		{plan.Change{Action: plan.Configure, Live: live("a"), Paths: []string{"data.x"}}, ""},
		{plan.Change{Action: plan.Configure, Live: live("b"), Paths: []string{name}}, "relabelled: it belongs to ns/b so far"},
		{plan.Change{Action: plan.Configure, Live: live("b"), Paths: []string{"data.x", name, namespace}}, "it belongs to ns/b so far"},
		{plan.Change{Action: plan.Configure, Live: configMap("c").Unstructured, Paths: []string{"data.x"}}, ""},
		{plan.Change{Action: plan.Skipped, Live: live("b"), Reason: "a marker"}, "a marker"},
	} {
		tc.change.Node = id("a")
		if got := why(tc.change); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.change, got, tc.want)
		}
	}
}

// Only a plan goes on after a refusal, and only after a refusal.
func TestPostponed(t *testing.T) {
	guard := event.Failure{Phase: "guard", Reason: "OlderCommit"}
	for _, tc := range []struct {
		command Command
		in      []event.Failure
		ends    bool
	}{
		{CommandRun, []event.Failure{guard}, true},
		{CommandPlan, []event.Failure{guard}, false},
		{CommandPlan, []event.Failure{guard, {Phase: "record", Reason: "RecordFailed"}}, true},
		{CommandPlan, []event.Failure{{Phase: "guard", Reason: "Forbidden"}}, true},
	} {
		r := newRun(Options{Command: tc.command}, Sinks{})
		rest := r.postponed(tc.in)
		if (len(rest) > 0) != tc.ends || len(rest)+len(r.refusals) != len(tc.in) {
			t.Errorf("%s %v: ends with %v, keeps %v", tc.command, tc.in, rest, r.refusals)
		}
	}
}
