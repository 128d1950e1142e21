package run

import (
	"sync"
	"time"

	"github.com/sluicerun/sluice/internal/event"
)

// emitter serialises events: steps run at the same time, a sink is called by
// one at a time (event.Sink).
type emitter struct {
	mu   sync.Mutex
	sink event.Sink
}

// send stamps nothing: the event carries its time, taken by now just before,
// so the sequence is in order only as far as things happened in order.
func (e *emitter) send(ev event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sink.Emit(ev)
}

func now() event.At { return event.At{Time: time.Now().UTC()} }
