package run

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/schedule"
)

// S7.17: only applying takes one of the places of --concurrency; waiting for
// health, or at a gate, takes none.
func TestS7_17WaitHoldsNoPlace(t *testing.T) {
	r, _ := newTestRun(t, health.Spec, "a wait\nb gate:a")
	for _, name := range []string{"a", "b"} {
		for _, step := range r.steps(r.nodes.get(id(name))) {
			if apply := step.Name == applied(id(name)); step.Slot != apply {
				t.Errorf("%s: takes a place: %t", step.Name, step.Slot)
			}
		}
	}
}

// S8.4, S8.9, S14.10: a failure is tried again after the retryInterval, 10 seconds
// if there is none, as often as --retries says. S8.2, S8.3: an attempt has no limit
// of its own, whatever the spec's timeout is.
func TestS8_9Attempts(t *testing.T) {
	for name, tc := range map[string]struct {
		interval *metav1.Duration
		retries  int
		want     time.Duration // of a failure that lasts
	}{
		"default":        {nil, 2, 20 * time.Second},
		"of the spec":    {&metav1.Duration{Duration: 3 * time.Second}, 2, 6 * time.Second},
		"no other tries": {nil, 0, 0},
		"many":           {&metav1.Duration{Duration: time.Second}, 7, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, events := newTestRun(t, health.Spec, "a")
				r.options.Retries = tc.retries
				n := r.nodes.get(id("a"))
				n.Spec.Interval.Duration = time.Hour
				n.Spec.Timeout = &metav1.Duration{Duration: time.Second}
				n.Spec.RetryInterval = tc.interval
				began, tries := time.Now(), 0
				err := r.attempt(t.Context(), n, func(ctx context.Context) error {
					if _, limited := ctx.Deadline(); limited {
						t.Error("an attempt has a limit")
					}
					tries++
					return errors.New("no")
				})
				if err == nil || tries != tc.retries+1 || time.Since(began) != tc.want {
					t.Errorf("%v after %d tries and %s", err, tries, time.Since(began))
				}
				again := 0
				for _, e := range events.events {
					if _, ok := e.(event.NodeRetrying); ok {
						again++
					}
				}
				if again != tc.retries {
					t.Errorf("told %d times", again)
				}
			})
		})
	}
	// What cannot end otherwise is not tried again: what is invalid, a limit that
	// has passed, and what the run's own limit would cut off.
	for name, tc := range map[string]struct {
		err   error
		limit time.Duration
	}{
		"invalid":          {&failed{[]event.Failure{{Text: "invalid"}}}, time.Hour},
		"timed out":        {&health.NotReadyError{TimedOut: true}, time.Hour},
		"no time for it":   {errors.New("no"), 5 * time.Second},
		"told to stop":     {context.Canceled, -1},
		"of a failed step": {&failed{[]event.Failure{{Text: "a"}, {Text: "b"}}}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _ := newTestRun(t, health.Spec, "a")
				r.options.Retries = 5
				ctx, cancel := context.WithTimeout(t.Context(), tc.limit)
				defer cancel()
				tries := 0
				if err := r.attempt(ctx, r.nodes.get(id("a")), func(context.Context) error { tries++; return tc.err }); err == nil || tries != 1 {
					t.Errorf("%v after %d tries", err, tries)
				}
			})
		})
	}
}

// What a gate says at each moment of its dependency, and of whom the failure is
// (S7.7).
func TestS7_7Gate(t *testing.T) {
	type moment struct {
		do   func(r *run, dep *node)
		want bool
	}
	const revision = "main@sha1:1"
	applied := func(r *run, dep *node) { dep.live.Applied(revision, nil, true) }
	failed := func(_ *run, dep *node) { dep.live.Failed("HealthCheckFailed", "no") }
	over := func(result event.Result) func(*run, *node) {
		return func(r *run, dep *node) {
			end := event.NodeFinished{Node: dep.ID.String(), Result: result}
			r.ends[dep.ID] = end
			r.show(dep, end, nil)
		}
	}
	started := func(_ *run, dep *node) { dep.live.Started(revision) }
	for name, tc := range map[string]struct {
		expr    string
		moments []moment
		shut    string // of the last moment
	}{
		"true at once, but not asked before the dependency is applied": {"true", []moment{{started, false}, {applied, true}}, ""},
		"true when ready": {"dep.status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')",
			[]moment{{started, false}, {applied, false}, {failed, false}, {started, false}, {applied, false}, {over(event.Ready), true}}, ""},
		"true after a failed attempt": {"dep.status.conditions.exists(c, c.type == 'Ready' && c.status == 'False')",
			[]moment{{started, false}, {applied, false}, {failed, true}}, ""},
		"true after the failure": {"dep.status.conditions.exists(c, c.reason == 'HealthCheckFailed')",
			[]moment{{applied, false}, {over(event.Unhealthy), true}}, ""},
		"true of one that was not run": {"dep.status.conditions.exists(c, c.reason == 'DependencyNotReady')",
			[]moment{{over(event.NotRun), true}}, ""},
		"a missing field may come": {"dep.status.lastAppliedRevision == 'main@sha1:1'",
			[]moment{{started, false}, {applied, false}, {over(event.Ready), false}}, "no such key: lastAppliedRevision"},
		"never true": {"dep.spec.prune == true", []moment{{applied, false}, {over(event.Failed), false}}, "whose readyExpr is false: dep.spec.prune == true"},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := newTestRun(t, health.Spec, "dep\nself gate:dep")
			dep, self := r.nodes.get(id("dep")), r.nodes.get(id("self"))
			self.Spec.DependsOn[0].ReadyExpr = tc.expr
			if failures := r.readSpec(t.Context(), self); len(failures) > 0 {
				t.Fatal(failures)
			}
			dep.revision = ""
			if tc.shut == "" {
				dep.revision = revision
			}
			step := r.gateSteps(self, r.needsOf(self).gates)[0]
			if open, err := step.Open(t.Context(), false); open || err != nil {
				t.Fatalf("before anything: %t, %v", open, err)
			}
			var err error
			for i, m := range tc.moments {
				m.do(r, dep)
				var open bool
				if open, err = step.Open(t.Context(), false); open != m.want {
					t.Fatalf("moment %d: %t, %v; %s", i, open, err, dep.live.State())
				}
			}
			if tc.shut == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			shut, ok := as[*shutError](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			// The end of the gate is the end of its dependent.
			r.ended(schedule.Result{Name: step.Name, State: schedule.Failed, Err: shut})
			r.ended(schedule.Result{Name: "applied ns/self", State: schedule.Skipped, Cause: step.Name})
			end := r.ends[self.ID]
			if end.Result != event.NotRun || end.BlockedBy != "ns/dep" || len(end.Failures) != 1 || end.Failures[0].Reason != "DependencyNotReady" {
				t.Errorf("%+v", end)
			}
		})
	}
}
