package build_test

import (
	"reflect"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/flux"
)

func object(t *testing.T, text string) flux.Object {
	t.Helper()
	o := flux.Object{Unstructured: &unstructured.Unstructured{}, File: "a.yaml"}
	json, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.UnmarshalJSON(json); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestLabel(t *testing.T) {
	owner := map[string]string{flux.NameLabel: "app", flux.NamespaceLabel: "flux-system"}
	with := func(more map[string]string) map[string]string {
		all := map[string]string{}
		for _, m := range []map[string]string{owner, more} {
			for k, v := range m {
				all[k] = v
			}
		}
		return all
	}
	for _, test := range []struct {
		name, metadata      string
		common              *kustomizev1.CommonMetadata
		labels, annotations map[string]string
		err                 string
	}{
		{name: "S4.1 owner labels", metadata: "", labels: owner},
		{name: "S4.1 own labels stay", metadata: "labels: {a: b}", labels: with(map[string]string{"a": "b"})},
		{
			name: "S1.9 common metadata overrides", metadata: "labels: {a: b, c: d}\n  annotations: {e: f}",
			common: &kustomizev1.CommonMetadata{Labels: map[string]string{"a": "x"}, Annotations: map[string]string{"e": "y", "g": "z"}},
			labels: with(map[string]string{"a": "x", "c": "d"}), annotations: map[string]string{"e": "y", "g": "z"},
		},
		{
			name: "S1.9 even the owner labels", metadata: "",
			common: &kustomizev1.CommonMetadata{Labels: map[string]string{flux.NameLabel: "other"}},
			labels: map[string]string{flux.NameLabel: "other", flux.NamespaceLabel: "flux-system"},
		},
		{name: "S3.26 null is the empty string", metadata: "labels: {a: null}", labels: with(map[string]string{"a": ""})},
		{name: "S3.26 a number", metadata: "labels: {a: 1, ok: x}", err: `metadata.labels: the value of "a" is a number, not a string`},
		{name: "S3.26 a boolean in an annotation", metadata: "annotations: {z: true}", err: `metadata.annotations: the value of "z" is a boolean, not a string`},
		{name: "S3.26 no map", metadata: "labels: [a]", err: "metadata.labels is a list, not a map"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "app"}}
			k.Spec.CommonMetadata = test.common
			in := object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  "+test.metadata+"\n")
			before := in.DeepCopy()
			out, err := build.Label(k, []flux.Object{in})
			if !reflect.DeepEqual(in.Object, before.Object) {
				t.Error("the input was changed")
			}
			if test.err != "" {
				all := flux.Problems(err)
				if len(all) != 1 || all[0].Err.Error() != test.err || all[0].File != "a.yaml" || all[0].Object != "ConfigMap/a" || all[0].Hint() == "" {
					t.Errorf("error %v, want %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := out[0].GetLabels(); !reflect.DeepEqual(got, test.labels) {
				t.Errorf("labels %v, want %v", got, test.labels)
			}
			if got := out[0].GetAnnotations(); !reflect.DeepEqual(got, test.annotations) {
				t.Errorf("annotations %v, want %v", got, test.annotations)
			}
		})
	}
}

// TestLabelReportsAll: every bad value of every object, and no value itself.
func TestLabelReportsAll(t *testing.T) {
	k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "app"}}
	_, err := build.Label(k, []flux.Object{
		object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, labels: {x: 4711}}\n"),
		object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: {x: 4711, z: 4711}}\n"),
	})
	if n := len(flux.Problems(err)); n != 3 {
		t.Errorf("%d errors: %v", n, err)
	}
	if strings.Contains(err.Error(), "4711") {
		t.Errorf("a value is shown: %v", err)
	}
	want := `flux-system/app: a.yaml: ConfigMap/a: metadata.annotations: the value of "x" is a number, not a string`
	if got := flux.Problems(err)[0].Error(); got != want {
		t.Errorf("first error %q, want %q", got, want)
	}
}
