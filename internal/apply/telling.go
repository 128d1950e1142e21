package apply

import "sync"

// telling reports the steps of a wave in their order, each as soon as it and
// all before it have ended: the order in which requests are answered is chance.
type telling struct {
	steps  []*step
	report func(Result)

	mu    sync.Mutex
	ended map[*step]bool
	next  int
}

// end notes that a step has ended. It may be called concurrently.
func (t *telling) end(st *step) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended[st] = true
	for t.next < len(t.steps) && t.ended[t.steps[t.next]] {
		t.tell(t.steps[t.next])
		t.next++
	}
}

// rest reports, once no step is at work any more, those that have waited for
// one whose turn did not come.
func (t *telling) rest() {
	for _, st := range t.steps[t.next:] {
		t.tell(st)
	}
	t.next = len(t.steps)
}

func (t *telling) tell(st *step) {
	if t.report != nil && st.final {
		t.report(st.result)
	}
}
