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
	"fmt"
	"maps"
	"slices"

	"github.com/sluicerun/sluice/internal/graph"
)

// Step is one vertex of work.
type Step struct {
	// Name is unique in the run.
	Name string
	// Needs names the steps that must have succeeded before this starts.
	Needs []string
	// Slot says that the step takes one of the workers while it runs.
	// Steps that only wait for something take none, so that waiting never
	// keeps others from working.
	Slot bool
	// Run does the work. It should return soon after the context ends. It
	// may return what has to be done besides, which it only now knows.
	Run func(context.Context) (Growth, error)
}

// Growth is what a step adds to the run when it succeeds.
type Growth struct {
	// Steps are new steps.
	Steps []Step
	// Needs adds needs to steps, by name, that have not started yet. A step
	// can be sure that one has not if that one needs it.
	Needs map[string][]string
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
// ended. Of the steps that could start, the first by the graph's order does.
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
	r.loop(ctx)
	return r.results, nil
}

// outcome is what a step tells the runner: its end, or that it gives up its
// slot, or that it wants it back.
type outcome struct {
	name   string
	growth Growth
	err    error

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
		r.start(ctx)
		if r.running == 0 {
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

// start starts, ends as skipped or ends as cancelled all that can be, in the
// graph's order. One pass is enough: a step comes after all that it needs.
func (r *runner) start(ctx context.Context) {
	r.resume()
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
		default:
			r.started[name] = true
			r.running++
			stepCtx := ctx
			if step.Slot {
				r.slots++
				stepCtx = context.WithValue(ctx, seatKey{}, &seat{name: name, done: r.done})
			}
			go func() {
				growth, err := step.Run(stepCtx)
				r.done <- outcome{name: name, growth: growth, err: err}
			}()
		}
	}
}

// blocked says whether a need is still open, and which state a failed,
// skipped or cancelled need forces on the step.
func (r *runner) blocked(name string) (open bool, forced State, cause string) {
	for _, need := range r.graph.Needs(name) {
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
		err = r.grow(out.growth, out.name)
	}
	switch {
	case err == nil:
		r.end(Result{Name: out.name, State: Succeeded})
	case ctx.Err() != nil:
		r.end(Result{Name: out.name, State: Cancelled, Err: err})
	default:
		harmless := r.options.Harmless != nil && r.options.Harmless(err)
		if r.options.StopOnFailure && r.stopped == "" && !harmless {
			r.stopped = out.name
		}
		r.end(Result{Name: out.name, State: Failed, Err: err})
	}
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
	if by != "" && len(growth.Steps) == 0 && len(growth.Needs) == 0 {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(growth.Needs)) {
		if r.started[name] || r.states[name] != nil {
			return fmt.Errorf("%s would add needs to %s, which has started", by, name)
		}
	}
	added := map[string]Step{}
	var vertices []graph.Vertex
	for _, step := range growth.Steps {
		added[step.Name] = step
		vertices = append(vertices, graph.Vertex{Name: step.Name, Needs: step.Needs})
	}
	for name, step := range r.steps {
		needs := slices.Concat(step.Needs, growth.Needs[name])
		vertices = append(vertices, graph.Vertex{Name: name, Needs: needs})
	}
	g, err := graph.New(vertices)
	if err != nil {
		return err
	}
	for name, needs := range growth.Needs {
		if step, ok := r.steps[name]; ok {
			step.Needs = slices.Concat(step.Needs, needs)
			r.steps[name] = step
		}
	}
	maps.Copy(r.steps, added)
	if r.started == nil {
		r.started = map[string]bool{}
	}
	r.graph, r.order = g, g.Order()
	return nil
}
