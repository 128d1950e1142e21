// Package fair shares a number of slots out among parties that want many.
//
// Each party has a line of its own, served in the order of arrival. A slot that
// becomes free goes to the next party whose line is not empty, each in turn, so
// that one with two thousand requests and one with three get every other slot
// while both wait, and the one with three is done soon.
//
// [Queue.Hold] is for a server that says it is busy: nobody gets a slot until the
// time it asked for is over, and then only half as many are given out as were in
// use, though not fewer than a quarter of all: it may have been one resource that
// was busy, and it will say so again. Every round of good answers adds one, up to
// all.
package fair

import (
	"context"
	"sync"
	"time"
)

// Queue gives out slots. It is safe for concurrent use.
type Queue struct {
	max int

	mu   sync.Mutex
	used int
	// limit is how many slots are given out at present, from 1 to max, and good
	// how many good answers there were since it last changed.
	limit, good int
	// until is the end of the pause, and timer what ends it; nil if there is none.
	until time.Time
	timer *time.Timer
	// lines has a line for each party that waits, turns the same ones in the
	// order in which they are served next.
	lines map[string]*line
	turns []*line
	// idle are those who wait for the end of the pause only.
	idle []chan struct{}
}

// line is those of one party who wait, first come first served.
type line struct {
	party string
	wait  []*waiter
}

type waiter struct {
	granted chan struct{}
	// gone is set if it does not wait any more. It stays in its line until it
	// comes to its head.
	gone bool
}

// New returns a queue with so many slots, at least one.
func New(slots int) *Queue {
	slots = max(slots, 1)
	return &Queue{max: slots, limit: slots, lines: map[string]*line{}}
}

// Slots is how many there are at most.
func (q *Queue) Slots() int { return q.max }

// Acquire waits for a slot in the party's line. The slot is held until release is
// called; further calls of it do nothing. If ctx ends first, the error is its
// cause and no slot is held.
func (q *Queue) Acquire(ctx context.Context, party string) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	w := q.enter(party)
	select {
	case <-w.granted:
	case <-ctx.Done():
		if q.leave(w) {
			return nil, context.Cause(ctx)
		}
		// It was granted at the same moment. Who is not there any more must
		// not use it.
		q.release()
		return nil, context.Cause(ctx)
	}
	var once sync.Once
	return func() { once.Do(q.release) }, nil
}

// Await returns when the queue is not on hold, without taking a slot. If ctx ends
// first, the error is its cause.
func (q *Queue) Await(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		q.mu.Lock()
		if q.timer == nil {
			q.mu.Unlock()
			return nil
		}
		over := make(chan struct{})
		q.idle = append(q.idle, over)
		q.mu.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
		}
	}
}

// Hold stops giving out slots for d; a hold that would last longer already stays.
// The first of a pause halves how many are given out afterwards, and is told by
// first: all that were under way may hear the same from the server.
func (q *Queue) Hold(d time.Duration) (first bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	first = q.timer == nil
	if first {
		q.limit, q.good = min(q.limit, max(1, q.max/4, min(q.limit, q.used)/2)), 0
	}
	until := time.Now().Add(d)
	if !first && !until.After(q.until) {
		return false
	}
	q.until = until
	if !first {
		q.timer.Stop()
	}
	q.timer = time.AfterFunc(d, q.resume)
	return first
}

// Good says that a request was not told to wait.
func (q *Queue) Good() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.limit == q.max || q.timer != nil {
		return
	}
	if q.good++; q.good >= q.limit {
		q.limit, q.good = q.limit+1, 0
		q.serve()
	}
}

// resume ends a pause, unless it was prolonged just now.
func (q *Queue) resume() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Now().Before(q.until) {
		return
	}
	q.timer = nil
	for _, over := range q.idle {
		close(over)
	}
	q.idle = nil
	q.serve()
}

func (q *Queue) enter(party string) *waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[party]
	if l == nil {
		l = &line{party: party}
		q.lines[party] = l
		q.turns = append(q.turns, l)
	}
	w := &waiter{granted: make(chan struct{})}
	l.wait = append(l.wait, w)
	q.serve()
	return w
}

// leave takes a waiter out of its line; false if it has its slot.
func (q *Queue) leave(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-w.granted:
		return false
	default:
	}
	w.gone = true
	return true
}

func (q *Queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used--
	q.serve()
}

// serve gives out what there is. It is called with mu held.
func (q *Queue) serve() {
	for q.timer == nil && q.used < q.limit && len(q.turns) > 0 {
		l := q.turns[0]
		q.turns = q.turns[1:]
		w := l.next()
		if len(l.wait) > 0 {
			q.turns = append(q.turns, l)
		} else {
			delete(q.lines, l.party)
		}
		if w != nil {
			q.used++
			close(w.granted)
		}
	}
}

// next takes the first who still waits out of the line, nil if there is none.
func (l *line) next() *waiter {
	for len(l.wait) > 0 {
		w := l.wait[0]
		l.wait = l.wait[1:]
		if !w.gone {
			return w
		}
	}
	return nil
}
