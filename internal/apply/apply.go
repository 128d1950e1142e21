package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/jsondiff"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/retry"
	"github.com/sluicerun/sluice/internal/safe"
)

// Action is what was done to an object, in Flux's words (S4.45).
type Action string

// The actions.
const (
	Created    Action = "created"
	Configured Action = "configured"
	// Recreated: deleted and made again, by force.
	Recreated Action = "recreated"
	Unchanged Action = "unchanged"
	Skipped   Action = "skipped"
)

// Result is what became of one object.
type Result struct {
	Object flux.Object
	// Ref is the object as the cluster has it, which is what belongs in the
	// inventory: for skipped objects that of the live one, if there is one
	// (S4.26), and without a namespace for a cluster-scoped object whose
	// manifest has one (S2.23).
	Ref flux.Ref
	// Action is empty if Err is set.
	Action Action
	// Reason explains Skipped and Recreated.
	Reason string
	// Version is the resource version as of which the object is as Action
	// says: the one written, or that of the object which was found to be so.
	// Empty if there is no object.
	Version string
	// Err is an [*ObjectError].
	Err error
}

// grace is how long a write that was under way when the context ended may
// still take. A run that is told to stop has five seconds.
const grace = 2 * time.Second

// objectRetry is for failures that a new reading of the object cures: another
// writer was faster, a kind was defined or a right was given a moment ago and
// not every part of the API server knows yet.
var objectRetry = retry.Policy{Attempts: 5, Base: 200 * time.Millisecond, Factor: 2, Jitter: 0.25}

// Apply applies objects, which must be normalised and carry their owner
// labels, with the given client.
//
// The results are in apply order. When Apply fails they are those of the
// objects that were dealt with; objects whose turn did not come have none. The
// error is of type [Errors] if objects failed, the context's cause if it ended
// before all were done, else that of the wait after a stage.
//
// When ctx ends nothing new is started, and a write that is under way may take
// another two seconds.
func Apply(ctx context.Context, c client.WithWatch, objects []flux.Object, o Options) ([]Result, error) {
	if o.Concurrency < 1 {
		o.Concurrency = defaultConcurrency
	}
	if o.RecreateTimeout <= 0 {
		o.RecreateTimeout = defaultRecreateTimeout
	}
	if _, err := jsondiff.CompileIgnoreRules(o.Ignore); err != nil {
		return nil, fmt.Errorf("spec.ignore cannot be used: %w", err)
	}
	r := &runner{client: c, options: o, ssa: o.SSA()}
	for _, s := range stages(objects, o.CustomStageKinds) {
		if err := r.stage(ctx, s); err != nil {
			return r.results, err
		}
	}
	return r.results, nil
}

type runner struct {
	client  client.WithWatch
	options Options
	ssa     ssa.ApplyOptions

	results []Result
	// outage is set once an object has failed because the server, or what it
	// has to ask, does not answer: no other is begun then, each of which would
	// be waited for as long.
	outage atomic.Bool
}

func (r *runner) stage(ctx context.Context, s stage) error {
	objects := sorted(s.objects)
	steps := make([]*step, len(objects))
	for i, o := range objects {
		steps[i] = &step{object: o}
	}
	// The first pass: nothing is written unless all of the stage can be
	// (S4.18).
	left := r.each(ctx, steps, func(st *step) { r.rehearse(ctx, st, nil) })
	if err := r.failures(steps, left); err != nil {
		r.collect(steps, func(st *step) bool { return st.result.Err != nil })
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// The second pass, wave by wave (S4.17, S4.20).
	var err error
	for wave := range waves(steps) {
		told := &telling{steps: wave, report: r.options.Report, ended: map[*step]bool{}}
		left := r.each(ctx, wave, func(st *step) {
			if !st.final {
				r.write(ctx, st)
			}
			told.end(st)
		})
		told.rest()
		if err = r.failures(wave, left); err != nil || ctx.Err() != nil {
			break
		}
	}
	r.collect(steps, func(st *step) bool { return st.final })
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.wait {
		return r.wait(ctx, s.name, steps)
	}
	return nil
}

// each runs fn for every step, some at a time, and starts none after the end
// of ctx or in an outage. It returns how many were not started.
func (r *runner) each(ctx context.Context, steps []*step, fn func(*step)) (left int) {
	var g errgroup.Group
	var begun atomic.Int64
	g.SetLimit(r.options.Concurrency)
	over := func() bool { return ctx.Err() != nil || r.outage.Load() }
	for _, st := range steps {
		if over() {
			break
		}
		g.Go(func() (err error) {
			defer safe.Recover(&err)
			if !over() {
				begun.Add(1)
				fn(st)
			}
			return nil
		})
	}
	safe.Raise(g.Wait()) // fn has no other error: a step keeps its own
	return len(steps) - int(begun.Load())
}

// failures returns those of steps, nil if there are none; left is how many were
// not tried.
func (r *runner) failures(steps []*step, left int) error {
	var list Errors
	for _, st := range steps {
		if e := (*ObjectError)(nil); errors.As(st.result.Err, &e) {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		return nil
	}
	if left > 0 && r.outage.Load() {
		for _, e := range list {
			if isOutage(e.Err) {
				e.Err = fmt.Errorf("%w; %d more of the Kustomization's objects were not tried", e.Err, left)
				break
			}
		}
	}
	return list
}

// isOutage reports whether a failure is not the object's: the server is away, or
// an admission webhook does not answer.
func isOutage(err error) bool {
	if _, ok := faults.Webhook(err); ok {
		return true
	}
	class := faults.Of(err)
	return class.Outage() && class != faults.Unwell // which may be about this object alone
}

func (r *runner) collect(steps []*step, which func(*step) bool) {
	for _, st := range steps {
		if which(st) {
			r.results = append(r.results, st.result)
		}
	}
}

func (r *runner) fail(st *step, err error, hint string) {
	ref := st.object.Ref()
	if isOutage(err) {
		r.outage.Store(true)
	}
	st.final = true
	st.result = Result{Object: st.object, Ref: ref, Err: &ObjectError{Ref: ref, File: st.object.File, Err: err, hint: hint}}
}

// done makes the result of a step from ssa's entry.
func (r *runner) done(st *step, action Action, reason string, id flux.Ref) {
	st.final = true
	st.result = Result{Object: st.object, Ref: id, Action: action, Reason: reason, Version: st.version()}
}

// wait returns when the objects of a stage are ready (S4.11). Skipped objects
// count too (S4.12), but not those that do not exist: waiting for them would
// only cost the minute.
func (r *runner) wait(ctx context.Context, name string, steps []*step) error {
	var refs []flux.Ref
	for _, st := range steps {
		if !st.ready && !st.absent {
			refs = append(refs, st.result.Ref)
		}
	}
	if len(refs) == 0 || r.options.StageWait == nil {
		return nil
	}
	slices.SortFunc(refs, flux.CompareRefs)
	limited, cancel := context.WithTimeoutCause(ctx, stageTimeout, fmt.Errorf("not ready after %s", stageTimeout))
	defer cancel()
	err := r.options.StageWait(limited, refs)
	if err == nil || ctx.Err() != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
	names := make([]string, len(refs))
	for i, ref := range refs {
		names[i] = ref.String()
	}
	return fmt.Errorf("timeout waiting for the stage of %s [%s]: %w", name, strings.Join(names, ", "), err)
}
