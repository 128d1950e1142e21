// Package schedule runs an order: steps that need each other, so many at a
// time, each ending in exactly one state. It knows nothing of what a step
// does.
//
// All bookkeeping happens on the goroutine that called Run; steps run on
// goroutines of their own and meet it only through a channel, so nothing here
// needs a lock and no state is held during a step.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sluicerun/sluice/internal/graph"
	"github.com/sluicerun/sluice/internal/safe"
)

// Step is one vertex of work.
type Step struct {
	// Name is unique in the run.
	Name string
	// Needs names the steps that must have succeeded before this starts.
	Needs []string
	// After names steps that this one comes after in the order of the graph
	// without needing them: they may fail. They count for cycles.
	After []string
	// Slot says that the step takes one of the workers while it runs.
	// Steps that only wait for something take none, so that waiting never
	// keeps others from working.
	Slot bool
	// Run does the work. It should return soon after the context ends. It
	// may return what has to be done besides, which it only now knows.
	Run func(context.Context) (Growth, error)
	// Open makes the step a gate, which has no Run: it succeeds when Open
	// says true, and fails with Open's error. Open is asked when the gate's
	// needs have succeeded, and again with everything that happens in the
	// run: when a step ends, and when a running one calls Tell. It is called
	// on the goroutine of Run, so it must be quick; a gate holds no worker.
	// With last set nothing else can happen any more, as all that is left
	// waits for gates: what is not open then fails.
	Open func(ctx context.Context, last bool) (bool, error)
}

// Growth is what a step adds to the run when it succeeds.
type Growth struct {
	// Steps are new steps.
	Steps []Step
	// Needs adds needs to steps, by name, that have not started yet. A step
	// can be sure that one has not if that one needs it.
	Needs map[string][]string
	// After does the same for what steps come after.
	After map[string][]string
	// Make, if not nil, makes the growth, in place of the other fields. It is
	// called on the goroutine of Run when the step has succeeded, so that it
	// can know of all that other steps have added before.
	Make func() Growth
}

// State is how a step ended.
type State int

// The states.
const (
	// Succeeded: Run returned no error.
	Succeeded State = iota
	// Failed: Run returned an error.
	Failed
	// Skipped: a step that it needs, directly or not, failed.
	Skipped
	// Cancelled: the context ended, or the run stopped after a failure,
	// before it started; or it returned an error after the context ended.
	Cancelled
)

func (s State) String() string {
	return [...]string{"succeeded", "failed", "skipped", "cancelled"}[s]
}

// Result is the end of one step.
type Result struct {
	Name  string
	State State
	// Err is what Run returned, for Failed and for Cancelled while running.
	Err error
	// Cause names the failed step behind Skipped, and behind Cancelled if
	// the run stopped for a failure: the root cause, not the nearest step.
	Cause string
}

// Options say how to run.
type Options struct {
	// Workers is how many steps with a Slot run at once; at least 1.
	Workers int
	// StopOnFailure starts nothing more after the first failure. Otherwise
	// every step that does not need a failed one still runs.
	StopOnFailure bool
	// Harmless says of a step's error that only what needs the step cannot
	// run, and that it is no reason for StopOnFailure. It may be nil.
	Harmless func(error) bool
	// Done is called for each result as it comes, on the goroutine of Run,
	// with no step starting meanwhile. It may be nil.
	Done func(Result)
}

// Run runs the steps and returns a result for each, in the order in which they
// ended. Of the steps that could start, the one with the longest chain of others
// behind it does, then the first by the graph's order.
// The error is the graph's, and then nothing was run; failures of steps are in
// the results. Run returns only when every started step has returned.
func Run(ctx context.Context, steps []Step, o Options) ([]Result, error) {
	r := &runner{
		options: o,
		steps:   map[string]Step{},
		states:  map[string]*State{},
		causes:  map[string]string{},
		done:    make(chan outcome),
		pausing: pausing{idle: map[string]bool{}},
	}
	if err := r.grow(Growth{Steps: steps}, ""); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// A panic of a callback must not leave steps behind that go on working.
	if err := safe.Do(func() error { r.loop(ctx); return nil }); err != nil {
		stop(err)
		r.drain()
		safe.Raise(err)
	}
	return r.results, nil
}

// ErrShut is how a gate fails that was not open when nothing else could happen
// any more.
var ErrShut = errors.New("the gate stays shut")

// outcome is what a step tells the runner: its end, or that it gives up its
// slot, or that it wants it back, or that gates should look again.
type outcome struct {
	name   string
	growth Growth
	err    error

	tells   bool
	pauses  bool
	resumes chan struct{}
}

type runner struct {
	options Options
	steps   map[string]Step
	graph   *graph.Graph
	order   []string
	started map[string]bool
	states  map[string]*State // nil until ended
	causes  map[string]string
	running int
	slots   int // in use
	pausing
	stopped string
	done    chan outcome
	results []Result
}

func (r *runner) loop(ctx context.Context) {
	cancelled := ctx.Done()
	for {
		for r.start(ctx) {
		}
		if r.running == 0 {
			if r.lastCall(ctx) {
				continue
			}
			return
		}
		select {
		case out := <-r.done:
			if !r.pause(out) {
				r.finish(ctx, out)
			}
		case <-cancelled:
			cancelled = nil // start sees ctx.Err; wait for what is running
		}
	}
}

// drain waits for the steps that run, whatever they say.
func (r *runner) drain() {
	for r.running > 0 {
		if out := <-r.done; !r.pause(out) {
			r.running--
		}
	}
}

