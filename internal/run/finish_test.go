package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/lock"
	"github.com/sluicerun/sluice/internal/schedule"
)

// stopped is the cause of a context that a signal ended.
type stopped struct{}

func (stopped) Error() string { return "stopped by SIGTERM" }
func (stopped) ExitCode() int { return 143 }

func TestJudge(t *testing.T) {
	limit := &TimeoutError{Limit: time.Minute}
	for _, tc := range []struct {
		name  string
		ends  string // "result…", NotRun as "not-run:INDEX" of its cause
		stop  event.Verdict
		cause error
		early bool // nothing was written
		want  event.Verdict
		code  int
	}{
		{name: "all ready", ends: "ready ready", want: event.Live},
		{name: "suspended and left out do not count", ends: "ready suspended excluded", want: event.Live},
		{name: "one failed", ends: "ready failed", want: event.VerdictFailed, code: 1},
		{name: "one not healthy", ends: "ready unhealthy", want: event.VerdictUnhealthy, code: 5},
		{name: "failed is worse than not healthy", ends: "unhealthy failed", want: event.VerdictFailed, code: 1},
		{name: "whichever comes first", ends: "failed unhealthy", want: event.VerdictFailed, code: 1},
		{name: "not run because of one that is not healthy", ends: "unhealthy not-run:0", want: event.VerdictUnhealthy, code: 5},
		{name: "not run because of one that failed", ends: "failed not-run:0", want: event.VerdictFailed, code: 1},
		{name: "not run because of a suspended one (S7.13)", ends: "suspended not-run:0", want: event.VerdictFailed, code: 1},
		{name: "not run because of a readyExpr that is false of one that is ready (S7.7)", ends: "ready not-run:0", want: event.VerdictUnhealthy, code: 5},
		{name: "and what depends on that", ends: "ready not-run:0 not-run:1", want: event.VerdictUnhealthy, code: 5},
		{name: "not run because of one that was not run for a failure", ends: "failed not-run:0 not-run:1", want: event.VerdictFailed, code: 1},
		{name: "a signal is before all others", ends: "failed cancelled", stop: event.VerdictFailed, cause: stopped{}, want: event.VerdictCancelled, code: 143},
		{name: "also before the first write", stop: event.VerdictInvalid, cause: stopped{}, early: true, want: event.VerdictCancelled, code: 143},
		{name: "the limit while waiting", ends: "unhealthy cancelled", stop: event.VerdictFailed, cause: limit, want: event.VerdictUnhealthy, code: 5},
		{name: "the limit while applying", ends: "ready cancelled", stop: event.VerdictFailed, cause: limit, want: event.VerdictFailed, code: 1},
		{name: "the limit while pruning", ends: "ready ready", stop: event.VerdictFailed, cause: limit, want: event.VerdictFailed, code: 1},
		{name: "the limit before the first write", stop: event.VerdictInvalid, cause: limit, early: true, want: event.VerdictInvalid, code: 3},
		{name: "the limit when all was done", ends: "ready", cause: limit, want: event.Live},
		{name: "a lost lock", ends: "ready cancelled", stop: event.VerdictFailed, cause: &lock.LostError{}, want: event.VerdictFailed, code: 1},
		{name: "stopped after a failure of health", ends: "unhealthy cancelled", want: event.VerdictFailed, code: 1},
		{name: "pruning failed", ends: "ready", stop: event.VerdictFailed, want: event.VerdictFailed, code: 1},
		{name: "invalid", stop: event.VerdictInvalid, early: true, want: event.VerdictInvalid, code: 3},
		{name: "refused", stop: event.VerdictRefused, early: true, want: event.VerdictRefused, code: 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := newTestRun(t, health.Auto, "")
			r.verdict, r.writing = tc.stop, !tc.early
			for i, word := range strings.Fields(tc.ends) {
				result, by, _ := strings.Cut(word, ":")
				end := event.NodeFinished{Result: event.Result(result)}
				if by != "" {
					end.BlockedBy = "ns/" + by
				}
				r.ends[id(fmt.Sprint(i))] = end
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if tc.cause != nil {
				cancel(tc.cause)
			}
			got := r.judge(ctx)
			if got != tc.want {
				t.Errorf("verdict %s, want %s", got, tc.want)
			}
			if code := exitCode(ctx, got); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
		})
	}
}

// A guard that could not look has refused nothing.
func TestVerdictOf(t *testing.T) {
	guard, wrong := event.Failure{Phase: "guard", Reason: "MaxPrune"}, event.Failure{Phase: "guard", Reason: "Forbidden"}
	for _, tc := range []struct {
		stage    event.Verdict
		failures []event.Failure
		want     event.Verdict
	}{
		{event.VerdictInvalid, []event.Failure{guard}, event.VerdictInvalid},
		{event.VerdictFailed, []event.Failure{guard}, event.VerdictFailed},
		{event.VerdictRefused, []event.Failure{guard}, event.VerdictRefused},
		{event.VerdictRefused, []event.Failure{{Phase: "lock", Reason: "LockHeld"}}, event.VerdictRefused},
		{event.VerdictRefused, []event.Failure{{Phase: "lock", Reason: "LockFailed"}}, event.VerdictInvalid},
		{event.VerdictRefused, []event.Failure{{Phase: "lock", Reason: "LockLost"}}, event.VerdictFailed},
		{event.VerdictRefused, []event.Failure{guard, wrong}, event.VerdictInvalid},
		{event.VerdictRefused, []event.Failure{{Phase: "record", Reason: "RecordFailed"}}, event.VerdictInvalid},
	} {
		if got := verdictOf(stage{verdict: tc.stage}, tc.failures); got != tc.want {
			t.Errorf("%s with %v: %s, want %s", tc.stage, tc.failures, got, tc.want)
		}
	}
}

