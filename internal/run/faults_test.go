//go:build unix

package run_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/run"
)

// patience is how long the runs of these tests wait for an answer.
const patience = 5 * time.Second

// trouble is what may happen to a request.
type trouble struct {
	name string
	do   proxy.Action
	// times is 2 where Go's client repeats a GET by itself.
	times int
}

var (
	cutBefore     = trouble{"cut before", proxy.Cut(), 2}
	cutAfter      = trouble{"cut after", proxy.CutAfter(), 2}
	truncated     = trouble{"truncated", proxy.Truncate(20), 1}
	busy          = trouble{"busy", proxy.Answer(http.StatusTooManyRequests, 1), 1}
	internalError = trouble{"internal error", proxy.Answer(http.StatusInternalServerError, 0), 1}
	unavailable   = trouble{"unavailable", proxy.Answer(http.StatusServiceUnavailable, 0), 1}
	conflict      = trouble{"conflict", proxy.Answer(http.StatusConflict, 0), 1}
	noAnswer      = trouble{"no answer", proxy.Hang(), 1}

	troubles = []trouble{cutBefore, cutAfter, truncated, busy, internalError, unavailable, conflict, noAnswer}
)

// troubled is a request that something happens to: the n-th of those that match,
// counted from 1.
type troubled struct {
	name  string
	match func(proxy.Request) bool
	n     int
	from  trouble
}

// suffer goes the next leg while something happens to a request, and then
// again without. It reports whether it happened.
//
// The run itself may end well, and then all must be as if nothing had happened. Or
// it says what went wrong and what to do, and has written nothing if it says so.
// Either way it returns, and frees its lock.
func (j *journey) suffer(at troubled) bool {
	l := j.depart()
	j.Take()
	fault := j.Fail(proxy.Fault{Match: at.match, Skip: at.n - 1, Times: at.from.times, Do: at.from.do})
	e := j.travel(l.command, nil, func(o *run.Options) { o.Cluster.Patience = patience })
	fault.Lift()
	if err := j.AwaitIdle(j.Context()); err != nil {
		j.Fatal(err)
	}
	j.ended(e)
	if leases := j.leasesIn(j.state); len(leases) > 0 {
		j.Errorf("the lock is not free: %+v", leases[0].Spec)
		j.breakLock(true)
	}
	if e.Verdict == goal(l.command) {
		j.arrived(j.look())
	}
	j.again(l)
	if j.Failed() {
		j.Logf("the run with the fault ended %s", e)
		for _, r := range j.Requests() {
			j.Log(r.N, r, r.Code)
		}
	}
	return fault.Hits() > 0
}

// ended holds the end of a run to what is promised of each.
func (j *journey) ended(e ended) {
	last, ok := e.events[len(e.events)-1].(event.RunFinished)
	if !ok || last.Verdict != e.Verdict || last.ExitCode != e.ExitCode {
		j.Errorf("%s: the last event is %+v", e, e.events[len(e.events)-1])
	}
	fold := report.NewFold()
	for _, ev := range e.events {
		fold.Emit(ev)
	}
	var text bytes.Buffer
	var written report.Summary
	if err := report.WriteJSON(&text, fold.Summary()); err != nil {
		j.Error(err)
	} else if err := json.Unmarshal(text.Bytes(), &written); err != nil || !written.Done() || written.ExitCode != e.ExitCode {
		j.Errorf("%s: the report says %+v, %v", e, written, err)
	}
	failures := e.failures()
	if want := map[event.Verdict]int{event.Live: 0, event.VerdictDestroyed: 0, event.VerdictFailed: 1, event.VerdictInvalid: 3,
		event.VerdictRefused: 4, event.VerdictUnhealthy: 5}; want[e.Verdict] != e.ExitCode {
		j.Errorf("the run ended %s", e)
	} else if (e.ExitCode == 0) != (len(failures) == 0) {
		j.Errorf("%s, with %d failures", e, len(failures))
	}
	for _, f := range failures {
		if f.Reason == "" || f.Reason == "InternalError" || f.Text == "" || f.Hint == "" && last.Next == "" {
			j.Errorf("%s: %+v, next %q", e, f, last.Next)
		}
	}
	for _, r := range j.Requests() {
		if e.Verdict == event.VerdictInvalid && r.Writes() && r.Namespace != j.state && r.Name != j.state {
			j.Errorf("%s, but it has sent %s", e, r)
		}
	}
}

// Whatever becomes of any one request, a run or a destroy ends well or says what is
// wrong, and the next one brings everything in order.
//
// Without -run.everywhere it happens to some requests of each kind, on one leg and
// the other in turn.
func TestTroubleAtEachRequest(t *testing.T) {
	for _, way := range []struct {
		name  string
		route route
		some  []troubled
	}{
		{"between two commits", between, []troubled{
			{"taking the lock", proxy.To("create", "leases"), 1, cutAfter},
			{"looking whether the records are as before", toRecord("list", ""), 2, truncated},
			{"telling that the run begins", toRecord("update", "sluice-root."), 1, busy},
			{"noting what is about to be", toRecord("update", "sluice."), 1, cutAfter},
			{"making a record", toRecord("create", ""), 1, internalError},
			{"a dry run", proxy.To("dry-run", ""), 2, noAnswer},
			{"moving an object", toObject("apply", "mover"), 1, unavailable},
			{"changing an object", toObject("apply", "settings"), 1, conflict},
			{"rolling out", toObject("apply", "d"), 1, cutAfter},
			{"watching the roll-out", toObject("watch", ""), 1, truncated},
			{"making an object anew", toObject("apply", remade), 1, cutAfter},
			{"a deletion", pruning, 1, cutAfter},
			{"a record that goes", toRecord("delete", "sluice."), 1, cutAfter},
			{"telling how it ended", toRecord("update", "sluice-root."), 2, conflict},
			{"telling that the next run begins", toRecord("update", "sluice-root."), 1, cutAfter},
			{"looking at what is to be deleted", toObject("get", "fresh"), 1, conflict},
			{"freeing the lock", proxy.To("delete", "leases"), 1, cutBefore},
		}},
		{"first install and destroy", whole, nil},
	} {
		t.Run(way.name, func(t *testing.T) {
			if *everywhere {
				for _, from := range troubles {
					t.Run(from.name, func(t *testing.T) {
						everyone(t, way.route, func(j *journey, n int) bool { return j.suffer(troubled{n: n, from: from}) })
					})
				}
				return
			}
			t.Parallel()
			j := newJourney(t, way.route)
			for _, at := range way.some {
				j.leg(at.name+": "+at.from.name, func() {
					if !j.suffer(at) {
						j.Error("there was no such request")
					}
				})
			}
		})
	}
}
