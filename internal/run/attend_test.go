package run

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/inventory"
)

// What a stage has after a signal counts from the signal, however late the stage began.
func TestAttendedCountsFromTheSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newTestRun(t, health.Auto, "")
		outside, end := context.WithCancel(t.Context())
		r.outside = outside
		at := time.Now()
		r.stopped.Store(&at)
		end()
		time.Sleep(time.Second)
		free := make(chan struct{})
		_, ended := r.attended(outside, stage{do: func(context.Context) []event.Failure { <-free; return nil }})
		if took := time.Since(at); ended || took != stageLimit {
			t.Errorf("ended: %t, after %s", ended, took)
		}
		close(free)
	})
}

// A stage that was left to itself writes nothing more.
func TestAbandonedMayNotWrite(t *testing.T) {
	r, _ := newTestRun(t, health.Auto, "")
	if err := r.mayWrite(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped{})
	if o := r.abandon(ctx, stage{verdict: event.VerdictFailed}); o.Verdict != event.VerdictCancelled || o.ExitCode != 143 {
		t.Errorf("%+v", o)
	}
	if err := r.mayWrite(); !errors.Is(err, errAbandoned) {
		t.Errorf("got %v", err)
	}
}

// The end of a run begins no write: the grace of a record is for one under way. A store without a client would not survive it.
func TestNothingBeginsAfterTheEnd(t *testing.T) {
	r, _ := newTestRun(t, health.Auto, "one")
	r.state = &inventory.State{Root: &inventory.Root{ID: id("root")}}
	n := r.nodes.get(id("one"))
	n.record = &inventory.Record{ID: n.ID}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped{})
	if failures := r.begin(ctx); len(failures) != 1 || failures[0].Reason != "Cancelled" || r.begun {
		t.Errorf("got %+v", failures)
	}
	for _, r.begun = range []bool{false, true} {
		if err := r.intend(ctx, n); !errors.Is(err, stopped{}) {
			t.Errorf("got %v", err)
		}
	}
	if n.record.Result != "" {
		t.Errorf("the record says %s", n.record.Result)
	}
}
