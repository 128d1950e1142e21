package health

import (
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/kustomize"

	"github.com/sluicerun/sluice/internal/flux"
)

// FuzzParseExpressions: whatever stands in a healthCheckExprs entry is read or is an error that names its place, never a panic.
func FuzzParseExpressions(f *testing.F) {
	for _, seed := range [][3]string{
		{"example.com/v1", "Widget", "status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True')"}, {"v1", "ConfigMap", "data.x == 'y'"},
		{"a/b/c", "X", "true"}, {"", "", ""}, {"v1", "X", "status."}, {"v1", "X", strings.Repeat("(", 300)}, {"v1", "\xff", "'\\u0000'"}, {"/", "a", "1"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, apiVersion, kind, text string) {
		k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "apps"}}
		check := kustomize.CustomHealthCheck{APIVersion: apiVersion, Kind: kind}
		check.Current, check.InProgress = text, text
		k.Spec.HealthCheckExprs = []kustomize.CustomHealthCheck{check}
		e, err := ParseExpressions(k)
		if (e == nil) != (err != nil) {
			t.Errorf("%q: %v, and expressions are %v", text, err, e)
		}
		if err != nil && !strings.Contains(err.Error(), "flux-system/apps: spec.healthCheckExprs[0]: ") {
			t.Errorf("%q: %v", text, err)
		}
		// The same kind twice is always told.
		k.Spec.HealthCheckExprs = append(k.Spec.HealthCheckExprs, check)
		if _, err := ParseExpressions(k); err == nil {
			t.Errorf("%q of %q twice is taken", kind, apiVersion)
		}
	})
}
