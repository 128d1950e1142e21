package health

import (
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/flux"
)

// S14.6, S6.27: a HelmRelease is ready when its condition Ready is True for its
// newest generation, and neither Reconciling nor Stalled is.
func TestHelmRelease(t *testing.T) {
	const head = "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: a, namespace: ns, generation: 2}\n"
	for _, tt := range []struct{ name, status, want string }{
		{"ready", "{observedGeneration: 2, conditions: [{type: Ready, status: 'True', reason: InstallSucceeded}]}", "Current"},
		{"ready, of an older generation", "{observedGeneration: 1, conditions: [{type: Ready, status: 'True'}]}", "InProgress"},
		{"being installed", "{observedGeneration: 2, conditions: [{type: Reconciling, status: 'True'}, {type: Ready, status: Unknown}]}", "InProgress"},
		{"ready, and being upgraded", "{observedGeneration: 2, conditions: [{type: Reconciling, status: 'True'}, {type: Ready, status: 'True'}]}", "InProgress"},
		{"failed, to be tried again", "{observedGeneration: 2, conditions: [{type: Ready, status: 'False', reason: InstallFailed, message: no chart}]}", "InProgress"},
		{"given up", "{observedGeneration: 2, conditions: [{type: Stalled, status: 'True', message: retries exhausted}, {type: Ready, status: 'False'}]}", "Failed"},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			o := parse(t, head+"status: "+tt.status+"\n")
			if got := evaluate(t.Context(), Target{Ref: flux.RefOf(o)}, o, nil); got.Err != nil || string(got.Status) != tt.want {
				t.Errorf("%s %q (%v), want %s", got.Status, got.Message, got.Err, tt.want)
			}
		})
	}
}
