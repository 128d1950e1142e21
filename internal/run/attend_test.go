package run

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/health"
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
