package apply

import (
	"context"
	"fmt"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/jsondiff"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
)

// Markers, as labels or annotations of an object (S4.25).
const (
	reconcileMarker = flux.Group + "/reconcile"
	ssaMarker       = flux.Group + "/ssa"
	forceMarker     = flux.Group + "/force"
)

const (
	defaultConcurrency     = 8
	defaultRecreateTimeout = 2 * time.Minute
	// stageTimeout is how long a stage may take to become ready; it is
	// Flux's, and has nothing to do with spec.timeout (S4.11).
	stageTimeout = 60 * time.Second
)

// Options says how to apply.
type Options struct {
	// Force is spec.force: make objects again whose immutable fields change
	// (S4.28).
	Force bool
	// Ignore is spec.ignore, see [IgnoreRules].
	Ignore []jsondiff.IgnoreRule
	// AllowDelete names kinds, in any case, that force may make again although
	// data or other objects are lost with them: Namespace,
	// CustomResourceDefinition, PersistentVolume, PersistentVolumeClaim.
	AllowDelete []string
	// CustomStageKinds are applied in a stage of their own, after classes
	// and before all others (S4.10); see [ParseKinds].
	CustomStageKinds map[schema.GroupKind]struct{}
	// OverrideManagers are prefixes of field managers whose fields are taken
	// over, beyond those of S4.24.
	OverrideManagers []string
	// MigrateAPIVersion moves all managed fields of an object to the version
	// that is applied, before anything else (the gate of S13.2). Without it the
	// server refuses to apply a custom resource whose managed fields are of a
	// version that lacks fields which the new one fills with defaults.
	MigrateAPIVersion bool
	// Concurrency is how many requests may be under way; 0 means 8.
	Concurrency int
	// RecreateTimeout limits the wait for the end of a deleted object; 0
	// means two minutes. Flux waits without limit (S4.29).
	RecreateTimeout time.Duration
	// Known says of an object that it is known to be as desired, what the
	// cluster calls it, and the resource version of which that is known. It is
	// then reported as unchanged and not looked at. Calls may overlap. Nil
	// knows none.
	Known func(flux.Object) (ref flux.Ref, version string, ok bool)
	// StageWait returns when the given objects are ready. It is called
	// after the first two stages (S4.11) with those that are not known to
	// be ready already, under a deadline of 60 seconds. Nil does not wait.
	StageWait func(ctx context.Context, refs []flux.Ref) error
	// Report gets each result as soon as it and all that sort before it in
	// what goes at the same time are final. Calls do not overlap.
	Report func(Result)
}

// SSA returns the options for fluxcd/pkg/ssa that express these. They are
// what a plan needs to judge objects as the apply will. Force is not among
// them: ssa's own way to force does not wait for the deletion; see [Options.Recreate].
func (o Options) SSA() ssa.ApplyOptions {
	manager := func(name string, op metav1.ManagedFieldsOperationType) ssa.FieldManager {
		return ssa.FieldManager{Name: name, OperationType: op}
	}
	managers := []ssa.FieldManager{
		manager("kubectl", metav1.ManagedFieldsOperationApply),
		manager("kubectl", metav1.ManagedFieldsOperationUpdate),
		manager("before-first-apply", metav1.ManagedFieldsOperationUpdate),
		manager(flux.FieldManager, metav1.ManagedFieldsOperationUpdate),
	}
	for _, name := range o.OverrideManagers {
		managers = append(managers, manager(name, metav1.ManagedFieldsOperationApply), manager(name, metav1.ManagedFieldsOperationUpdate))
	}
	return ssa.ApplyOptions{
		ExclusionSelector:    map[string]string{reconcileMarker: "disabled", ssaMarker: "Ignore"},
		IfNotPresentSelector: map[string]string{ssaMarker: "IfNotPresent"},
		Cleanup: ssa.ApplyCleanupOptions{
			Annotations:   []string{corev1.LastAppliedConfigAnnotation, flux.Group + "/checksum", "fluxcd.io/sync-checksum"},
			Labels:        []string{"fluxcd.io/sync-gc-mark"},
			FieldManagers: managers,
			Exclusions:    map[string]string{ssaMarker: "Merge"},
		},
		DriftIgnoreRules:  o.Ignore,
		MigrateAPIVersion: o.MigrateAPIVersion,
	}
}

// ParseKinds reads kinds as Flux's --custom-apply-stage-kinds has them
// (S4.10): "<group>/<Kind>", or "<Kind>" for the core group, with commas between
// them. Flux takes whatever it is given; here what could never match is an
// error.
func ParseKinds(lists ...string) (map[schema.GroupKind]struct{}, error) {
	kinds := map[schema.GroupKind]struct{}{}
	for item := range strings.SplitSeq(strings.Join(lists, ","), ",") {
		if len(lists) == 0 {
			break
		}
		item = strings.TrimSpace(item)
		group, kind, grouped := strings.Cut(item, "/")
		if !grouped {
			group, kind = "", item
		}
		switch {
		case kind == "" || (grouped && group == ""):
			return nil, fmt.Errorf("%q is not of the form <group>/<Kind>, or <Kind> for the core group", item)
		case strings.Contains(kind, "/"):
			return nil, fmt.Errorf("%q has more than a group and a kind; leave out the version", item)
		}
		kinds[schema.GroupKind{Group: group, Kind: kind}] = struct{}{}
	}
	return kinds, nil
}

// Owner is who applies: Flux's own field manager, and the prefix of its owner
// labels (S4.21, S4.1).
func Owner() ssa.Owner { return ssa.Owner{Field: flux.FieldManager, Group: flux.Group} }

// IgnoreRules returns spec.ignore in the form that [Options] and ssa take
// (S4.33).
func IgnoreRules(spec kustomizev1.KustomizationSpec) []jsondiff.IgnoreRule {
	rules := make([]jsondiff.IgnoreRule, 0, len(spec.Ignore))
	for _, r := range spec.Ignore {
		// An empty selector matches all, as none would. But ssa keeps rules in
		// a map by selector, where a second rule without one would replace
		// the first.
		rule := jsondiff.IgnoreRule{Paths: r.Paths, Selector: &jsondiff.Selector{}}
		if t := r.Target; t != nil {
			rule.Selector = &jsondiff.Selector{
				Group: t.Group, Version: t.Version, Kind: t.Kind, Name: t.Name, Namespace: t.Namespace,
				AnnotationSelector: t.AnnotationSelector, LabelSelector: t.LabelSelector,
			}
		}
		rules = append(rules, rule)
	}
	return rules
}
