package run

import (
	"slices"
	"sync"
	"time"

	"github.com/sluicerun/sluice/internal/event"
)

// emitter serialises events: steps run at the same time, a sink is called by
// one at a time (event.Sink). It knows which Kustomizations have not ended yet.
type emitter struct {
	mu     sync.Mutex
	sink   event.Sink
	closed bool
	open   []string // announced, not ended
}

// send stamps nothing: the event carries its time, taken by now just before,
// so the sequence is in order only as far as things happened in order.
func (e *emitter) send(ev event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.pass(ev)
	}
}

func (e *emitter) pass(ev event.Event) {
	switch ev := ev.(type) {
	case event.NodeFound:
		e.open = append(e.open, ev.Node.ID)
	case event.NodeFinished:
		e.open = slices.DeleteFunc(e.open, func(id string) bool { return id == ev.Node })
	}
	e.sink.Emit(ev)
}

// close sends the end of every Kustomization that has none, and the end of the run,
// and then nothing more, whoever goes on sending.
func (e *emitter) close(end event.RunFinished) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	for _, id := range slices.Clone(e.open) {
		e.pass(event.NodeFinished{At: now(), Node: id, Result: event.Cancelled})
	}
	e.pass(end)
	e.closed = true
}

func now() event.At { return event.At{Time: time.Now().UTC()} }
