package lock

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/safe"
)

// attendAfter is how long a lock is held before its Lease is watched: most runs that find nothing to do are over by then.
const attendAfter = time.Second

// attend watches the Lease, so that the holder learns at once that somebody has taken or deleted it. Where it cannot be watched, or
// while the watch is down, the next renewal tells.
func (l *Lock) attend(ctx context.Context) {
	pause := time.NewTimer(attendAfter)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.lost:
			return
		case <-pause.C:
		}
		// A panic of the client's is a watch that ended; renewals go on.
		_ = safe.Do(func() error { return l.look(ctx) })
		pause.Reset(l.s.Duration / 3)
	}
}

// look watches until the lock is lost, the watch ends or cannot be had, or ctx ends.
func (l *Lock) look(ctx context.Context) error {
	w, err := l.s.client.Watch(ctx, &coordinationv1.LeaseList{}, client.InNamespace(l.s.Namespace),
		client.MatchingFields{"metadata.name": l.s.Name},
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: l.current().ResourceVersion}})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.lost:
			return nil
		case e, ok := <-w.ResultChan():
			lease, isLease := e.Object.(*coordinationv1.Lease)
			switch {
			case !ok || e.Type == watch.Error:
				return nil
			case !isLease || lease.Name != l.s.Name:
			case e.Type == watch.Deleted:
				l.lose(&LostError{Lease: l.s.subject()})
			case !l.ours(lease):
				l.lose(&LostError{Lease: l.s.subject(), By: holderOf(lease)})
			}
		}
	}
}
