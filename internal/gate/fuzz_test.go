package gate

import (
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/sluicerun/sluice/internal/flux"
)

// FuzzParse: whatever stands in a readyExpr is an expression or an error that names its field, never a panic.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "true", "1", "dep.metadata.labels['app/version'] == self.metadata.labels['app/version']",
		"dep.status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True') && dep.status.observedGeneration == dep.metadata.generation",
		"self", "dep.", "((((((((((", "a.b.c", "'\\u0000'", "[1,2,3].exists(x, x > 2)", "has(dep.status)", "\xff", "size('a') > 0 ? true : false",
		strings.Repeat("!", 300) + "true", strings.Repeat("[", 300), strings.Repeat("(true && ", 100),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "apps"}}
		k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "plain"}, {Name: "infra", ReadyExpr: text}}
		all, err := Parse(k)
		switch {
		case err != nil && !strings.Contains(err.Error(), "flux-system/apps: spec.dependsOn[1].readyExpr: "):
			t.Errorf("%q: %v", text, err)
		case err != nil && len(all) > 0:
			t.Errorf("%q: %v, and an expression", text, err)
		case err == nil && text == "" && len(all) != 0, err == nil && text != "" && (len(all) != 1 || all[0].Text != text || all[0].Dep.Name != "infra"):
			t.Errorf("%q is read as %+v", text, all)
		}
	})
}
