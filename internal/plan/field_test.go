package plan

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
)

func parsed(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

// S12.17: the fields that differ, with their values, sorted.
func TestFields(t *testing.T) {
	live := parsed(t, "{apiVersion: example.com/v1, kind: A, metadata: {name: a, labels: {x/y: old}}, spec: {size: 1, gone: [1], list: [{name: c, image: v1}]}}")
	merged := parsed(t, "{apiVersion: example.com/v1, kind: A, metadata: {name: a, labels: {x/y: new}}, spec: {size: 3, come: {k: v}, list: [{name: c, image: v2}]}}")
	var got []string
	for _, f := range changedFields(live, merged, nil) {
		got = append(got, fmt.Sprintf("%s: %v -> %v", f.Path, f.Old, f.New))
	}
	want := "metadata.labels[x/y]: old -> new\nspec.come: <nil> -> map[k:v]\nspec.gone: [1] -> <nil>\nspec.list[c].image: v1 -> v2\nspec.size: 1 -> 3"
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

// S12.19: no value of a Secret is in a field, also not by way of an annotation.
func TestFieldsOfSecrets(t *testing.T) {
	secret := func(rest string) *unstructured.Unstructured {
		return parsed(t, "{apiVersion: v1, kind: Secret, metadata: {name: a, annotations: {kubectl.kubernetes.io/last-applied-configuration: hunter2}, labels: {l: a}}, "+rest+"}")
	}
	live := secret("data: {same: aHVudGVyMg==, changed: aHVudGVyMg==, gone: aHVudGVyMg==}, type: Opaque")
	merged := secret("data: {same: aHVudGVyMg==, changed: aHVudGVyMw==, come: aHVudGVyMw==}, type: Opaque")
	merged.SetAnnotations(map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "hunter3"})
	merged.SetLabels(map[string]string{"l": "b"})
	var got []string
	for _, f := range changedFields(live, merged, nil) {
		got = append(got, fmt.Sprintf("%s: %v -> %v", f.Path, f.Old, f.New))
	}
	want := "data.changed: *** (before) -> *** (after)\ndata.come: <nil> -> ***\ndata.gone: *** -> <nil>\n" +
		"metadata.annotations[kubectl.kubernetes.io/last-applied-configuration]: *** (before) -> *** (after)\nmetadata.labels.l: a -> b"
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	// All of data at once, and one that is to be made anew.
	all := changedFields(secret("type: Opaque"), live, nil)
	all = append(all, desiredFields(merged, live, flux.FieldManager)...)
	if text := fmt.Sprint(all); strings.Contains(text, "aHVudGVy") || strings.Contains(text, "hunter") {
		t.Errorf("a value is told: %s", text)
	}
}

// S4.28: of an object that is to be made anew, what the manager had applied and no
// longer does is told, since that may be the reason; what others have set is not.
func TestFieldsOfWhatIsMadeAnew(t *testing.T) {
	live := parsed(t, `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {theirs: x}
  managedFields:
  - {manager: kustomize-controller, operation: Apply, apiVersion: apps/v1, fieldsType: FieldsV1, fieldsV1: {"f:spec": {"f:selector": {}, "f:paused": {}, "f:template": {"f:metadata": {}}}}}
  - {manager: other, operation: Update, apiVersion: apps/v1, fieldsType: FieldsV1, fieldsV1: {"f:metadata": {"f:labels": {"f:theirs": {}}}, "f:spec": {"f:replicas": {}}}}
spec: {replicas: 3, paused: true, selector: {matchLabels: {app: web, tier: front}}, template: {metadata: {labels: {theirs: x}}}}
`)
	desired := parsed(t, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {minReadySeconds: 1, selector: {matchLabels: {app: web}}, template: {metadata: {}}}}")
	var got []string
	for _, f := range desiredFields(desired, live, flux.FieldManager) {
		got = append(got, fmt.Sprintf("%s: %v -> %v", f.Path, f.Old, f.New))
	}
	want := "spec.minReadySeconds: <nil> -> 1\nspec.paused: true -> <nil>\nspec.selector.matchLabels.tier: front -> <nil>"
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}
