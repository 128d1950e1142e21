package run

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/safe"
)

const (
	// saveLimit is what saving the records may take.
	saveLimit = 30 * time.Second
	// savers is how many records are saved at once.
	savers = 8
)

// finish saves the records, frees the lock and gives the verdict. It works on a
// context of its own, since the run's may have ended.
func (r *run) finish(ctx context.Context) Outcome {
	nodes := r.sorted()
	if !r.options.Command.writes() {
		nodes = r.inOrder()
	}
	for _, n := range nodes {
		// Nodes that were announced and whose turn never came end here.
		if _, over := r.ends[n.ID]; !over && n.announced {
			r.ends[n.ID] = r.unrun(n)
			r.emit(r.ends[n.ID])
		}
	}
	verdict := r.judge(ctx)
	if r.options.Command == CommandDestroy {
		r.tellEnds(verdict)
	}
	saved := true
	switch lost := r.lockLost(ctx); {
	case r.writing && lost != nil:
		// The records may be another run's by now. They hold all that this
		// one may have left.
		saved = false
		if verdict == event.Live || verdict == event.VerdictDestroyed {
			verdict = event.VerdictFailed
		}
		if !slices.ContainsFunc(r.failures, func(f event.Failure) bool { return f.Reason == "LockLost" }) {
			r.failures = append(r.failures, lockFailure(lost))
		}
	case r.writing:
		detached, cancel := r.saving(ctx)
		defer cancel()
		save := r.save
		if r.options.Command == CommandDestroy {
			save = r.concludeDestroy
		}
		if err := safe.Do(func() error { return save(detached, verdict) }); err != nil {
			saved = false
			r.failures = append(r.failures, r.failuresOf(ctx, "record", nil, err)...)
			if verdict == event.Live || verdict == event.VerdictDestroyed {
				verdict = event.VerdictFailed
			}
		}
	}
	r.release()
	if verdict == event.VerdictUnhealthy {
		// That the limit passed is told with what was waited for then; the
		// cause comes first, and once.
		r.failures = slices.DeleteFunc(r.failures, func(f event.Failure) bool { return f.Reason == "RunTimeout" })
	}
	next := r.next(verdict)
	if limit, late := context.Cause(ctx).(*TimeoutError); late && verdict == event.VerdictUnhealthy {
		next = "if it only needs more time, " + limit.Hint() + "; else " + next
	}
	outcome := Outcome{Verdict: verdict, ExitCode: exitCode(ctx, verdict)}
	switch verdict {
	case event.VerdictPlanned:
		outcome.Plan = r.saved
		if r.options.DetailedExitCode && r.hasChanges() {
			outcome.ExitCode = changesCode
		}
	case event.VerdictValid:
		if r.options.Command == CommandBuild {
			outcome.Built = r.outputs()
		}
	}
	outcome.Status = r.status
	r.events.close(event.RunFinished{At: now(), Verdict: verdict, ExitCode: outcome.ExitCode, Failures: r.failures,
		Pruned: r.cutoff && verdict == event.Live || verdict == r.options.success() && !r.options.Command.writes(), Saved: saved,
		Repeated: r.homes.repeated(), Next: next, Duration: time.Since(r.began)})
	return outcome
}

// judge is the answer to "is this commit live and healthy?": the worst of what
// happened, an end from outside before all others.
func (r *run) judge(ctx context.Context) event.Verdict {
	_, late := context.Cause(ctx).(*TimeoutError)
	if _, stopped := context.Cause(ctx).(exitCoder); ctx.Err() != nil && stopped {
		return event.VerdictCancelled
	}
	if r.verdict != "" && !(late && r.writing) {
		return r.verdict
	}
	if r.verdict != "" && r.options.Command == CommandDestroy {
		return r.verdict
	}
	if !r.options.Command.writes() {
		return r.options.success()
	}
	verdict, cancelled := event.Live, false
	for _, end := range r.ends {
		switch end.Result {
		case event.Failed:
			verdict = worse(verdict, event.VerdictFailed)
		case event.Unhealthy:
			verdict = worse(verdict, event.VerdictUnhealthy)
		case event.NotRun:
			if cause := r.causeOf(end); cause == event.Unhealthy || cause == event.Ready {
				// Ready, but not by the readyExpr of what depends on it.
				verdict = worse(verdict, event.VerdictUnhealthy)
				continue
			}
			verdict = worse(verdict, event.VerdictFailed)
		case event.Cancelled:
			cancelled = true
		}
	}
	switch {
	case verdict == event.Live && (cancelled || r.verdict != ""):
		return event.VerdictFailed // the limit came while something was being applied or pruned
	case cancelled && !late:
		return event.VerdictFailed // stopped after another's failure, or by a lost lock
	}
	return verdict
}

// causeOf returns how the node ended that another was not run for. One that was
// not run itself was kept from it by a gate, and has its own cause.
func (r *run) causeOf(end event.NodeFinished) event.Result {
	for range r.ends { // no chain is longer
		id, err := flux.ParseID(end.BlockedBy)
		other, ok := r.ends[id]
		switch {
		case err != nil || !ok:
			return event.Failed
		case other.Result != event.NotRun:
			return other.Result
		}
		end = other
	}
	return event.Failed
}

// worse orders the verdicts of a run that wrote: a failed apply leaves the
// cluster half changed and is worse than one that is only not healthy.
func worse(a, b event.Verdict) event.Verdict {
	if a == event.VerdictFailed || b == event.VerdictFailed {
		return event.VerdictFailed
	}
	if a == event.VerdictUnhealthy || b == event.VerdictUnhealthy {
		return event.VerdictUnhealthy
	}
	return a
}

// next says what to do now.
func (r *run) next(v event.Verdict) string {
	switch v {
	case event.VerdictFailed, event.VerdictUnhealthy:
		if r.options.Command == CommandDestroy {
			return "put it right and destroy again: it goes on from here"
		}
		if back := r.previous(); back != "" && back != r.commit.Hash {
			return fmt.Sprintf("put it right and push, or go back: sluice run --path %s --revision %s --allow-rollback", r.path, short(back))
		}
		return "put it right and push: the next run goes on from here"
	case event.VerdictInvalid:
		if r.options.Command == CommandStatus {
			return ""
		}
		return "nothing was touched; put it right and run again"
	case event.VerdictCancelled:
		return "run it again: it goes on from here"
	case event.VerdictRefused:
		var hints []string
		for _, f := range r.failures {
			if f.Hint != "" && !slices.Contains(hints, f.Hint) {
				hints = append(hints, f.Hint)
			}
		}
		return strings.Join(hints, "; ")
	}
	return ""
}

// previous is the commit of the last run that ended well.
func (r *run) previous() string {
	if r.state == nil || r.state.Root == nil {
		return ""
	}
	for _, past := range r.state.Root.History {
		if past.Result == inventory.Ready {
			return past.Commit
		}
	}
	return ""
}
