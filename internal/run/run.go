// Package run is one run for one commit: the whole pipeline, from the commit
// to the verdict. It is the file to read first.
//
// Everything before the first write is the same for every command and writes
// nothing: open the repository, build all Kustomizations, check the graph,
// look at the cluster, plan. Then the lock is taken, the intended inventory is
// stored, and the graph runs; pruning comes after the last gate. A command that
// wants less stops earlier.
//
// The package makes all events and prints nothing. Nothing in it outlives a call
// of Run, and calls share nothing.
//
// command.go lists the stages of each command. One file for each stage: root.go
// and grow.go find and build (cached.go: what an earlier run has built; sources.go and variables.go: what a build needs),
// order.go checks the graph (gates.go: the dependencies that an expression
// decides on), recall.go looks at the clusters (homes.go and kubeconfig.go: those
// that objects live in) and at what is remembered (renamed.go: under another name
// of the root), plan.go plans (preview.go: what a plan tells), prune.go guards and
// prunes, approved.go saves a plan and holds a run to it, lock.go locks, deploy.go runs the graph (turn.go: how a node's turn ends;
// late.go: nodes that are built at theirs), finish.go gives the verdict, attend.go and limit.go see to it that a run which is to end does.
// records.go is the life of a record through all of them. status.go (live.go,
// orphans.go, drift.go: what it finds in the cluster), repair.go and destroy.go are
// the stages of the two commands that are about no commit, and recorded.go what
// these have in common.
package run

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/cache"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/planfile"
	"github.com/sluicerun/sluice/internal/prune"
	"github.com/sluicerun/sluice/internal/safe"
	"github.com/sluicerun/sluice/internal/source"
)

// Run brings one commit into a cluster, or goes as far towards that as
// Options.Command wants, and says how it ended. It always
// returns, at the latest after Options.Timeout and lateLimit; every fact
// goes to the sink as it becomes known. When ctx ends, nothing new is started,
// what is in flight is finished, records and lock are put in order on a short
// time of their own, and the verdict is VerdictCancelled; attend.go has the times.
// A stage that hangs is left behind, which is the one thing that outlives a call.
func Run(ctx context.Context, o Options, s Sinks) Outcome {
	r := newRun(o, s)
	r.outside = ctx
	defer context.AfterFunc(ctx, func() { at := time.Now(); r.stopped.Store(&at) })()
	limited, cancel := context.WithTimeoutCause(ctx, o.Timeout, &TimeoutError{Limit: o.Timeout, Job: o.Job})
	defer cancel()
	limited, r.abort = context.WithCancelCause(limited)
	defer r.abort(nil)
	r.atEnd = limited.Done()
	r.emit(event.RunStarted{At: now(), Command: string(r.options.Command), DryRun: r.options.DryRun, Version: o.Version, Repo: r.options.Source.Repo, Path: o.Path, RunURL: o.RunURL, Actor: o.Actor})
	r.tellJobLimit()

	for _, stage := range r.stages() {
		failures, ended := r.attended(limited, stage)
		if !ended {
			return r.abandon(limited, stage)
		}
		if len(failures) > 0 {
			r.stop(verdictOf(stage, failures), failures)
			break
		}
		if r.idle {
			break // there is nothing to do
		}
	}
	defer r.close()
	return r.finish(limited)
}

// stage is one step of the pipeline. Its failures end the run with the verdict,
// unless they say otherwise themselves.
type stage struct {
	do      func(context.Context) []event.Failure
	verdict event.Verdict
}

// verdictOf is the stage's verdict, except that a guard which could not look at
// what it guards has refused nothing: the run is impossible, and would be again.
func verdictOf(s stage, failures []event.Failure) event.Verdict {
	if s.verdict != event.VerdictRefused {
		return s.verdict
	}
	for _, f := range failures {
		if f.Reason == "LockLost" {
			return event.VerdictFailed // it had the lock, and may have written
		}
	}
	for _, f := range failures {
		if f.Phase != "guard" && f.Phase != "lock" || f.Reason == "LockFailed" || f.Reason == "Forbidden" {
			return event.VerdictInvalid
		}
	}
	return event.VerdictRefused
}

// guarded runs a stage; a panic in it ends the run in good order.
func (r *run) guarded(ctx context.Context, s stage) (failures []event.Failure) {
	var err error
	defer func() {
		if err != nil {
			failures = append(failures, r.failure(ctx, "run", nil, err))
		}
	}()
	defer safe.Recover(&err)
	return s.do(ctx)
}

