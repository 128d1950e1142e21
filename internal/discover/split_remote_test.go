package discover

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
)

// What goes to another cluster goes there as it is (S4.42): Kustomizations,
// sources and Flux's own components are objects like any others.
func TestS4_42SplitRemote(t *testing.T) {
	var objects []flux.Object
	for _, text := range []string{
		`{apiVersion: v1, kind: ConfigMap, metadata: {name: plain}}`,
		`{apiVersion: v1, kind: Namespace, metadata: {name: flux-system, labels: {app.kubernetes.io/part-of: flux}}}`,
		`{apiVersion: source.toolkit.fluxcd.io/v1, kind: GitRepository, metadata: {name: source}}`,
		`{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, metadata: {name: inner, namespace: x}, spec: {anything: goes}}`,
		`{apiVersion: helm.toolkit.fluxcd.io/v2, kind: HelmRelease, metadata: {name: release}}`,
	} {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, flux.Object{Unstructured: o})
	}
	found := SplitRemote(flux.ID{Namespace: "a", Name: "b"}, objects)
	names := func(list []flux.Object) string {
		var names []string
		for _, o := range list {
			names = append(names, o.GetName())
		}
		return strings.Join(names, " ")
	}
	if got := names(found.Objects) + " | " + names(found.Toolkit); got != "plain flux-system | source inner release" {
		t.Error(got)
	}
	if len(found.Kustomizations)+len(found.Sources)+len(found.FluxComponents) != 0 {
		t.Errorf("%+v", found)
	}
	if len(found.Notices) != 1 || found.Notices[0].Code != "remote-kustomizations" || found.Notices[0].Object != "Kustomization/x/inner" {
		t.Errorf("%+v", found.Notices)
	}
	if found := SplitRemote(flux.ID{}, objects[:3]); len(found.Notices) != 0 {
		t.Errorf("%+v", found.Notices)
	}
}
