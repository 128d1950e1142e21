package run

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
)

func TestUnjoin(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	several := &multi{[]error{a, b}} // means one thing by both
	got := unjoin(errors.Join(errors.Join(a, b), several, c))
	want := []error{a, b, several, c}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("error %d is %v, want %v", i, got[i], want[i])
		}
	}
	if unjoin(nil) != nil {
		t.Error("nil is no error")
	}
}

type multi struct{ errs []error }

func (m *multi) Error() string   { return "multi" }
func (m *multi) Unwrap() []error { return m.errs }

func TestOutside(t *testing.T) {
	for p, want := range map[string]bool{
		"clusters/production": false, "./a": false, "a/../b": false, ".": false,
		"..": true, "../a": true, "a/../../b": true, "/etc": true, "..a": false,
	} {
		if got := outside(p); got != want {
			t.Errorf("outside(%q) is %v", p, got)
		}
	}
}

// What a namespace that is being deleted refuses is answered like a missing
// right, and is none (S4.13).
func TestHintOfForbidden(t *testing.T) {
	r := newRun(Options{}, Sinks{})
	missing := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "a", errors.New("no"))
	if f := r.failure(t.Context(), "plan", nil, missing); f.Reason != "Forbidden" || !strings.HasPrefix(f.Hint, "grant ") {
		t.Errorf("a missing right: %+v", f)
	}
	if f := r.failure(t.Context(), "plan", nil, missing); !strings.Contains(f.Hint, "the account that sluice runs as") {
		t.Errorf("sluice itself lacks a right: %s", f.Hint)
	}
	tenant := &node{Kustomization: &flux.Kustomization{ID: flux.ID{Namespace: "team-a", Name: "apps"}}}
	tenant.Spec.ServiceAccountName = "deployer"
	refused := func(user string) error {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "a", fmt.Errorf("User %q cannot get resource", user))
	}
	// The account to grant it to is the one that the server refused (S4.40).
	if f := r.failure(t.Context(), "plan", tenant, refused("system:serviceaccount:team-a:deployer")); !strings.Contains(f.Hint, "to ServiceAccount team-a/deployer, as which team-a/apps is applied") {
		t.Errorf("the service account lacks a right: %s", f.Hint)
	}
	if f := r.failure(t.Context(), "plan", tenant, refused("ci")); !strings.Contains(f.Hint, "to the account that sluice runs as") {
		t.Errorf("sluice lacks a right for a Kustomization with a service account: %s", f.Hint)
	}
	dying := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "a", errors.New("is being terminated"))
	dying.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	if f := r.failure(t.Context(), "plan", nil, dying); !strings.HasPrefix(f.Hint, "wait ") {
		t.Errorf("a namespace that is being deleted: %+v", f)
	}
}

func TestNames(t *testing.T) {
	for text, want := range map[string]bool{
		"flux-system/apps: not built":                             true,
		"it waits for flux-system/apps":                           true,
		"(flux-system/apps, line 2)":                              true,
		"Secret/flux-system/apps has no key":                      false,
		"flux-system/apps-2 is not ready":                         false,
		"Secret/flux-system/apps is what flux-system/apps names.": true,
		"nothing of it":                                           false,
	} {
		if got := names(text, "flux-system/apps"); got != want {
			t.Errorf("%q: %t, want %t", text, got, want)
		}
	}
}
