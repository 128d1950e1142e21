package flux_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluicerun/sluice/internal/flux"
)

// S8.1: the timeout, else the interval less 30 seconds; at least 30 seconds.
func TestS8_1Timeout(t *testing.T) {
	for _, tc := range []struct{ interval, timeout, want time.Duration }{
		{10 * time.Minute, 0, 9*time.Minute + 30*time.Second},
		{time.Minute, 0, 30 * time.Second},
		{10 * time.Second, 0, 30 * time.Second},
		{10 * time.Minute, 5 * time.Second, 30 * time.Second},
		{10 * time.Minute, 3 * time.Minute, 3 * time.Minute},
		{time.Minute, 20 * time.Minute, 20 * time.Minute},
	} {
		k := &flux.Kustomization{}
		k.Spec.Interval = metav1.Duration{Duration: tc.interval}
		if tc.timeout > 0 {
			k.Spec.Timeout = &metav1.Duration{Duration: tc.timeout}
		}
		if got := k.Timeout(); got != tc.want {
			t.Errorf("interval %s, timeout %s: %s, want %s", tc.interval, tc.timeout, got, tc.want)
		}
	}
}
