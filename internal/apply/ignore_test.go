package apply_test

import (
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/apply"
)

// S1.11: the fields of a target are regular expressions that must match all of
// the value, its selectors are those of Kubernetes, and what is given must
// match together.
func TestS1_11IgnoreTargets(t *testing.T) {
	c, ns := connect(t)
	objects := prepared(t, ns, `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: web, tier: front}, annotations: {team: a}}
data: {a: "1"}
`)
	mustApply(t, c, objects, apply.Options{})
	for _, test := range []struct {
		name    string
		target  *kustomize.Selector
		matches bool
	}{
		{"no target", nil, true},
		{"empty target", &kustomize.Selector{}, true},
		{"name", &kustomize.Selector{Name: "settings"}, true},
		{"beginning of the name", &kustomize.Selector{Name: "setting"}, false},
		{"end of the name", &kustomize.Selector{Name: "ettings"}, false},
		{"pattern for the name", &kustomize.Selector{Name: "set.*"}, true},
		{"alternatives, each for all of the name", &kustomize.Selector{Name: "set|settings"}, true},
		{"alternatives of parts", &kustomize.Selector{Name: "set|tings"}, false},
		{"kind", &kustomize.Selector{Kind: "ConfigMap|Secret"}, true},
		{"part of the kind", &kustomize.Selector{Kind: "Config"}, false},
		{"version", &kustomize.Selector{Version: "v1"}, true},
		{"part of the version", &kustomize.Selector{Version: "v"}, false},
		{"another group", &kustomize.Selector{Group: "apps"}, false},
		{"namespace", &kustomize.Selector{Namespace: ns}, true},
		{"part of the namespace", &kustomize.Selector{Namespace: ns[:len(ns)-1]}, false},
		{"label", &kustomize.Selector{LabelSelector: "app=web"}, true},
		{"set of labels", &kustomize.Selector{LabelSelector: "app in (web, api), tier!=back, !old"}, true},
		{"another label", &kustomize.Selector{LabelSelector: "app=we"}, false},
		{"annotation", &kustomize.Selector{AnnotationSelector: "team=a"}, true},
		{"another annotation", &kustomize.Selector{AnnotationSelector: "team=b"}, false},
		{"all that is given", &kustomize.Selector{Version: "v1", Kind: "ConfigMap", Name: "settings", Namespace: ns, LabelSelector: "app", AnnotationSelector: "team"}, true},
		{"one that does not match", &kustomize.Selector{Kind: "Secret", Name: "settings"}, false},
	} {
		drift := client.RawPatch(types.MergePatchType, []byte(`{"data":{"a":"drifted"}}`))
		if err := c.Patch(t.Context(), objects[0].DeepCopy().Unstructured, drift, client.FieldOwner("somebody")); err != nil {
			t.Fatal(err)
		}
		spec := kustomizev1.KustomizationSpec{Ignore: []kustomizev1.IgnoreRule{{Paths: []string{"/data/a"}, Target: test.target}}}
		want := apply.Configured
		if test.matches {
			want = apply.Unchanged
		}
		if got := mustApply(t, c, objects, apply.Options{Ignore: apply.IgnoreRules(spec)})["ConfigMap/settings"]; got != want {
			t.Errorf("%s: %s, want %s", test.name, got, want)
		}
	}
}
