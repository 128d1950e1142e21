package health

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/sluicerun/sluice/internal/flux"
)

func TestSelect(t *testing.T) {
	applied := func(manifest string, skipped bool) Applied {
		return Applied{Object: flux.Object{Unstructured: parse(t, manifest)}, Skipped: skipped}
	}
	objects := []Applied{
		applied("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: ns}\n", false),
		applied("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: ns}\n", false),
		applied("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: skipped, namespace: ns}\n", true),
		applied("apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, namespace: ns}\nspec: {ttlSecondsAfterFinished: 0}\n", false),
		applied("apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: h, namespace: ns}\n", false),
		applied("apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: ds, namespace: ns}\n", false),
		applied("apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: s, namespace: ns}\n", false),
	}
	checks := []meta.NamespacedObjectKindReference{
		{Kind: "Deployment", Namespace: "other", Name: "made-by-helm"},
		{APIVersion: "v1", Kind: "ConfigMap", Name: "no-namespace"},
		{APIVersion: "batch/v1", Kind: "Job", Namespace: "ns", Name: "j"},
		{APIVersion: "kustomize.toolkit.fluxcd.io/v1", Kind: "Kustomization", Namespace: "flux-system", Name: "self"},
		{APIVersion: "kustomize.toolkit.fluxcd.io/v1", Kind: "Kustomization", Namespace: "flux-system", Name: "child"},
	}
	const (
		workloads = "DaemonSet/ns/ds Deployment/ns/d StatefulSet/ns/s Job/ns/j(ttl) HelmRelease/ns/h"
		all       = "ConfigMap/ns/c DaemonSet/ns/ds Deployment/ns/d StatefulSet/ns/s Job/ns/j(ttl) HelmRelease/ns/h"
		checked   = "ConfigMap/no-namespace Deployment/other/made-by-helm Job/ns/j(ttl) Kustomization/flux-system/child"
	)
	tests := []struct {
		name   string
		mode   Mode
		wait   bool
		checks []meta.NamespacedObjectKindReference
		want   string
	}{
		{"S6.1 spec says nothing", Spec, false, nil, ""},
		{"S6.2 S4.26 spec.wait", Spec, true, nil, all},
		{"S6.2 healthChecks are ignored", Spec, true, checks, all},
		{"S6.3 S6.4 S6.6 healthChecks", Spec, false, checks, checked},
		{"auto where the spec says nothing", Auto, false, nil, workloads},
		{"auto with spec.wait", Auto, true, nil, all},
		{"auto with healthChecks", Auto, false, checks, checked},
		{"auto with only a check of itself", Auto, false, checks[3:4], ""},
		{"all", All, false, nil, all},
		{"all with healthChecks", All, false, checks[:2],
			"ConfigMap/no-namespace ConfigMap/ns/c DaemonSet/ns/ds Deployment/ns/d Deployment/other/made-by-helm StatefulSet/ns/s Job/ns/j(ttl) HelmRelease/ns/h"},
		{"none", None, true, checks, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "self"},
				Spec: kustomizev1.KustomizationSpec{Wait: tt.wait, HealthChecks: tt.checks}}
			var got []string
			for _, target := range Select(tt.mode, k, objects) {
				s := target.Ref.String()
				if target.TTLJob {
					s += "(ttl)"
				}
				got = append(got, s)
			}
			if g := strings.Join(got, " "); g != tt.want {
				t.Errorf("\n got %s\nwant %s", g, tt.want)
			}
		})
	}
}

// What was applied carries the owner labels and counts as of the version that was written, also where healthChecks names it; what
// healthChecks names besides, and what apply left alone, does not.
func TestSelectSaysWhatIsOurs(t *testing.T) {
	deployment := func(name string) flux.Object {
		o := parse(t, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: "+name+", namespace: ns}\n")
		return flux.Object{Unstructured: o}
	}
	k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "apps"}}
	for _, name := range []string{"applied", "skipped", "foreign"} {
		k.Spec.HealthChecks = append(k.Spec.HealthChecks, meta.NamespacedObjectKindReference{Kind: "Deployment", Namespace: "ns", Name: name})
	}
	var got []string
	for _, target := range Select(Auto, k, []Applied{{Object: deployment("applied"), Version: "7"}, {Object: deployment("skipped"), Version: "8", Skipped: true}}) {
		got = append(got, fmt.Sprintf("%s %s %q", target.Ref.Name, target.Owner, target.Version))
	}
	if want := []string{`applied flux-system/apps "7"`, `foreign / ""`, `skipped / ""`}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDefaultOfHealthCheckIsApps(t *testing.T) {
	if r := checkRef("", "Deployment", "n", "d"); r.Group != "apps" || r.Version != "v1" {
		t.Errorf("S6.4: %+v", r)
	}
	if r := checkRef("v1", "Pod", "n", "p"); r.Group != "" || r.Version != "v1" {
		t.Errorf("core kind: %+v", r)
	}
}

func TestTargetKustomization(t *testing.T) {
	id, ok := Target{Ref: flux.Ref{Group: flux.Group, Kind: "Kustomization", Namespace: "a", Name: "b"}}.Kustomization()
	if !ok || id != (flux.ID{Namespace: "a", Name: "b"}) {
		t.Errorf("%v %v", id, ok)
	}
	if _, ok := (Target{Ref: flux.Ref{Group: "kustomize.config.k8s.io", Kind: "Kustomization"}}).Kustomization(); ok {
		t.Error("kustomize's own kind is not Flux'")
	}
}

func TestParseMode(t *testing.T) {
	for _, m := range Modes {
		if got, err := ParseMode(string(m)); err != nil || got != m {
			t.Errorf("%s: %v, %v", m, got, err)
		}
	}
	_, err := ParseMode("always")
	if want := `"always" is no wait mode, use one of auto, spec, all, none`; fmt.Sprint(err) != want {
		t.Errorf("%v, want %s", err, want)
	}
	if slices.Contains(Modes, "") {
		t.Error("the empty mode must not be one")
	}
}
