package run

import (
	"reflect"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/flux"
)

// What plan and apply go by comes from the spec and from the options, and an
// account of the spec is stronger than the default (S4.40).
func TestApplyOptions(t *testing.T) {
	kinds := map[schema.GroupKind]struct{}{{Kind: "ConfigMap"}: {}}
	r := &run{options: Options{AllowDelete: []string{"Namespace"}, OverrideManagers: []string{"helm"}, CustomStageKinds: kinds, MigrateAPIVersion: true,
		DefaultServiceAccount: "deployer"}}
	spec := kustomizev1.KustomizationSpec{Force: true, Ignore: []kustomizev1.IgnoreRule{{Paths: []string{"/spec/replicas"}}}}
	n := &node{Kustomization: &flux.Kustomization{ID: flux.ID{Namespace: "team", Name: "apps"}, Spec: spec}}
	want := apply.Options{Force: true, Ignore: apply.IgnoreRules(spec), AllowDelete: []string{"Namespace"}, OverrideManagers: []string{"helm"},
		CustomStageKinds: kinds, MigrateAPIVersion: true, Concurrency: cluster.MaxRequests}
	if got := r.applyOptions(n); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := r.user(n); got != "system:serviceaccount:team:deployer" {
		t.Errorf("applied as %q", got)
	}
	n.Spec.ServiceAccountName = "own"
	if got := r.user(n); got != "system:serviceaccount:team:own" {
		t.Errorf("applied as %q", got)
	}
	r.options.DefaultServiceAccount, n.Spec.ServiceAccountName = "", ""
	if got := r.user(n); got != "" {
		t.Errorf("applied as %q", got)
	}
}
