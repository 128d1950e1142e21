package flux

import (
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// S8.1, S14.8: the timeout of the spec, else the interval less 30 seconds, and never
// less than 30 seconds; as Flux's own type says.
func TestS8_1SameAsFlux(t *testing.T) {
	for _, tc := range []struct{ interval, timeout, want string }{
		{"10m", "", "9m30s"},
		{"5m", "", "4m30s"},
		{"1m", "", "30s"},
		{"45s", "", "30s"},
		{"30s", "", "30s"},
		{"10s", "", "30s"},
		{"61s", "", "31s"},
		{"10m", "5s", "30s"},
		{"10m", "0s", "30s"},
		{"10m", "30s", "30s"},
		{"10m", "31s", "31s"},
		{"1m", "2h", "2h0m0s"},
		{"1h", "1h", "1h0m0s"},
	} {
		k := &Kustomization{}
		k.Spec.Interval.Duration = duration(t, tc.interval)
		if tc.timeout != "" {
			k.Spec.Timeout = &metav1.Duration{Duration: duration(t, tc.timeout)}
		}
		got := k.Timeout()
		if got.String() != tc.want {
			t.Errorf("interval %s, timeout %q: %s, want %s", tc.interval, tc.timeout, got, tc.want)
		}
		if theirs := (kustomizev1.Kustomization{Spec: k.Spec}).GetTimeout(); got != theirs {
			t.Errorf("interval %s, timeout %q: %s, Flux has %s", tc.interval, tc.timeout, got, theirs)
		}
	}
}

// S8.4, S14.10: no retryInterval is none, and not the interval, which a job does
// not have.
func TestS14_10RetryInterval(t *testing.T) {
	k := &Kustomization{}
	k.Spec.Interval.Duration = time.Hour
	if d, set := k.RetryInterval(); set || d != 0 {
		t.Errorf("%s, %t", d, set)
	}
	k.Spec.RetryInterval = &metav1.Duration{Duration: time.Minute}
	if d, set := k.RetryInterval(); !set || d != time.Minute {
		t.Errorf("%s, %t", d, set)
	}
}

// S7.2, S14.20: a dependency without a namespace is of the Kustomization's own, and
// any other can be named.
func TestS7_2Dependencies(t *testing.T) {
	k := &Kustomization{ID: ID{Namespace: "apps", Name: "web"}}
	k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "db"}, {Name: "crds", Namespace: "infra"}, {Name: "web", Namespace: "other"}}
	want := []string{"apps/db", "infra/crds", "other/web"}
	for i, id := range k.Dependencies() {
		if id.String() != want[i] {
			t.Errorf("%d: %s, want %s", i, id, want[i])
		}
	}
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
