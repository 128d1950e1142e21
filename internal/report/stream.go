package report

import (
	"io"
	"sync"
	"time"

	"github.com/sluicerun/sluice/internal/event"
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

// Stream owns a writer: one goroutine writes to it what a Renderer makes of
// events and ticks. Emit never waits for the writer, however slow that is, so
// a stuck terminal does not hold up a delivery.
type Stream struct {
	w        io.Writer
	renderer Renderer
	tick     <-chan time.Time

	mu     sync.Mutex
	queue  []event.Event
	flush  []chan struct{} // closed when what was queued before is written
	closed bool
	wake   chan struct{}
	done   chan struct{}
	err    error // the goroutine's until done is closed
}

// NewStream starts a Stream. Each time that comes through tick is a
// heartbeat; nil means none. Whoever makes a Stream closes it, and the ticker
// stays the caller's.
func NewStream(w io.Writer, renderer Renderer, tick <-chan time.Time) *Stream {
	s := &Stream{w: w, renderer: renderer, tick: tick, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go s.loop()
	return s
}

// Emit queues an event. Events after Close are dropped.
func (s *Stream) Emit(e event.Event) {
	s.mu.Lock()
	if !s.closed {
		s.queue = append(s.queue, e)
	}
	s.mu.Unlock()
	s.signal()
}

// Close waits until everything is written and returns the first error of the
// writer, else that of the renderer. The writer stays open: it is the
// caller's. Closing twice is harmless.
func (s *Stream) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
	<-s.done
	if s.err != nil {
		return s.err
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
	s.signal()
	<-written
}

func (s *Stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Stream) loop() {
	defer close(s.done)
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
			s.write(s.renderer.Tick(now))
		}
	}
}

// drain writes what is queued and reports whether that was the end.
func (s *Stream) drain() bool {
	for {
		s.mu.Lock()
		events, closed, flush := s.queue, s.closed, s.flush
		s.queue, s.flush = nil, nil
		s.mu.Unlock()
		for _, e := range events {
			s.write(s.renderer.Event(e))
		}
		for _, written := range flush {
			close(written)
		}
		if len(events) == 0 {
			return closed
		}
	}
}

// write writes unless writing failed before. The renderer goes on being fed,
// since it may keep files of its own.
func (s *Stream) write(b []byte) {
	if len(b) == 0 || s.err != nil {
		return
	}
	_, s.err = s.w.Write(b)
}