// run is the state of one Run. Stages hand results on through it: each part is
// filled by the stages beside it and read by those that come after. What the
// steps of deploy share says for itself what guards it.
type run struct {
	options Options
	sinks   Sinks
	events  emitter
	began   time.Time

	commit     *source.Commit  // open
	tree       fs.FS           // open: the commit as the artifact of a source without spec.ignore
	cache      *cache.Folder   // build: of builds; nil for none
	path       string          // build: the entry folder
	grown                      // build; deploy, for nodes that are built at their turn
	order      []flux.ID       // check: the Kustomizations, each after what it needs
	refusals   []event.Failure // recall: those of a plan, which is made all the same
	findings   *prune.Findings // guard: what pruning would do
	strays     strays          // plan: what the lists brought that is not in this commit
	saved      *planfile.File  // keep: the plan, if it is to be saved
	reached                    // reach; build, if it needs something of the cluster
	homes      homes           // the clusters that objects live in: reach, recall; deploy, for nodes that are built at their turn
	remembered                 // recall, lock
	looking                    // status
	destroying                 // destroy
	working                    // deploy, prune

	// outside is the context that Run was given, which a signal ends, and
	// stopped when that was. The stages get one that also ends at the run's
	// limit, and by abort, for a lock that was lost.
	outside context.Context
	stopped atomic.Pointer[time.Time]
	abort   context.CancelCauseFunc
	// atEnd is closed at the end of the context that the stages get.
	atEnd <-chan struct{}

	verdict  event.Verdict // empty until something ended the run
	failures []event.Failure
}

func newRun(o Options, s Sinks) *run {
	if o.Command == "" {
		o.Command = CommandRun
	}
	r := &run{options: o, sinks: s, events: emitter{sink: s.Events}, began: time.Now()}
	r.grown.init()
	r.homes.init()
	r.working.init()
	return r
}

func (r *run) emit(e event.Event) { r.events.send(e) }

// stop notes the verdict of a run that cannot go on.
func (r *run) stop(v event.Verdict, failures []event.Failure) {
	r.verdict = v
	r.failures = append(r.failures, failures...)
}

// close frees what the run holds in this process.
func (r *run) close() {
	for _, c := range r.served {
		_ = c.Close() // reading is over; there is nothing to lose
	}
	if r.commit != nil {
		_ = r.commit.Close()
	}
	r.homes.closeAll()
}

// open opens the repository.
func (r *run) open(ctx context.Context) []event.Failure {
	if r.options.CacheDir == "" { // with a cache, there may be nothing left to build
		build.Warm()
	}
	commit, err := source.Open(ctx, r.options.Source)
	if err != nil {
		return []event.Failure{r.failure(ctx, "source", nil, err)}
	}
	r.commit = commit
	if r.tree, err = commit.Artifact(nil); err != nil {
		return []event.Failure{r.failure(ctx, "source", nil, err)}
	}
	if len(commit.Dirty) > 0 {
		r.notice(event.Notice{Level: event.Warning, Code: "uncommitted", File: commit.Dirty[0],
			Text: fmt.Sprintf("%s not committed and therefore not part of this run: %s", count(len(commit.Dirty), "change is", "changes are"), list(commit.Dirty, 5))})
	}
	return nil
}

// build finds and builds everything.
func (r *run) build(ctx context.Context) []event.Failure {
	r.openCache()
	failures := r.grow(ctx)
	r.tidyCache()
	if r.path != "" {
		r.emit(event.SourceOpened{At: now(), URL: r.commit.URL, Revision: r.commit.Revision, Commit: r.commit.Hash,
			Subject: r.commit.Subject, Author: r.commit.Author, Authored: r.commit.Time, Path: r.path})
	}
	for _, n := range r.sorted() {
		r.announce(n)
	}
	r.dropped(r.commit, "")
	for _, place := range slices.Sorted(maps.Keys(r.served)) {
		r.dropped(r.served[place], "--source …="+place+": ")
	}
	// The graph's faults and the cluster's belong to the same list: a
	// user wants to see all that is wrong at once.
	if len(failures) > 0 {
		failures = append(failures, r.check(ctx)...)
		failures = append(failures, r.readable(ctx)...)
	}
	return failures
}

// dropped tells what of a commit does not count. What was asked for by its name
// and is ignored is worth a warning: somebody expects it to be there.
func (r *run) dropped(c *source.Commit, prefix string) {
	for _, d := range c.Dropped() {
		n := event.Notice{Level: event.Info, Code: "source-" + d.Kind, File: d.Path, Text: fmt.Sprintf("%s%s: %s", prefix, d.Path, d.Reason)}
		if d.Kind == "ignored" {
			n.Level, n.Hint = event.Warning, "to have it, end the patterns with the line !/"+d.Path+" (docs/kustomizations.md)"
		}
		r.notice(n)
	}
}
