package lock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/retry"
)

const (
	// DefaultDuration is how long a lock lives without being renewed: longer than most restarts of an API server or of its etcd
	// take, which a run then outlives, and short enough for whoever waits after a job that was killed.
	DefaultDuration = 30 * time.Second
	// renewals is how often a lock is renewed in its duration.
	renewals = 6
	// margin is how long before its end a lock that could not be renewed counts as lost: what is being written then may take some
	// seconds to stop. It is a quarter of the duration if that is less.
	margin = 5 * time.Second
	// releaseTimeout bounds what a run that ends spends on its lock.
	releaseTimeout = time.Second
	// takeGrace is how long the request that takes the lock may go on when the run has been told to end. Without its answer
	// nobody would free what it took.
	takeGrace = 1500 * time.Millisecond
	// fieldOwner is the field manager of the Lease; the server's note of its writes is the clock that a contender reads.
	fieldOwner = "sluice"
)

// Annotations of the Lease that say who holds it.
const (
	runURLAnnotation = "sluice.run/run-url"
	actorAnnotation  = "sluice.run/actor"
	commitAnnotation = "sluice.run/commit"
)

// Client is what a lock needs of a controller-runtime client. The client's scheme must know Leases, as client-go's does. Requests
// need the verbs get, watch, create, update and delete on leases; without delete, a released Lease stays behind, empty.
type Client interface {
	Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error
	Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error
	Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error
	Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error
	Watch(ctx context.Context, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error)
}

// Holder says who holds a lock, for those who wait for it.
type Holder struct {
	// Identity tells this process from every other one, also from another attempt of the same CI job. Required.
	Identity string
	// RunURL, Actor and Commit are what a CI system tells; any may be empty.
	RunURL string
	Actor  string
	Commit string
}

// String returns the URL if there is one, else the identity, with actor and commit.
func (h Holder) String() string {
	who := h.RunURL
	if who == "" {
		who = fmt.Sprintf("%q", h.Identity)
	}
	var more []string
	if h.Actor != "" {
		more = append(more, h.Actor)
	}
	if h.Commit != "" {
		more = append(more, "commit "+h.Commit[:min(len(h.Commit), 7)])
	}
	if len(more) > 0 {
		who += " (" + strings.Join(more, ", ") + ")"
	}
	return who
}

// Options says which lock is taken and how.
type Options struct {
	// Namespace and Name are the Lease's.
	Namespace string
	Name      string
	Holder    Holder
	// Wait is how long to wait while somebody else holds it; 0 asks once.
	Wait time.Duration
	// Duration is how long the lock lives without being renewed; 0 is DefaultDuration. Whole seconds, the Lease knows no less.
	Duration time.Duration
	// EnsureNamespace is called when the namespace does not exist; nil makes that an error.
	EnsureNamespace func(ctx context.Context) error
	// Waiting, if not nil, is called each time the lock is found to be somebody else's, with what would be the error. It must
	// not block.
	Waiting func(*HeldError)
}

// Lock is a lock that is held. Its methods are safe for concurrent use.
type Lock struct {
	s    *session
	lost chan struct{}
	// values is a context without an end, which has the values of Acquire's: a
	// client may know by them that it is asked for a lock.
	values context.Context

	stop    context.CancelFunc
	running sync.WaitGroup // what renews and what watches

	mu       sync.Mutex
	lease    *coordinationv1.Lease
	until    time.Time // when others may take it, unless it is renewed
	failed   error     // the last renewal; nil if it succeeded
	err      error
	released bool
}

// session is one attempt to get a lock, and then the lock's means to keep it.
type session struct {
	Options
	client  Client
	started time.Time
}

func (s *session) subject() string { return "Lease/" + s.Namespace + "/" + s.Name }

func (s *session) key() client.ObjectKey {
	return client.ObjectKey{Namespace: s.Namespace, Name: s.Name}
}

// Acquire takes the lock, waiting for it as long as o.Wait says. It returns a *HeldError if somebody else kept it, an
// *AccessError if a permission is missing, and the context's cause if that ends first.
//
// The lock is held until Release, whatever becomes of ctx: a run that is cancelled still has records to save.
func Acquire(ctx context.Context, c Client, o Options) (*Lock, error) {
	if o.Duration == 0 {
		o.Duration = DefaultDuration
	}
	if o.Duration < time.Second || o.Duration%time.Second != 0 {
		return nil, fmt.Errorf("a lock lasts whole seconds, not %s", o.Duration)
	}
	if o.Holder.Identity == "" {
		return nil, errors.New("a lock needs a holder with an identity")
	}
	s := &session{Options: o, client: c, started: time.Now()}
	waiting, cancel := context.WithTimeout(ctx, o.Wait)
	defer cancel()
	var held *observed
	for {
		lease, sent, other, err := s.try(ctx, held)
		if err != nil {
			return nil, err
		}
		if lease != nil {
			return s.hold(ctx, lease, sent), nil
		}
		held = other
		failure := s.heldError(held)
		if o.Waiting != nil {
			o.Waiting(failure)
		}
		if err := s.await(waiting, held); err != nil {
			switch {
			case ctx.Err() != nil:
				return nil, context.Cause(ctx)
			case waiting.Err() != nil:
				return nil, s.heldError(held)
			}
			return nil, err
		}
	}
}

