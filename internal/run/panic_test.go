//go:build unix

package run_test

import (
	"reflect"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
	"github.com/sluicerun/sluice/internal/run"
)

// A panic on whatever goroutine of a run ends it in good order: exit code 1 or 3,
// a failure that says what it is, records that know all that is in the cluster,
// and no lock left behind. The next run goes on from there.
func TestPanics(t *testing.T) {
	for name, test := range map[string]struct {
		at       func(event.Event) bool
		verdict  event.Verdict
		exitCode int
	}{
		// On the goroutine of the stages.
		"while building": {func(e event.Event) bool { return is[event.NodeFound](e) }, event.VerdictInvalid, 3},
		"in the guards":  {func(e event.Event) bool { return is[event.Planned](e) }, event.VerdictInvalid, 3},
		"before pruning": {func(e event.Event) bool { return is[event.PruneStarted](e) }, event.VerdictFailed, 1},
		// On that of a step.
		"at a turn": {func(e event.Event) bool { return is[event.NodeStarted](e) }, event.VerdictFailed, 1},
		// On that of an object that is being applied.
		"while applying": {func(e event.Event) bool { return is[event.ObjectApplied](e) }, event.VerdictFailed, 1},
		// On that of the scheduler, while another step works.
		"at the end of a turn": {func(e event.Event) bool { return is[event.NodeFinished](e) }, event.VerdictFailed, 1},
		// While waiting for health.
		"while waiting": {func(e event.Event) bool { return is[event.ObjectHealth](e) }, event.VerdictFailed, 1},
		// On that of a deletion.
		"while pruning": {func(e event.Event) bool { return is[event.ObjectPruned](e) }, event.VerdictFailed, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, map[string]string{"a.yaml": configMapA})
			if e := w.do(run.CommandRun, nil); e.Verdict != event.Live {
				t.Fatal(e)
			}
			w.commit(map[string]string{"a.yaml": "", "b.yaml": configMapB, "d.yaml": deployment})
			var once atomic.Bool
			e := w.do(run.CommandRun, func(ev event.Event) {
				if test.at(ev) && once.CompareAndSwap(false, true) {
					panic("injected")
				}
			})
			if e.Verdict != test.verdict || e.ExitCode != test.exitCode {
				t.Errorf("%s, want %s (%d)", e, test.verdict, test.exitCode)
			}
			if !slices.ContainsFunc(e.failures(), func(f event.Failure) bool {
				return f.Reason == "InternalError" && f.Text != "" && f.Hint != ""
			}) {
				t.Errorf("no failure says what happened: %s", e)
			}
			if !is[event.RunFinished](e.events[len(e.events)-1]) {
				t.Error("the run has no end")
			}
			if held := w.leases(); len(held) > 0 {
				t.Errorf("the lock is still held: %+v", held)
			}
			if e := w.do(run.CommandRun, nil); e.Verdict != event.Live {
				t.Errorf("the next run: %s", e)
			}
			if names, _ := w.configMaps(); !reflect.DeepEqual(names, []string{"b"}) {
				t.Errorf("in the end there is %v", names)
			}
		})
	}
}

// The same for a panic in whatever sends the n-th request, for each n until the
// run sends fewer.
func TestPanicsAtEachRequest(t *testing.T) {
	w := newWorld(t, map[string]string{"a.yaml": configMapA, "d.yaml": deployment})
	if e := w.do(run.CommandRun, nil); e.Verdict != event.Live {
		t.Fatal(e)
	}
	explosive := func(o *run.Options) { o.Cluster.Warning = func(string) { panic("injected") } }
	contents := []map[string]string{{"a.yaml": configMapA, "b.yaml": ""}, {"a.yaml": "", "b.yaml": configMapB}}
	for n := 1; ; n++ {
		w.commit(contents[n%2])
		w.Take()
		fault := w.Fail(proxy.Nth(n, proxy.Warn("boom")))
		e := w.do(run.CommandRun, nil, explosive)
		fault.Lift()
		if fault.Hits() == 0 {
			t.Logf("a panic at each of %d requests", n-1)
			if e.Verdict != event.Live || n < 15 {
				t.Errorf("%d requests: %s", n-1, e)
			}
			return
		}
		// The one that takes the lock is the exception: nobody knows then that it is held, and it frees itself after seconds.
		struck := w.Requests()[n-1]
		if held := w.leases(); len(held) > 0 && !(struck.Verb == "create" && struck.Resource == "leases") {
			t.Errorf("request %d: %s\nthe lock is still held: %+v", n, e, held)
		}
		if !is[event.RunFinished](e.events[len(e.events)-1]) {
			t.Errorf("request %d: the run has no end", n)
		}
		if e.Verdict != event.Live && !slices.ContainsFunc(e.failures(), func(f event.Failure) bool { return f.Reason == "InternalError" }) {
			t.Errorf("request %d: %s", n, e)
		}
		if e := w.do(run.CommandRun, nil); e.Verdict != event.Live {
			t.Fatalf("request %d: the next run: %s", n, e)
		}
	}
}

func is[T event.Event](e event.Event) bool {
	_, ok := e.(T)
	return ok
}
