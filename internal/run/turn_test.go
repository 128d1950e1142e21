package run

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/graph"
	"github.com/sluicerun/sluice/internal/health"
)

func TestTurn(t *testing.T) {
	stuck := &health.NotReadyError{Statuses: []health.Status{{Ref: flux.Ref{Kind: "ConfigMap", Namespace: "ns", Name: "c"}}}}
	for _, tc := range []struct {
		name string
		err  error
		end  error // the cause of the context's end
		want event.Result
	}{
		{name: "suspended", err: errSuspended, want: event.Suspended},
		{name: "failed", err: errors.New("no"), want: event.Failed},
		{name: "not healthy", err: stuck, want: event.Unhealthy},
		{name: "a stage of the apply that does not become ready", err: fmt.Errorf("stage: %w", stuck), want: event.Failed},
		{name: "told to stop", err: fmt.Errorf("wait: %w", stopped{}), end: stopped{}, want: event.Cancelled},
		{name: "told to stop, by the library's word for it", err: fmt.Errorf("get: %w", context.Canceled), end: stopped{}, want: event.Cancelled},
		{name: "failed for itself before it was told to stop", err: errors.New("no"), end: stopped{}, want: event.Failed},
		{name: "not healthy at the run's limit", err: stuck, end: &TimeoutError{Limit: time.Minute}, want: event.Unhealthy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := newTestRun(t, health.Spec, "app")
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if tc.end != nil {
				cancel(tc.end)
			}
			told, ok := as[*ending](r.turn(ctx, r.nodes.get(id("app")), func(context.Context) error { return tc.err }))
			if !ok || told.result != tc.want {
				t.Fatalf("ends as %+v, want %s", told, tc.want)
			}
			explained := tc.want == event.Failed || tc.want == event.Unhealthy
			if explained != (len(told.failures) > 0) {
				t.Errorf("failures: %+v", told.failures)
			}
		})
	}
	r, _ := newTestRun(t, health.Spec, "app")
	if err := r.turn(t.Context(), r.nodes.get(id("app")), func(context.Context) error { return nil }); err != nil {
		t.Errorf("success ends in %v", err)
	}
	told, _ := as[*ending](r.turn(t.Context(), r.nodes.get(id("app")), func(context.Context) error { panic("at the disco") }))
	if told == nil || told.result != event.Failed || told.failures[0].Reason != "InternalError" {
		t.Errorf("a panic ends as %+v", told)
	}
}

// What a step adds may not fit; that is told in terms of Kustomizations.
func TestUnfit(t *testing.T) {
	r, _ := newTestRun(t, health.Spec, "a\nb")
	n := r.nodes.get(id("a"))
	_, err := graph.New([]graph.Vertex{{Name: applied(id("a")), Needs: []string{ready(id("b"))}}, {Name: ready(id("b")), Needs: []string{applied(id("a"))}}})
	if got := r.unfit(n, err); len(got) != 1 || got[0].Text != "cycle: ns/a → ns/b → ns/a" {
		t.Errorf("got %+v", got)
	}
	if got := r.unfit(n, errors.New("has started")); len(got) != 1 || got[0].Reason != "InvalidGraph" {
		t.Errorf("got %+v", got)
	}
}
