package lock

import (
	"context"
	"errors"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/safe"
)

// hold begins to renew a Lease that was taken by a request sent at the given time.
func (s *session) hold(ctx context.Context, lease *coordinationv1.Lease, sent time.Time) *Lock {
	// The values of ctx stay, its end does not count: only Release ends the lock.
	values := context.WithoutCancel(ctx)
	background, stop := context.WithCancel(values)
	l := &Lock{s: s, values: values, lost: make(chan struct{}), stop: stop, lease: lease, until: sent.Add(s.life())}
	l.running.Go(func() { l.keep(background, sent) })
	l.running.Go(func() { l.attend(background) })
	return l
}

// Lost is closed when the lock is no longer held: somebody took or deleted it, or it could not be renewed within its duration,
// less some seconds in which what is under way may end.
// It is not closed by Release.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// Err returns a *LostError once Lost is closed, else nil.
func (l *Lock) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Valid returns nil as long as the lock has not run out, else a *LostError, the same as Err's. It goes by the time, not by what
// the holder has heard: one that did not run for a while, as a process that was stopped, learns here that it is too late, even if
// no timer has told it yet.
func (l *Lock) Valid() error {
	l.mu.Lock()
	late := l.err == nil && !time.Now().Before(l.until)
	last := l.failed
	l.mu.Unlock()
	if late {
		l.lose(&LostError{Lease: l.s.subject(), Err: last})
	}
	return l.Err()
}

// life is how long after a renewal a lock counts as held.
func (s *session) life() time.Duration { return s.Duration - min(margin, s.Duration/4) }

// keep renews several times per duration, and more often after a failure, until it is stopped or the lock is lost. It is lost
// some time before it ends for others, so that nobody writes any more when another may begin.
func (l *Lock) keep(ctx context.Context, renewed time.Time) {
	life := l.s.life()
	interval := l.s.Duration / renewals
	timer := time.NewTimer(time.Until(renewed.Add(interval)))
	defer timer.Stop()
	for {
		deadline := renewed.Add(life)
		expired := time.NewTimer(time.Until(deadline))
		select {
		case <-ctx.Done():
			expired.Stop()
			return
		case <-l.lost:
			expired.Stop()
			return
		case <-expired.C:
			_ = l.Valid() // it no longer is, and says so to all
			return
		case <-timer.C:
			expired.Stop()
		}
		sent := time.Now()
		limited, cancel := context.WithDeadline(ctx, deadline)
		err := safe.Do(func() error { return l.renew(limited, sent) })
		cancel()
		var lost *LostError
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			renewed = sent
			l.renewed(sent)
			timer.Reset(time.Until(sent.Add(interval)))
		case errors.As(err, &lost):
			l.lose(lost)
			return
		default:
			l.mu.Lock()
			l.failed = err
			l.mu.Unlock()
			timer.Reset(l.s.Duration / 15)
		}
	}
}

// renew writes the Lease once more. On a conflict it looks who has it.
func (l *Lock) renew(ctx context.Context, now time.Time) error {
	lease := l.current().DeepCopy()
	at := metav1.NewMicroTime(now)
	lease.Spec.RenewTime = &at
	err := l.s.client.Update(ctx, lease, client.FieldOwner(fieldOwner))
	switch {
	case err == nil:
		l.set(lease)
		return nil
	case apierrors.IsNotFound(err):
		return &LostError{Lease: l.s.subject()}
	case !apierrors.IsConflict(err):
		return err
	}
	var live coordinationv1.Lease
	if err := l.s.client.Get(ctx, l.s.key(), &live); err != nil {
		if apierrors.IsNotFound(err) {
			return &LostError{Lease: l.s.subject()}
		}
		return err
	}
	if !l.ours(&live) {
		return &LostError{Lease: l.s.subject(), By: holderOf(&live)}
	}
	// Ours in another version: an earlier renewal arrived though its answer did not, or somebody added a label. Renewed the
	// next time round, at once.
	l.set(&live)
	return errors.New("the Lease was changed while it was renewed")
}

// lose ends the lock; only the first reason counts.
func (l *Lock) lose(err *LostError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.lost)
	}
}

// renewed notes a renewal whose request was sent at the given time.
func (l *Lock) renewed(sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until, l.failed = sent.Add(l.s.life()), nil
}

// ours reports whether a Lease is the one that this lock holds.
func (l *Lock) ours(live *coordinationv1.Lease) bool {
	return live.UID == l.current().UID && holderOf(live).Identity == l.s.Holder.Identity
}

func (l *Lock) current() *coordinationv1.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lease
}

func (l *Lock) set(lease *coordinationv1.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lease = lease
}

// Release frees the lock within a second, whatever context the run had, and stops renewing it. A lock that was lost is left to
// whoever has it. If it fails, the lock frees itself when its duration is over. Calling it again does nothing.
func (l *Lock) Release() error {
	l.mu.Lock()
	done := l.released
	l.released = true
	l.mu.Unlock()
	if done {
		return nil
	}
	l.stop()
	l.running.Wait()
	if l.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.values, releaseTimeout)
	defer cancel()
	lease := l.current()
	err := l.delete(ctx, lease)
	if apierrors.IsConflict(err) {
		// The renewal that was stopped a moment ago may have arrived. A Lease of somebody else stays.
		var live coordinationv1.Lease
		if err = l.s.client.Get(ctx, l.s.key(), &live); err == nil {
			if !l.ours(&live) {
				return nil
			}
			err = l.delete(ctx, &live)
		}
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return l.s.explain(err, "release")
	}
	return nil
}

// delete removes exactly this version of the Lease; without the permission to, it empties it.
func (l *Lock) delete(ctx context.Context, lease *coordinationv1.Lease) error {
	lease = lease.DeepCopy()
	version := lease.ResourceVersion
	uid := lease.UID
	err := l.s.client.Delete(ctx, lease, client.Preconditions{UID: &uid, ResourceVersion: &version})
	if !apierrors.IsForbidden(err) {
		return err
	}
	nobody := ""
	lease.Spec.HolderIdentity = &nobody
	return l.s.client.Update(ctx, lease, client.FieldOwner(fieldOwner))
}
