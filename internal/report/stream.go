package report

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/safe"
)

// Renderer turns events into bytes for a stream. A Stream calls it from one
// goroutine. It reads no clock.
type Renderer interface {
	// Event returns what an event is worth, or nothing.
	Event(event.Event) []byte
	// Tick is called now and then with the current time, so that a
	// rendering can show that the run is alive.
	Tick(now time.Time) []byte
	// Err returns the first error of the renderer's own, such as a file
	// that it could not write.
	Err() error
}

// Stream owns a writer and a Renderer. One goroutine feeds events and ticks to the
// Renderer, another one writes what it makes of them. Emit never waits for either,
// however slow they are, so a stuck terminal does not hold up a delivery; nor does
// it hold up the Renderer, which may keep files of its own.
//
// A panic of the Renderer costs what it was to make of one event, and is the
// Stream's error.
type Stream struct {
	w        io.Writer
	renderer Renderer
	tick     <-chan time.Time

	mu     sync.Mutex
	queue  []event.Event
	flush  []chan struct{} // closed when what was queued before is written
	closed bool
	wake   chan struct{}

	// What is rendered and not written yet, under mu too.
	text     bytes.Buffer
	flushing []chan struct{}
	ready    chan struct{}

	fault    error         // of the rendering goroutine, until rendered is closed
	rendered chan struct{} // closed when nothing more comes
	err      error         // of the writing goroutine, until done is closed
	done     chan struct{}
}

// NewStream starts a Stream. Each time that comes through tick is a
// heartbeat; nil means none. Whoever makes a Stream closes it, and the ticker
// stays the caller's.
func NewStream(w io.Writer, renderer Renderer, tick <-chan time.Time) *Stream {
	s := &Stream{w: w, renderer: renderer, tick: tick, wake: make(chan struct{}, 1), ready: make(chan struct{}, 1),
		rendered: make(chan struct{}), done: make(chan struct{})}
	go s.render()
	go s.write()
	return s
}

// Emit queues an event. Events after Close are dropped.
func (s *Stream) Emit(e event.Event) {
	s.mu.Lock()
	if !s.closed {
		s.queue = append(s.queue, e)
	}
	s.mu.Unlock()
	signal(s.wake)
}

// Close waits until everything is written and returns the first error of the
// writer, else that of the renderer. If ctx ends first, the error is its cause,
// and what is not written yet may never be. The writer stays open: it is the
// caller's. Closing twice is harmless.
func (s *Stream) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	signal(s.wake)
	for _, end := range []chan struct{}{s.rendered, s.done} {
		select {
		case <-end:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	switch {
	case s.err != nil:
		return s.err
	case s.fault != nil:
		return s.fault
	}
	return s.renderer.Err()
}

// Flush waits until everything is written that was emitted before.
func (s *Stream) Flush() {
	written := make(chan struct{})
	s.mu.Lock()
	closed := s.closed
	s.flush = append(s.flush, written)
	s.mu.Unlock()
	if closed {
		return // Close waits
	}
	signal(s.wake)
	<-written
}

func signal(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// render feeds the Renderer.
func (s *Stream) render() {
	defer close(s.rendered)
	for {
		select {
		case <-s.wake:
			if s.drain() {
				return
			}
		case now := <-s.tick:
			// Events first: they are older than the tick.
			if s.drain() {
				return
			}
			s.pass(s.made(func() []byte { return s.renderer.Tick(now) }), nil)
		}
	}
}

// drain renders what is queued and reports whether that was the end.
func (s *Stream) drain() bool {
	for {
		s.mu.Lock()
		events, closed, flush := s.queue, s.closed, s.flush
		s.queue, s.flush = nil, nil
		s.mu.Unlock()
		for _, e := range events {
			s.pass(s.made(func() []byte { return s.renderer.Event(e) }), nil)
		}
		s.pass(nil, flush)
		if len(events) == 0 {
			return closed
		}
	}
}

// made is what the Renderer makes of something, nothing if it panics.
func (s *Stream) made(render func() []byte) (text []byte) {
	if err := safe.Do(func() error { text = render(); return nil }); err != nil && s.fault == nil {
		s.fault = err
	}
	return text
}

// pass hands text on to the writing goroutine, and those who wait until all so
// far is written.
func (s *Stream) pass(text []byte, flush []chan struct{}) {
	if len(text) == 0 && len(flush) == 0 {
		return
	}
	s.mu.Lock()
	s.text.Write(text)
	s.flushing = append(s.flushing, flush...)
	s.mu.Unlock()
	signal(s.ready)
}

// write writes until everything is rendered and written. After an error nothing
// more is written, but who waits is let go.
func (s *Stream) write() {
	defer close(s.done)
	for last := false; !last; {
		select {
		case <-s.ready:
		case <-s.rendered:
			last = true
		}
		s.mu.Lock()
		text, flushing := bytes.Clone(s.text.Bytes()), s.flushing
		s.text.Reset()
		s.flushing = nil
		s.mu.Unlock()
		if len(text) > 0 && s.err == nil {
			_, s.err = s.w.Write(text)
		}
		for _, written := range flushing {
			close(written)
		}
	}
}
