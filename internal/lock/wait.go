package lock

import (
	"context"
	"errors"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/safe"
)

// clockGrain is the precision of the server's times: both of those that are compared are cut to whole seconds.
const clockGrain = time.Second

// askEvery is how often an account that may not watch the Lease asks for it.
const askEvery = 2 * time.Second

// errWatchEnded makes await's caller look again.
var errWatchEnded = errors.New("the watch ended")

// expiry returns when a Lease of somebody else expires, by this machine's clock, judged by the server's clock alone. If the server
// keeps no note of the last write, the Lease counts as renewed just now.
func (s *session) expiry(ctx context.Context, l *coordinationv1.Lease) (time.Time, error) {
	now := time.Now()
	life := lifetime(l)
	written := lastWritten(l)
	if written.IsZero() {
		return now.Add(life), nil
	}
	server, err := s.serverTime(ctx)
	if err != nil {
		return time.Time{}, err
	}
	age := max(0, server.Sub(written))
	return now.Add(life + clockGrain - age), nil
}

// lastWritten is the server's note of the last write to the Lease.
func lastWritten(l *coordinationv1.Lease) time.Time {
	last := l.CreationTimestamp.Time
	for _, f := range l.ManagedFields {
		if f.Time != nil && f.Time.After(last) {
			last = f.Time.Time
		}
	}
	return last
}

func lifetime(l *coordinationv1.Lease) time.Duration {
	if l.Spec.LeaseDurationSeconds == nil {
		return DefaultDuration
	}
	return time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
}

// serverTime asks the server for its time: the creation time of a Lease that a dry run does not create.
func (s *session) serverTime(ctx context.Context) (time.Time, error) {
	probe := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, GenerateName: "sluice-clock-"}}
	if err := s.client.Create(ctx, probe, client.DryRunAll, client.FieldOwner(fieldOwner)); err != nil {
		return time.Time{}, s.explain(err, "create")
	}
	return probe.CreationTimestamp.Time, nil
}

// await returns nil when there is reason to try again: the Lease was released, deleted, has expired, or the watch ended. It keeps
// held up to date. When ctx ends it returns an error.
func (s *session) await(ctx context.Context, held *observed) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(time.Until(held.expires))
	defer timer.Stop()
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := s.open(watching, cancel, timer, held)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case watching.Err() != nil: // it has expired
		return nil
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		return nil
	case apierrors.IsForbidden(err):
		return pause(ctx, min(askEvery, time.Until(held.expires)))
	case err != nil:
		return s.explain(err, "watch")
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case e, ok := <-w.ResultChan():
			if err := s.see(e, ok, held); err != nil {
				if errors.Is(err, errWatchEnded) {
					return nil
				}
				return err
			}
			if s.free(held.lease) {
				return nil
			}
			timer.Reset(time.Until(held.expires))
		}
	}
}

// open opens the watch, unless the Lease expires before: something between here and the server may hold back an answer until
// there is the first event, and there is none any more of a holder that was killed. cancel ends ctx.
func (s *session) open(ctx context.Context, cancel context.CancelFunc, expired *time.Timer, held *observed) (w watch.Interface, err error) {
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		err = safe.Do(func() (err error) {
			w, err = s.client.Watch(ctx, &coordinationv1.LeaseList{}, client.InNamespace(s.Namespace),
				client.MatchingFields{"metadata.name": s.Name},
				&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: held.lease.ResourceVersion}})
			return err
		})
	}()
	select {
	case <-opened:
		return w, err
	case <-expired.C:
		cancel()
	case <-ctx.Done():
	}
	<-opened // its context has ended
	if err == nil {
		w.Stop()
	}
	return nil, context.Cause(ctx)
}

// pause waits; it returns ctx's error if that ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// see takes one event of the watch into held. A Lease seen to change was renewed at this moment.
func (s *session) see(e watch.Event, ok bool, held *observed) error {
	if !ok {
		return errWatchEnded
	}
	switch e.Type {
	case watch.Deleted, watch.Error:
		return errWatchEnded
	}
	lease, ok := e.Object.(*coordinationv1.Lease)
	if !ok || lease.Name != s.Name {
		return nil
	}
	if lease.ResourceVersion != held.lease.ResourceVersion {
		held.expires = time.Now().Add(lifetime(lease))
	}
	held.lease = lease
	return nil
}