// observed is a Lease of somebody else and when it expires by this machine's clock, as far as it is known.
type observed struct {
	lease   *coordinationv1.Lease
	expires time.Time
}

// try makes one attempt. It returns the Lease if it was taken, with the time before the request that took it, else what is in
// the way. seen is what was in the way before, nil at the first attempt.
func (s *session) try(ctx context.Context, seen *observed) (*coordinationv1.Lease, time.Time, *observed, error) {
	if seen == nil {
		// Most often there is none, since a run that ends deletes its own.
		lease, sent, err := s.create(ctx)
		if !apierrors.IsAlreadyExists(err) && !apierrors.IsForbidden(err) {
			return lease, sent, nil, err
		}
	}
	for {
		var live coordinationv1.Lease
		err := s.client.Get(ctx, s.key(), &live)
		if apierrors.IsNotFound(err) {
			lease, sent, err := s.create(ctx)
			if apierrors.IsAlreadyExists(err) {
				continue
			}
			return lease, sent, nil, err
		}
		if err != nil {
			return nil, time.Time{}, nil, s.explain(err, "get")
		}
		if !s.free(&live) {
			now := &observed{lease: &live}
			if seen != nil && seen.lease.UID == live.UID && seen.lease.ResourceVersion == live.ResourceVersion {
				now.expires = seen.expires
			} else if now.expires, err = s.expiry(ctx, &live); err != nil {
				return nil, time.Time{}, nil, err
			}
			if time.Now().Before(now.expires) {
				return nil, time.Time{}, now, nil
			}
		}
		lease, sent, err := s.take(ctx, &live)
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			continue
		}
		return lease, sent, nil, err
	}
}

// free reports whether nobody holds the Lease. One that this holder has already is the trace of a request whose answer got lost.
func (s *session) free(l *coordinationv1.Lease) bool {
	id := l.Spec.HolderIdentity
	return id == nil || *id == "" || *id == s.Holder.Identity
}

func (s *session) create(ctx context.Context) (*coordinationv1.Lease, time.Time, error) {
	for ensured := false; ; ensured = true {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
		if ctx.Err() != nil {
			return nil, time.Time{}, context.Cause(ctx)
		}
		sent := time.Now()
		s.fill(lease, sent, 0)
		whole, cancel := retry.Outlive(ctx, takeGrace)
		err := s.client.Create(whole, lease, client.FieldOwner(fieldOwner))
		cancel()
		switch {
		case err == nil:
			return lease, sent, nil
		case apierrors.IsAlreadyExists(err):
			return nil, sent, err
		case apierrors.IsNotFound(err) && !ensured && s.EnsureNamespace != nil:
			if err := s.EnsureNamespace(ctx); err != nil {
				return nil, sent, fmt.Errorf("cannot take the lock %s: %w", s.subject(), err)
			}
			continue
		}
		return nil, sent, s.explain(err, "create")
	}
}

func (s *session) take(ctx context.Context, live *coordinationv1.Lease) (*coordinationv1.Lease, time.Time, error) {
	lease := live.DeepCopy()
	var transitions int32
	if lease.Spec.LeaseTransitions != nil {
		transitions = *lease.Spec.LeaseTransitions
	}
	sent := time.Now()
	s.fill(lease, sent, transitions+1)
	whole, cancel := retry.Outlive(ctx, takeGrace)
	defer cancel()
	err := s.client.Update(whole, lease, client.FieldOwner(fieldOwner))
	switch {
	case err == nil:
		return lease, sent, nil
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return nil, sent, err
	}
	return nil, sent, s.explain(err, "update")
}

// fill writes this holder into the Lease.
func (s *session) fill(l *coordinationv1.Lease, now time.Time, transitions int32) {
	seconds := int32(s.Duration / time.Second)
	at := metav1.NewMicroTime(now)
	identity := s.Holder.Identity
	l.Spec = coordinationv1.LeaseSpec{
		HolderIdentity: &identity, LeaseDurationSeconds: &seconds, AcquireTime: &at, RenewTime: &at, LeaseTransitions: &transitions,
	}
	if l.Labels == nil {
		l.Labels = map[string]string{}
	}
	l.Labels["app.kubernetes.io/managed-by"] = "sluice"
	if l.Annotations == nil {
		l.Annotations = map[string]string{}
	}
	for key, value := range map[string]string{
		runURLAnnotation: s.Holder.RunURL, actorAnnotation: s.Holder.Actor, commitAnnotation: s.Holder.Commit,
	} {
		if value == "" {
			delete(l.Annotations, key)
			continue
		}
		l.Annotations[key] = value
	}
}

func holderOf(l *coordinationv1.Lease) Holder {
	h := Holder{RunURL: l.Annotations[runURLAnnotation], Actor: l.Annotations[actorAnnotation], Commit: l.Annotations[commitAnnotation]}
	if l.Spec.HolderIdentity != nil {
		h.Identity = *l.Spec.HolderIdentity
	}
	return h
}

func (s *session) heldError(o *observed) *HeldError {
	e := &HeldError{Lease: s.subject(), Holder: holderOf(o.lease), Expires: o.expires}
	if waited := time.Since(s.started); s.Wait > 0 {
		e.Waited = min(waited, s.Wait)
	}
	if at := o.lease.Spec.AcquireTime; at != nil {
		e.Since = at.Time
		e.Age = max(0, time.Since(at.Time))
	}
	return e
}
