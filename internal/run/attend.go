package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/event"
)

// What a run has when it is told to end, counted from the signal on. A CI system
// kills the job a few seconds later. Whatever a stage waits for gives way within
// 2 seconds (the graces of apply, prune, lock and the records), so what has not by
// stageLimit never will: a file system that hangs, or a program that ignores its
// end. Then the run ends without it.
const (
	stageLimit = 2600 * time.Millisecond
	// saveBy is when the records must be saved. leastSave is what is left for that
	// in any case.
	saveBy    = 3400 * time.Millisecond
	leastSave = 500 * time.Millisecond
	// freeing the lock takes a second at most (package lock); the rest of the five
	// seconds is the reports'.
)

// lateLimit is what a stage has after the run's own limit: for a diagnosis, for what
// it waits for to give way, and for a record that it saves then.
const lateLimit = saveLimit + 10*time.Second

// sinceSignal is how long ago a signal ended the run, false if none did.
func (r *run) sinceSignal() (time.Duration, bool) {
	at := r.stopped.Load()
	switch {
	case at != nil:
		return time.Since(*at), true
	case r.outside.Err() != nil: // a moment ago
		return 0, true
	}
	return 0, false
}

// attended runs a stage on a goroutine of its own. It reports false if the stage
// does not end when it should: then it is left to itself, and from then on nothing
// that it shares with the run may be touched but what is safe for concurrent use.
func (r *run) attended(ctx context.Context, s stage) (failures []event.Failure, ended bool) {
	done := make(chan []event.Failure, 1)
	go func() { done <- r.guarded(ctx, s) }()
	stopped, over := r.outside.Done(), ctx.Done()
	var afterSignal, afterLimit <-chan time.Time
	for {
		select {
		case failures := <-done:
			return failures, true
		case <-stopped:
			gone, _ := r.sinceSignal() // it may have come in an earlier stage
			stopped, afterSignal = nil, time.After(max(0, stageLimit-gone))
			continue
		case <-over:
			over, afterLimit = nil, time.After(lateLimit)
			continue
		case <-afterSignal:
		case <-afterLimit:
		}
		select {
		case failures := <-done: // both at once: nothing hangs
			return failures, true
		default:
			return nil, false
		}
	}
}

// abandon ends a run in whose stage something hangs. All records that it began to
// write are whole, and say what they said before. The lock is freed, and before that
// mayWrite begins to refuse: what the stage does yet changes nothing.
func (r *run) abandon(ctx context.Context, s stage) Outcome {
	r.abandoned.Store(true)
	r.release()
	cause := context.Cause(ctx)
	verdict := event.VerdictCancelled
	if _, stopped := cause.(exitCoder); !stopped {
		verdict = s.verdict
		if verdict == event.VerdictRefused {
			verdict = event.VerdictInvalid
		}
	}
	f := interrupted(ctx)
	if f.Reason == "LockLost" {
		verdict = event.VerdictFailed // as verdictOf has it
	}
	f.Text = fmt.Sprintf("%s, and what was under way did not end: it is left to itself", f.Text)
	if f.Hint == "" {
		f.Hint = "look for what hangs: a file system, or a program that the kubeconfig names"
	}
	outcome := Outcome{Verdict: verdict, ExitCode: exitCode(ctx, verdict)}
	const next = "run it again: it goes on from here"
	r.events.close(event.RunFinished{At: now(), Verdict: verdict, ExitCode: outcome.ExitCode, Failures: []event.Failure{f},
		Saved: s.verdict != event.VerdictFailed, Next: next, Duration: time.Since(r.began)})
	return outcome
}

// errSaving ends the saving of records.
var errSaving = errors.New("saving took too long")

// saving returns the context for saving records: it does not end with the run,
// but soon after a signal. A run that was ended does not wait either for a server
// that has asked to be spared, perhaps for minutes.
func (r *run) saving(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() != nil {
		ctx = cluster.Urgent(ctx)
	}
	limited, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), saveLimit, errSaving)
	limited, abort := context.WithCancelCause(limited)
	stop := context.AfterFunc(r.outside, func() {
		gone, _ := r.sinceSignal()
		timer := time.AfterFunc(max(leastSave, saveBy-gone), func() { abort(errSaving) })
		context.AfterFunc(limited, func() { timer.Stop() })
	})
	return limited, func() { stop(); abort(nil); cancel() }
}
