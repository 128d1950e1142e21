package health

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
)

// Target is one object to wait for.
type Target struct {
	// Ref names it. The version plays no part: the one that the server prefers is read (S6.4).
	Ref flux.Ref
	// Version is the resource version as of which the object is as it should be: the one that was written, or read and found to
	// be right. Nothing older counts. It may be empty; then nothing counts that is older than the call of Wait.
	Version string
	// Owner is the Kustomization whose owner labels the object carries (S4.1); zero if it may carry none. It is what lets one
	// watch serve many: a target that turns out not to carry them is looked for by its name.
	Owner flux.ID
	// TTLJob says that the object is a Job that deletes itself when it has finished, so that its absence is success (S6.12).
	TTLJob bool
	// Expr, if not nil, takes the place of the rules for the kind (S6.45). Jobs keep their own rule.
	Expr Evaluator
}

// Kustomization returns the id if the target is itself a Flux Kustomization: a node of the run, which is never in the cluster
// as an object, rather than something to watch.
func (t Target) Kustomization() (flux.ID, bool) {
	if t.Ref.Group != flux.Group || t.Ref.Kind != flux.KustomizationKind {
		return flux.ID{}, false
	}
	return flux.ID{Namespace: t.Ref.Namespace, Name: t.Ref.Name}, true
}

// reads reports whether the verdict may depend on any part of the object.
func (t Target) reads() bool { return t.Expr != nil && !isJob(t.Ref.GVK().GroupKind()) }

// Evaluator decides the status of an object, in place of kstatus. An error makes the object Unknown and is tried again with
// the object's next change (S6.44). It must be safe for concurrent use and must not change the object.
type Evaluator interface {
	Evaluate(ctx context.Context, o *unstructured.Unstructured) (*status.Result, error)
}

// Mode is what --wait says: what is waited for after a Kustomization was applied.
type Mode string

// The modes.
const (
	// Auto is what the spec says; where it says nothing, the workloads that were applied.
	Auto Mode = "auto"
	// Spec is what the spec says, which is exactly what Flux waits for (S6.1 to S6.3).
	Spec Mode = "spec"
	// All is everything that was applied, and the spec's healthChecks.
	All Mode = "all"
	// None is nothing: the gate opens when everything is applied.
	None Mode = "none"
)

// Modes lists the modes in the order in which help texts name them.
var Modes = []Mode{Auto, Spec, All, None}

// ParseMode reads a mode. The error names the modes there are.
func ParseMode(s string) (Mode, error) {
	if m := Mode(s); slices.Contains(Modes, m) {
		return m, nil
	}
	var names []string
	for _, m := range Modes {
		names = append(names, string(m))
	}
	return "", fmt.Errorf("%q is no wait mode, use one of %s", s, strings.Join(names, ", "))
}

// Applied is an object of a Kustomization's build, after its apply.
type Applied struct {
	Object flux.Object
	// Skipped is set if apply left it alone (S4.26); such an object is not waited for.
	Skipped bool
	// Version is [Target.Version].
	Version string
}

// workloads are the kinds that mode auto waits for where the spec says nothing: those in which a bad commit shows.
var workloads = map[schema.GroupKind]bool{
	{Group: "apps", Kind: "Deployment"}:                    true,
	{Group: "apps", Kind: "StatefulSet"}:                   true,
	{Group: "apps", Kind: "DaemonSet"}:                     true,
	{Group: "batch", Kind: "Job"}:                          true,
	{Group: "helm.toolkit.fluxcd.io", Kind: "HelmRelease"}: true,
}

// Select returns what is to be waited for after the objects of k were applied, sorted, each object once.
//
// spec.wait means everything applied, with spec.healthChecks ignored (S6.2); else spec.healthChecks means exactly those,
// whether applied here or not (S6.3). A check of k itself is dropped (S6.6). Other Kustomizations are among the result if the
// spec names them; see [Target.Kustomization].
func Select(mode Mode, k *flux.Kustomization, applied []Applied) []Target {
	var targets []Target
	jobs := ttlJobs(applied)
	versions := map[flux.Ref]string{}
	for _, a := range applied {
		if !a.Skipped {
			versions[a.Object.Ref().Key()] = a.Version
		}
	}
	add := func(r flux.Ref) {
		if r.Group == flux.Group && r.Kind == flux.KustomizationKind && r.Namespace == k.Namespace && r.Name == k.Name {
			return
		}
		t := Target{Ref: r, TTLJob: jobs[r.Key()]}
		if version, ours := versions[r.Key()]; ours {
			t.Version, t.Owner = version, k.ID
		}
		targets = append(targets, t)
	}
	addApplied := func(chosen func(schema.GroupKind) bool) {
		for _, a := range applied {
			if r := a.Object.Ref(); !a.Skipped && chosen(r.GVK().GroupKind()) {
				add(r)
			}
		}
	}
	all := func(schema.GroupKind) bool { return true }

	switch {
	case mode == None:
	case k.Spec.Wait:
		addApplied(all)
	default:
		if mode == All {
			addApplied(all)
		}
		for _, c := range k.Spec.HealthChecks {
			add(checkRef(c.APIVersion, c.Kind, c.Namespace, c.Name))
		}
		if mode == Auto && len(k.Spec.HealthChecks) == 0 {
			addApplied(func(gk schema.GroupKind) bool { return workloads[gk] })
		}
	}
	return distinct(targets)
}

// checkRef reads an entry of healthChecks. No apiVersion means apps/v1, and the namespace is not defaulted (S6.4).
func checkRef(apiVersion, kind, namespace, name string) flux.Ref {
	gv := schema.FromAPIVersionAndKind(cmp.Or(apiVersion, "apps/v1"), kind)
	return flux.Ref{Group: gv.Group, Version: gv.Version, Kind: kind, Namespace: namespace, Name: name}
}

// ttlJobs finds the Jobs of a build that set ttlSecondsAfterFinished, whatever its value (S6.12).
func ttlJobs(applied []Applied) map[flux.Ref]bool {
	jobs := map[flux.Ref]bool{}
	for _, a := range applied {
		r := a.Object.Ref()
		if !isJob(r.GVK().GroupKind()) {
			continue
		}
		if spec, ok := a.Object.Object["spec"].(map[string]any); ok && spec["ttlSecondsAfterFinished"] != nil {
			jobs[r.Key()] = true
		}
	}
	return jobs
}

// distinct sorts targets and keeps one of those that name the same object.
func distinct(targets []Target) []Target {
	targets = slices.Clone(targets)
	slices.SortStableFunc(targets, func(a, b Target) int { return flux.CompareRefs(a.Ref, b.Ref) })
	return slices.CompactFunc(targets, func(a, b Target) bool { return a.Ref.Key() == b.Ref.Key() })
}

func isJob(gk schema.GroupKind) bool { return gk == schema.GroupKind{Group: "batch", Kind: "Job"} }
