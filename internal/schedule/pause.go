package schedule

import (
	"context"
	"slices"
	"time"
)

// Pause waits inside of a step without keeping others from working: a step
// with a Slot gives it up meanwhile and returns only when it has one again,
// before steps that have not started yet. ctx is the one that the step was
// given. The error is the context's cause if that ended first.
func Pause(ctx context.Context, d time.Duration) error {
	s, ok := ctx.Value(seatKey{}).(*seat)
	ok = ok && s.slot
	if ok {
		s.done <- outcome{name: s.name, pauses: true}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !ok {
		return nil
	}
	again := make(chan struct{})
	s.done <- outcome{name: s.name, resumes: again}
	select {
	case <-again:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Tell has the gates of a run look again, since something has changed that they
// look at. ctx is the one that the calling step was given. It returns when the
// runner has heard of it.
func Tell(ctx context.Context) {
	if s, ok := ctx.Value(seatKey{}).(*seat); ok {
		s.done <- outcome{name: s.name, tells: true}
	}
}

// seat lets a step speak to its runner.
type seat struct {
	name string
	slot bool
	done chan<- outcome
}

type seatKey struct{}

// pausing keeps account of slots that steps have given up.
type pausing struct {
	idle  map[string]bool // without the slot that they count for
	queue []outcome       // those that want it back
}

// pause takes note of what a running step says of its slot; false if the
// outcome is its end.
func (r *runner) pause(out outcome) bool {
	switch {
	case out.tells:
	case out.pauses:
		r.idle[out.name] = true
		r.slots--
	case out.resumes != nil:
		r.queue = append(r.queue, out)
	default:
		return false
	}
	return true
}

// resume gives slots back as far as there are any.
func (r *runner) resume() {
	for len(r.queue) > 0 && r.slots < max(r.options.Workers, 1) {
		out := r.queue[0]
		r.queue = r.queue[1:]
		delete(r.idle, out.name)
		r.slots++
		close(out.resumes)
	}
}

// leave frees what a step that has ended holds or waits for.
func (r *runner) leave(name string) {
	r.running--
	if r.steps[name].Slot && !r.idle[name] {
		r.slots--
	}
	delete(r.idle, name)
	r.queue = slices.DeleteFunc(r.queue, func(out outcome) bool { return out.name == name })
}
