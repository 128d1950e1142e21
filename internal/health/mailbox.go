package health

import (
	"context"
	"sync"
)

// mailbox carries what is learned to the one goroutine that keeps a wait's state, in order. Sending never waits: who sends has
// others to tell, too.
type mailbox struct {
	mu     sync.Mutex
	items  []func(ctx context.Context)
	signal chan struct{}
}

func newMailbox() *mailbox { return &mailbox{signal: make(chan struct{}, 1)} }

func (m *mailbox) send(apply func(ctx context.Context)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.items = append(m.items, apply)
	select {
	case m.signal <- struct{}{}:
	default:
	}
}

func (m *mailbox) take() []func(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = nil
	return items
}
