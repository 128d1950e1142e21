package run

import (
	"slices"
	"testing"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/inventory"
)

// S7.5: a dependency of the same source must be at this run's revision. One that is
// run always is, since a source has one revision in a run; of one that is left out
// the record tells, and it counts as being there if it is built to the same objects.
// The revision of another source plays no part.
func TestS7_5Revisions(t *testing.T) {
	const older, newer = "main@sha1:1", "main@sha1:2"
	for name, tc := range map[string]struct {
		change func(dep *node)
		want   []string // reasons and codes
	}{
		"at this revision":          {func(dep *node) { dep.record.Revision = newer }, nil},
		"at another":                {func(*node) {}, []string{"dependency-behind"}},
		"built to the same objects": {func(dep *node) { dep.record.Digest, _ = dep.digest() }, nil},
		"not known what it builds":  {func(dep *node) { dep.record.Digest, _ = dep.digest(); dep.built = false }, []string{"dependency-behind"}},
		"of another source":         {func(dep *node) { dep.Spec.SourceRef.Name = "other" }, nil},
		"of another namespace":      {func(dep *node) { dep.Spec.SourceRef.Namespace = "other" }, nil},
		"of another kind":           {func(dep *node) { dep.Spec.SourceRef.Kind = "Bucket" }, nil},
		"not ready":                 {func(dep *node) { dep.record.Result = inventory.Unhealthy }, []string{"DependencyNotReady"}},
		"in this run":               {func(dep *node) { dep.excluded = false }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r, events := newTestRun(t, health.Spec, "dep excluded\napp needs:dep")
			dep, app := r.nodes.get(id("dep")), r.nodes.get(id("app"))
			for _, n := range []*node{dep, app} {
				n.Spec.SourceRef.Kind, n.Spec.SourceRef.Name, n.revision = "GitRepository", "flux-system", newer
				n.record = inventory.NewRecord(id("root"), n.Kustomization)
			}
			dep.record.Result, dep.record.Revision, dep.record.Digest = inventory.Ready, older, "sha256:0"
			tc.change(dep)
			if err := (&inventory.MemoryStore{}).Save(t.Context(), dep.record); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range r.unready(t.Context()) {
				got = append(got, f.Reason)
			}
			for _, e := range events.events {
				if notice, ok := e.(event.Notice); ok {
					got = append(got, notice.Code)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// S7.7: of a dependency that is left out the last run counts, and a readyExpr that
// is not true of it refuses the run; the rule for others does not apply to it, but
// with Flux's gate (S7.8).
func TestS7_7LeftOut(t *testing.T) {
	for name, tc := range map[string]struct {
		expr     string
		additive bool
		want     []string
	}{
		"true":               {"dep.status.conditions.exists(c, c.type == 'Ready' && c.status == 'False')", false, nil},
		"true, but additive": {"dep.status.conditions.exists(c, c.type == 'Ready' && c.status == 'False')", true, []string{"DependencyNotReady"}},
		"false":              {"dep.status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')", false, []string{"DependencyNotReady"}},
		"an error":           {"dep.status.nothing == 'x'", false, []string{"DependencyNotReady"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := newTestRun(t, health.Spec, "dep excluded\napp gate:dep")
			r.options.AdditiveCELDependencyCheck = tc.additive
			dep, app := r.nodes.get(id("dep")), r.nodes.get(id("app"))
			app.Spec.DependsOn[0].ReadyExpr = tc.expr
			if failures := r.readSpec(t.Context(), app); len(failures) > 0 {
				t.Fatal(failures)
			}
			dep.record = inventory.NewRecord(id("root"), dep.Kustomization)
			dep.record.Result = inventory.Failed
			if err := (&inventory.MemoryStore{}).Save(t.Context(), dep.record); err != nil {
				t.Fatal(err)
			}
			dep.live.Remember(dep.record)
			var got []string
			for _, f := range r.unready(t.Context()) {
				got = append(got, f.Reason)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// S9.2: the reasons of Ready that a readyExpr sees.
func TestS9_2Reasons(t *testing.T) {
	for phase, want := range map[string]string{
		"source": "ArtifactFailed", "discover": "BuildFailed", "build": "BuildFailed", "substitute": "BuildFailed",
		"apply": "ReconciliationFailed", "plan": "ReconciliationFailed", "record": "ReconciliationFailed", "health": "HealthCheckFailed",
	} {
		if got := fluxReason(event.Failure{Phase: phase}); got != want {
			t.Errorf("%s: %s, want %s", phase, got, want)
		}
	}
}