// start starts, ends as skipped or ends as cancelled all that can be, longest
// chain first. For all but gates one pass is enough, since a step comes after
// all that it needs; what a gate looks at may end later in a pass. again says
// that one ended and another pass is due.
func (r *runner) start(ctx context.Context) (again bool) {
	r.resume()
	ended := len(r.results)
	gates := false
	for _, name := range r.order {
		if r.started[name] || r.states[name] != nil {
			continue
		}
		step := r.steps[name]
		open, state, cause := r.blocked(name)
		switch {
		case state != Succeeded:
			r.end(Result{Name: name, State: state, Cause: cause})
		case ctx.Err() != nil:
			r.end(Result{Name: name, State: Cancelled})
		case r.stopped != "":
			r.end(Result{Name: name, State: Cancelled, Cause: r.stopped})
		case open || step.Slot && r.slots >= max(r.options.Workers, 1):
			continue
		case step.Open != nil:
			gates = true
			r.ask(ctx, step, false)
		default:
			r.started[name] = true
			r.running++
			stepCtx := ctx
			if step.Slot {
				r.slots++
			}
			stepCtx = context.WithValue(ctx, seatKey{}, &seat{name: name, slot: step.Slot, done: r.done})
			go func() {
				out := outcome{name: name}
				defer func() { r.done <- out }()
				defer safe.Recover(&out.err)
				out.growth, out.err = step.Run(stepCtx)
			}()
		}
	}
	return gates && len(r.results) > ended
}

// ask asks a gate whether it is open.
func (r *runner) ask(ctx context.Context, gate Step, last bool) {
	open, err := gate.Open(ctx, last)
	switch {
	case err == nil && open:
		r.end(Result{Name: gate.Name, State: Succeeded})
	case err == nil && !last:
	case err == nil:
		r.fail(ctx, gate.Name, ErrShut)
	default:
		r.fail(ctx, gate.Name, err)
	}
}

// lastCall asks the first gate that all else waits for one last time. It is for
// when nothing runs; what it says may let others run, or open other gates.
func (r *runner) lastCall(ctx context.Context) bool {
	for _, name := range r.order {
		if r.states[name] != nil || r.steps[name].Open == nil {
			continue
		}
		if open, state, _ := r.blocked(name); !open && state == Succeeded {
			r.ask(ctx, r.steps[name], true)
			return true
		}
	}
	return false
}

// blocked says whether a need is still open, and which state a failed,
// skipped or cancelled need forces on the step.
func (r *runner) blocked(name string) (open bool, forced State, cause string) {
	for _, need := range r.steps[name].Needs {
		state := r.states[need]
		if state == nil {
			open = true
			continue
		}
		switch *state {
		case Failed:
			return false, Skipped, need
		case Skipped:
			return false, Skipped, r.causes[need]
		case Cancelled:
			// A failure elsewhere is the better reason; go on looking.
			forced, cause = Cancelled, r.causes[need]
		}
	}
	return open, forced, cause
}

func (r *runner) finish(ctx context.Context, out outcome) {
	r.leave(out.name)
	err := out.err
	if err == nil {
		growth := out.growth
		if growth.Make != nil {
			growth = growth.Make()
		}
		err = r.grow(growth, out.name)
	}
	if err != nil {
		r.fail(ctx, out.name, err)
		return
	}
	r.end(Result{Name: out.name, State: Succeeded})
}

func (r *runner) fail(ctx context.Context, name string, err error) {
	if ctx.Err() != nil {
		r.end(Result{Name: name, State: Cancelled, Err: err})
		return
	}
	harmless := r.options.Harmless != nil && r.options.Harmless(err)
	if r.options.StopOnFailure && r.stopped == "" && !harmless {
		r.stopped = name
	}
	r.end(Result{Name: name, State: Failed, Err: err})
}

func (r *runner) end(result Result) {
	r.states[result.Name] = &result.State
	r.causes[result.Name] = result.Cause
	r.results = append(r.results, result)
	if r.options.Done != nil {
		r.options.Done(result)
	}
}

// grow adds steps and needs if the graph stays sound; by names the step that
// they come from. On an error nothing has changed.
func (r *runner) grow(growth Growth, by string) error {
	if by != "" && len(growth.Steps) == 0 && len(growth.Needs) == 0 && len(growth.After) == 0 {
		return nil
	}
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(growth.Needs)), slices.Sorted(maps.Keys(growth.After))) {
		if r.started[name] || r.states[name] != nil {
			return fmt.Errorf("%s would add needs to %s, which has started", by, name)
		}
	}
	added := map[string]Step{}
	var vertices []graph.Vertex
	for _, step := range growth.Steps {
		step.Needs = inOrder(step.Needs)
		added[step.Name] = step
		vertices = append(vertices, graph.Vertex{Name: step.Name, Needs: slices.Concat(step.Needs, step.After)})
	}
	for name, step := range r.steps {
		needs := slices.Concat(step.Needs, step.After, growth.Needs[name], growth.After[name])
		vertices = append(vertices, graph.Vertex{Name: name, Needs: needs})
	}
	g, err := graph.New(vertices)
	if err != nil {
		return err
	}
	for name, step := range r.steps {
		step.Needs = inOrder(slices.Concat(step.Needs, growth.Needs[name]))
		step.After = slices.Concat(step.After, growth.After[name])
		r.steps[name] = step
	}
	maps.Copy(r.steps, added)
	if r.started == nil {
		r.started = map[string]bool{}
	}
	r.graph, r.order = g, g.LongestFirst()
	return nil
}

// inOrder puts needs in an order that does not depend on the caller's: the first
// of several that failed is the cause that is told.
func inOrder(needs []string) []string {
	needs = slices.Clone(needs)
	slices.Sort(needs)
	return slices.Compact(needs)
}
