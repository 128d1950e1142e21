package event

// Sink takes events. Emit is called from one goroutine at a time, in the order
// of the sequence, and must not keep the engine waiting for long; it cannot
// fail, so a sink that writes keeps its first error and reports it when it is
// closed by its owner. A sink must not change what it is given.
type Sink interface {
	Emit(Event)
}

// SinkFunc makes a function a Sink.
type SinkFunc func(Event)

// Emit calls the function.
func (f SinkFunc) Emit(e Event) { f(e) }

// Tee hands each event to every sink, in the order of the arguments.
func Tee(sinks ...Sink) Sink {
	return SinkFunc(func(e Event) {
		for _, s := range sinks {
			s.Emit(e)
		}
	})
}