// A graph with many ways through it is settled in one pass over its edges.
func TestSettled(t *testing.T) {
	var lines strings.Builder
	const layers, width = 12, 8
	for layer := range layers {
		for i := range width {
			fmt.Fprintf(&lines, "n%d-%d", layer, i)
			for j := range width {
				if layer > 0 {
					fmt.Fprintf(&lines, " needs:n%d-%d", layer-1, j)
				}
			}
			lines.WriteString("\n")
		}
	}
	lines.WriteString("alone\nbefore-out\nout excluded needs:before-out\nbefore-held\nheld suspended needs:before-held\n")
	r, _ := newTestRun(t, health.Spec, lines.String())
	for _, n := range r.sorted() {
		r.ends[n.ID] = event.NodeFinished{Result: event.Ready}
	}
	r.ends[id("out")] = event.NodeFinished{Result: event.Excluded}
	r.ends[id("held")] = event.NodeFinished{Result: event.Suspended}
	want := []string{"alone", "before-held", "before-out"}
	if got := settledNames(r); len(got) != layers*width+len(want) {
		t.Errorf("%d are settled, want all that are ready", len(got))
	}
	r.ends[id("n11-0")] = event.NodeFinished{Result: event.Failed}
	got := slices.DeleteFunc(settledNames(r), func(name string) bool { return strings.HasPrefix(name, "n11-") })
	if !slices.Equal(got, want) {
		t.Errorf("settled are %v, want %v: what the failed one needs may still be in use", got, want)
	}
}

func settledNames(r *run) []string {
	var names []string
	for id, ok := range r.settled() {
		if ok {
			names = append(names, id.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Every node that was announced ends in exactly one NodeFinished, whichever
// way its steps end, and none that was not does.
func TestEveryAnnouncedNodeEnds(t *testing.T) {
	r, events := newTestRun(t, health.Spec, "failing\nafter needs:failing\nwaiting\nheld suspended\nout excluded needs:failing\nparent\nchild in:failing\nquiet in:failing")
	for _, n := range r.sorted() {
		if n.Name != "quiet" {
			r.announce(n)
		}
	}
	r.writing = true
	broken := &ending{result: event.Failed, failures: []event.Failure{{Text: "broken"}}, err: errors.New("broken")}
	for _, result := range []schedule.Result{
		{Name: applied(id("failing")), State: schedule.Failed, Err: broken},
		{Name: ready(id("failing")), State: schedule.Skipped, Cause: applied(id("failing"))},
		{Name: applied(id("after")), State: schedule.Skipped, Cause: applied(id("failing"))},
		{Name: ready(id("after")), State: schedule.Skipped, Cause: applied(id("failing"))},
		{Name: applied(id("waiting")), State: schedule.Succeeded},
		{Name: ready(id("waiting")), State: schedule.Succeeded},
		{Name: applied(id("held")), State: schedule.Failed, Err: &ending{result: event.Suspended, err: errSuspended}},
		{Name: applied(id("out")), State: schedule.Succeeded},
		{Name: ready(id("out")), State: schedule.Succeeded},
		{Name: applied(id("parent")), State: schedule.Succeeded},
		{Name: ready(id("parent")), State: schedule.Skipped, Cause: applied(id("failing"))},
	} {
		r.ended(result)
	}
	for _, n := range r.sorted() {
		if _, over := r.ends[n.ID]; !over && n.announced {
			r.ends[n.ID] = r.unrun(n)
			r.emit(r.ends[n.ID])
		}
	}
	got := map[string]string{}
	for _, e := range events.events {
		if end, ok := e.(event.NodeFinished); ok {
			if got[end.Node] != "" {
				t.Errorf("%s ended twice", end.Node)
			}
			got[end.Node] = strings.TrimSpace(string(end.Result) + " " + end.BlockedBy)
		}
	}
	want := map[string]string{
		"ns/failing": "failed", "ns/after": "not-run ns/failing", "ns/waiting": "ready", "ns/held": "suspended", "ns/out": "excluded",
		"ns/parent": "unhealthy ns/failing", "ns/child": "not-run ns/failing",
	}
	for name, result := range want {
		if got[name] != result {
			t.Errorf("%s: %q, want %q", name, got[name], result)
		}
	}
	if len(got) != len(want) {
		t.Errorf("ended: %v", got)
	}
}

func TestInParallel(t *testing.T) {
	var all []func() error
	for i := range 20 {
		all = append(all, func() error {
			if i%7 == 0 {
				return fmt.Errorf("%d", i)
			}
			return nil
		})
	}
	if got := errors.Join(inParallel(3, all)...).Error(); got != "0\n7\n14" {
		t.Errorf("got %q", got)
	}
}
