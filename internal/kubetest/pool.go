//go:build unix

package kubetest

import (
	"context"
	"fmt"
	"sync"
)

// Pool lends clusters to tests that need one of their own, and takes them back: to empty a cluster costs less than to
// start one. Who gets one cannot tell it from a new one: the objects, the resources that are served and the kubeconfig are those of the
// moment at which it was started. The zero value is ready. Its methods may be called concurrently; the clusters end with the process.
type Pool struct {
	mu   sync.Mutex
	idle []*pooled
	lent map[*Cluster]*pooled
}

// pooled is a cluster and what it held when it was new.
type pooled struct {
	cluster *Cluster
	cleaner *cleaner
	first   *state
}

// Take returns a cluster that nobody else uses, and starts one if all are lent. The caller gives it back or stops it.
func (p *Pool) Take(ctx context.Context) (*Cluster, error) {
	l := p.next()
	if l == nil {
		var err error
		if l, err = startPooled(ctx); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lent == nil {
		p.lent = map[*Cluster]*pooled{}
	}
	p.lent[l.cluster] = l
	return l.cluster, nil
}

func (p *Pool) next() *pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	l := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return l
}

func startPooled(ctx context.Context) (*pooled, error) {
	cluster, err := Start(ctx, Options{})
	if err != nil {
		return nil, err
	}
	l := &pooled{cluster: cluster}
	if l.cleaner, err = newCleaner(cluster); err == nil {
		l.first, err = l.cleaner.firstDay(ctx)
	}
	if err != nil {
		_ = cluster.Stop() // the other error came first
		return nil, fmt.Errorf("look at the new test cluster: %w", err)
	}
	return l, nil
}

// Give takes a cluster of Take back and empties it. If that does not succeed the cluster is stopped, and the error says why; the next
// one who asks gets another, so nothing is lost but time. Nothing may use the cluster any more.
func (p *Pool) Give(ctx context.Context, c *Cluster) error {
	p.mu.Lock()
	l := p.lent[c]
	delete(p.lent, c)
	p.mu.Unlock()
	if l == nil {
		return fmt.Errorf("the test cluster in %q is not lent by this pool", c.Dir())
	}
	if err := l.cleaner.reset(ctx, l.first); err != nil {
		_ = c.Stop() // whatever it says, the cluster is not used again
		return fmt.Errorf("empty the test cluster: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, l)
	return nil
}
