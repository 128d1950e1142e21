package lock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/kubetest"
)

func connect(t *testing.T, user string) client.WithWatch {
	t.Helper()
	config := kubetest.Shared(t).Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: user}
	c, err := client.NewWithWatch(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func options(namespace, identity string) Options {
	return Options{Namespace: namespace, Name: "sluice-root.flux-system.flux-system", Duration: 2 * time.Second,
		Holder: Holder{Identity: identity, RunURL: "https://ci.example.com/" + identity, Actor: "ada", Commit: "4f2c1d9aaaa"}}
}

func acquire(t *testing.T, c Client, o Options) *Lock {
	t.Helper()
	l, err := Acquire(t.Context(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Release(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func lease(t *testing.T, c client.Client, namespace string) *coordinationv1.Lease {
	t.Helper()
	var l coordinationv1.Lease
	err := c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "sluice-root.flux-system.flux-system"}, &l)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return &l
}

// wait fails the test if what is waited for does not happen.
func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("%s did not happen", what)
	}
	panic("unreachable")
}

func TestLoserLearnsWhoHoldsIt(t *testing.T) {
	t.Parallel()
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	acquire(t, c, options(namespace, "one"))
	_, err := Acquire(t.Context(), c, options(namespace, "two"))
	var held *HeldError
	if !errors.As(err, &held) {
		t.Fatalf("got %v", err)
	}
	if held.Holder != options("", "one").Holder || held.Since.IsZero() || held.Expires.Before(time.Now()) {
		t.Errorf("got %+v", held)
	}
	want := "the lock Lease/" + namespace + "/sluice-root.flux-system.flux-system is held by https://ci.example.com/one (ada, commit 4f2c1d9) for "
	if age, ok := strings.CutPrefix(err.Error(), want); !ok || !strings.HasSuffix(age, "s") {
		t.Errorf("got  %s\nwant %s…", err, want)
	}
	if held.Hint() == "" {
		t.Error("no hint")
	}
}

func TestReleaseLetsTheWaiterInAtOnce(t *testing.T) {
	t.Parallel()
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	first := options(namespace, "one")
	first.Duration = time.Hour
	one := acquire(t, c, first)
	second := options(namespace, "two")
	second.Wait = time.Minute
	waiting := make(chan *HeldError, 10)
	second.Waiting = func(e *HeldError) { waiting <- e }
	got := make(chan error, 1)
	go func() {
		l, err := Acquire(t.Context(), c, second)
		if err == nil {
			err = l.Release()
		}
		got <- err
	}()
	if e := wait(t, "the call of Waiting", waiting); e.Holder.Identity != "one" {
		t.Errorf("Waiting was told %v", e)
	}
	started := time.Now()
	if err := one.Release(); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, "the second lock", got); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(started); took > 30*time.Second {
		t.Errorf("the waiter needed %s", took)
	}
	if l := lease(t, c, namespace); l != nil {
		t.Errorf("a released lock left %+v", l)
	}
	if err := one.Release(); err != nil {
		t.Error(err)
	}
	select {
	case <-one.Lost():
		t.Error("a released lock says that it was lost")
	default:
	}
}

// kill makes a lock behave as that of a process that was killed: it is neither renewed nor released.
func kill(l *Lock) {
	l.mu.Lock()
	l.released = true
	l.mu.Unlock()
	l.stop()
	l.running.Wait()
}

func TestLockOfAKilledRunFreesItself(t *testing.T) {
	t.Parallel()
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	one, err := Acquire(t.Context(), c, options(namespace, "one"))
	if err != nil {
		t.Fatal(err)
	}
	kill(one)
	started := time.Now()
	second := options(namespace, "two")
	second.Wait = time.Minute
	acquire(t, c, second)
	// Whole seconds of the server's clock may add one to the 2 seconds of the lock.
	if took := time.Since(started); took > 15*time.Second {
		t.Errorf("took over after %s", took)
	}
	if l := lease(t, c, namespace); *l.Spec.HolderIdentity != "two" || *l.Spec.LeaseTransitions != 1 {
		t.Errorf("got %+v", l.Spec)
	}
}

func TestLongExpiredLockIsTakenWithoutWaiting(t *testing.T) {
	t.Parallel()
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	first := options(namespace, "one")
	one, err := Acquire(t.Context(), c, first)
	if err != nil {
		t.Fatal(err)
	}
	kill(one)
	// The holder's clock is an hour ahead: it must not count.
	l := lease(t, c, namespace)
	ahead := metav1.NewMicroTime(time.Now().Add(time.Hour))
	l.Spec.RenewTime, l.Spec.AcquireTime = &ahead, &ahead
	if err := c.Update(t.Context(), l, client.FieldOwner(fieldOwner)); err != nil {
		t.Fatal(err)
	}
	// With Wait 0 an attempt never waits, so only the server's clock can tell that the time is over.
	attempts := 0
	for {
		attempts++
		two, err := Acquire(t.Context(), c, options(namespace, "two"))
		if err == nil {
			if err := two.Release(); err != nil {
				t.Fatal(err)
			}
			break
		}
		var held *HeldError
		if !errors.As(err, &held) {
			t.Fatal(err)
		}
		if until := time.Until(held.Expires); until > 4*time.Second {
			t.Fatalf("the holder's clock was believed: expires in %s", until)
		}
		timer := time.NewTimer(time.Until(held.Expires))
		<-timer.C
	}
	if attempts > 4 {
		t.Errorf("needed %d attempts", attempts)
	}
}

// A clock that is an hour behind makes no lock old: what counts is that it is seen to be renewed.
func TestLockOfASlowClockIsNotTaken(t *testing.T) {
	t.Parallel()
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	first := options(namespace, "one")
	first.Duration = 4 * time.Second
	one, err := Acquire(t.Context(), c, first)
	if err != nil {
		t.Fatal(err)
	}
	kill(one)
	renewed := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for l := one.current().DeepCopy(); ; {
			behind := metav1.NewMicroTime(time.Now().Add(-time.Hour))
			l.Spec.RenewTime, l.Spec.AcquireTime = &behind, &behind
			if err := c.Update(t.Context(), l, client.FieldOwner(fieldOwner)); err != nil {
				renewed <- err
				return
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				renewed <- nil
				return
			}
		}
	}()
	second := options(namespace, "two")
	second.Wait = 9 * time.Second
	_, err = Acquire(t.Context(), c, second)
	stop()
	if err := wait(t, "the end of the renewals", renewed); err != nil {
		t.Fatal(err)
	}
	var held *HeldError
	if !errors.As(err, &held) || held.Waited != second.Wait {
		t.Fatalf("got %v", err)
	}
}

// The holder learns of a loss by a watch, not only by its renewals: here the first of them would come after 20 minutes.
func TestLossIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	for name, disturb := range map[string]func(c client.Client, l *coordinationv1.Lease) error{
		"deleted": func(c client.Client, l *coordinationv1.Lease) error { return c.Delete(context.Background(), l) },
		"taken": func(c client.Client, l *coordinationv1.Lease) error {
			other := "thief"
			l.Spec.HolderIdentity = &other
			return c.Update(context.Background(), l)
		},
		"made anew": func(c client.Client, l *coordinationv1.Lease) error {
			if err := c.Delete(context.Background(), l); err != nil {
				return err
			}
			return c.Create(context.Background(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: l.Name}, Spec: l.Spec})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := connect(t, "")
			namespace := kubetest.Namespace(t, kubetest.Shared(t))
			o := options(namespace, "one")
			o.Duration = time.Hour
			one := acquire(t, c, o)
			// Something else of the Lease may change.
			l := lease(t, c, namespace)
			l.Labels["touched"] = "by-hand"
			if err := c.Update(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			if err := one.Valid(); err != nil {
				t.Fatal(err)
			}
			if err := disturb(c, l); err != nil {
				t.Fatal(err)
			}
			wait(t, "the loss", one.Lost())
			if err := one.Valid(); err == nil || err != one.Err() {
				t.Errorf("Valid says %v, and Err %v", err, one.Err())
			}
		})
	}
}

// Who did not run while the lock ran out learns so from the time: nothing else has told it.
func TestValidGoesByTheTime(t *testing.T) {
	t.Parallel()
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	one, err := Acquire(t.Context(), c, options(namespace, "one"))
	if err != nil {
		t.Fatal(err)
	}
	one.stop() // nothing renews and nothing watches from here on
	one.running.Wait()
	second := options(namespace, "two")
	second.Wait = time.Minute
	acquire(t, c, second)
	var lost *LostError
	if one.Err() != nil || !errors.As(one.Valid(), &lost) || one.Err() != lost {
		t.Errorf("two hold the lock: %v", one.Err())
	}
	wait(t, "the loss", one.Lost())
	if err := one.Release(); err != nil || *lease(t, c, namespace).Spec.HolderIdentity != "two" {
		t.Errorf("releasing a lost lock: %v", err)
	}
}

func TestServersNoteFollowsEveryRenewal(t *testing.T) {
	t.Parallel()
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	o := options(namespace, "one")
	o.Duration = renewals * 2 * time.Second
	acquire(t, c, o)
	w, err := c.Watch(t.Context(), &coordinationv1.LeaseList{}, client.InNamespace(namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	first := lastWritten(wait(t, "the lease", w.ResultChan()).Object.(*coordinationv1.Lease))
	second := lastWritten(wait(t, "a renewal", w.ResultChan()).Object.(*coordinationv1.Lease))
	if gap := second.Sub(first); gap < time.Second || gap > 30*time.Second {
		t.Errorf("renewed every 2s, and the server notes %s", gap)
	}
}

func TestRenewedLockOutlivesItsDuration(t *testing.T) {
	t.Parallel()
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	first := options(namespace, "one")
	first.Duration = 4 * time.Second
	one := acquire(t, c, first)
	second := options(namespace, "two")
	second.Wait = 9 * time.Second
	_, err := Acquire(t.Context(), c, second)
	var held *HeldError
	if !errors.As(err, &held) || held.Waited != second.Wait {
		t.Fatalf("got %v", err)
	}
	select {
	case <-one.Lost():
		t.Error(one.Err())
	default:
	}
}

func TestContendersNeverHoldItTogether(t *testing.T) {
	t.Parallel()
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	var holders, most atomic.Int32
	var wg sync.WaitGroup
	for i := range 6 {
		c := connect(t, "")
		wg.Go(func() {
			for round := range 3 {
				o := options(namespace, fmt.Sprintf("%d-%d", i, round))
				o.Wait, o.Duration = time.Minute, 10*time.Second
				l, err := Acquire(t.Context(), c, o)
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n > 1 {
					most.Store(n)
				}
				holders.Add(-1)
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() > 1 {
		t.Errorf("%d held the lock at once", most.Load())
	}
}

func TestLost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		disturb func(t *testing.T, c client.Client, l *coordinationv1.Lease)
		want    string
	}{
		"taken": {func(t *testing.T, c client.Client, l *coordinationv1.Lease) {
			other := "thief"
			for {
				l.Spec.HolderIdentity = &other
				err := c.Update(t.Context(), l)
				if err == nil {
					return
				}
				if !apierrors.IsConflict(err) {
					t.Fatal(err)
				}
				if err := c.Get(t.Context(), client.ObjectKeyFromObject(l), l); err != nil {
					t.Fatal(err)
				}
			}
		}, "to https://ci.example.com/one (ada, commit 4f2c1d9)"},
		"deleted": {func(t *testing.T, c client.Client, l *coordinationv1.Lease) {
			if err := c.Delete(t.Context(), l); err != nil {
				t.Fatal(err)
			}
		}, "somebody deleted it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := connect(t, "")
			namespace := kubetest.Namespace(t, kubetest.Shared(t))
			o := options(namespace, "one")
			o.Duration = 6 * time.Second
			one := acquire(t, c, o)
			if err := one.Err(); err != nil {
				t.Fatal(err)
			}
			tt.disturb(t, c, lease(t, c, namespace))
			wait(t, "the loss", one.Lost())
			var lost *LostError
			if err := one.Err(); !errors.As(err, &lost) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err := one.Release(); err != nil {
				t.Error(err)
			}
			if name == "taken" && *lease(t, c, namespace).Spec.HolderIdentity != "thief" {
				t.Error("releasing a lost lock took it from its new holder")
			}
		})
	}
}

// cut is a client whose writes fail from a moment on.
type cut struct {
	client.WithWatch
	off atomic.Bool
}

func (c *cut) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	if c.off.Load() {
		return errors.New("no route to host")
	}
	return c.WithWatch.Update(ctx, o, opts...)
}

func TestLostWhenItCannotBeRenewed(t *testing.T) {
	t.Parallel()
	c := &cut{WithWatch: connect(t, "")}
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	one, err := Acquire(t.Context(), c, options(namespace, "one"))
	if err != nil {
		t.Fatal(err)
	}
	c.off.Store(true)
	// A contender must not get it before the holder knows that it has lost it.
	second := options(namespace, "two")
	second.Wait = time.Minute
	two := acquire(t, connect(t, ""), second)
	select {
	case <-one.Lost():
	default:
		t.Error("two hold the lock")
	}
	wait(t, "the loss", one.Lost())
	if want := "could not be renewed in time: no route to host"; !strings.Contains(one.Err().Error(), want) {
		t.Errorf("got %v, want %q", one.Err(), want)
	}
	if err := two.Err(); err != nil {
		t.Error(err)
	}
}

func TestLockOutlivesACancelledRun(t *testing.T) {
	t.Parallel()
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	ctx, cancel := context.WithCancelCause(t.Context())
	first := options(namespace, "one")
	first.Duration = 4 * time.Second
	one, err := Acquire(ctx, c, first)
	if err != nil {
		t.Fatal(err)
	}
	cancel(errors.New("interrupted"))
	second := options(namespace, "two")
	second.Wait = 7 * time.Second
	var held *HeldError
	if _, err := Acquire(t.Context(), c, second); !errors.As(err, &held) {
		t.Fatalf("got %v", err)
	}
	// And a waiter that is cancelled says why.
	second.Wait = time.Minute
	if _, err := Acquire(ctx, c, second); err == nil || !strings.Contains(err.Error(), "interrupted") && !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if err := one.Release(); err != nil {
		t.Fatal(err)
	}
	if lease(t, c, namespace) != nil {
		t.Error("the lease is still there")
	}
}

func TestMissingNamespace(t *testing.T) {
	t.Parallel()
	c := connect(t, "")
	missing := kubetest.Namespace(t, kubetest.Shared(t)) + "-missing"
	if _, err := Acquire(t.Context(), c, options(missing, "one")); !apierrors.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	o := options(missing, "one")
	existing := kubetest.Namespace(t, kubetest.Shared(t))
	calls := 0
	o.EnsureNamespace = func(context.Context) error {
		calls++
		if calls > 1 {
			t.Error("asked twice")
		}
		return errors.New("not mine to make: " + existing)
	}
	if _, err := Acquire(t.Context(), c, o); err == nil || !strings.Contains(err.Error(), "not mine to make") {
		t.Errorf("got %v", err)
	}
}

func TestMissingPermissionsAreNamed(t *testing.T) {
	t.Parallel()
	admin := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	_, err := Acquire(t.Context(), connect(t, "nobody"), options(namespace, "one"))
	var access *AccessError
	if !errors.As(err, &access) || access.Verb != "get" ||
		!strings.Contains(err.Error(), fmt.Sprintf("not allowed to get leases.coordination.k8s.io in namespace %q", namespace)) ||
		!strings.Contains(access.Hint(), "grant the verbs get, watch, create, update and delete on leases") {
		t.Errorf("got %v", err)
	}

	// Everything but delete: the Lease stays behind, empty, and is free.
	for _, o := range []client.Object{
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "locker"}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "watch", "create", "update"}}}},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "locker"},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "locker"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "locker"}}},
	} {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	locker := connect(t, "locker")
	var one *Lock
	for one == nil {
		// The authorizer learns of the Role in its own time.
		if one, err = Acquire(t.Context(), locker, options(namespace, "one")); err != nil && !errors.As(err, &access) {
			t.Fatal(err)
		}
	}
	if err := one.Release(); err != nil {
		t.Fatal(err)
	}
	if l := lease(t, admin, namespace); l == nil || *l.Spec.HolderIdentity != "" {
		t.Errorf("got %+v", l)
	}
	acquire(t, locker, options(namespace, "two"))
}

// Without the permission to watch, who waits asks now and then, and who holds the lock learns of its loss by renewing.
func TestWithoutWatching(t *testing.T) {
	t.Parallel()
	c := &unwatched{connect(t, "")}
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	first := options(namespace, "one")
	first.Duration = 30 * time.Second
	one := acquire(t, c, first)
	second := options(namespace, "two")
	second.Wait = time.Minute
	waiting := make(chan *HeldError, 100)
	second.Waiting = func(e *HeldError) { waiting <- e }
	got := make(chan *Lock, 1)
	go func() {
		l, err := Acquire(t.Context(), c, second)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	for range 2 { // it has asked again
		wait(t, "the call of Waiting", waiting)
	}
	if err := one.Release(); err != nil {
		t.Fatal(err)
	}
	two := wait(t, "the second lock", got)
	if two == nil {
		return
	}
	if err := two.Release(); err != nil {
		t.Error(err)
	}
	third := options(namespace, "three")
	third.Duration = 6 * time.Second
	three := acquire(t, c, third)
	if err := c.Delete(t.Context(), lease(t, c, namespace)); err != nil {
		t.Fatal(err)
	}
	wait(t, "the loss", three.Lost())
}

// unwatched is a client that may not watch.
type unwatched struct{ client.WithWatch }

func (c *unwatched) Watch(context.Context, client.ObjectList, ...client.ListOption) (watch.Interface, error) {
	return nil, apierrors.NewForbidden(coordinationv1.Resource("leases"), "", errors.New(`User "x" cannot watch resource`))
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]Options{
		"a lock lasts whole seconds, not 1.5s":   {Holder: Holder{Identity: "a"}, Duration: 1500 * time.Millisecond},
		"a lock needs a holder with an identity": {},
	} {
		if _, err := Acquire(t.Context(), nil, o); err == nil || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// silent is a server that never answers.
type silent struct{ Client }

func (silent) Update(ctx context.Context, _ client.Object, _ ...client.UpdateOption) error {
	<-ctx.Done()
	return ctx.Err()
}

// A lock that cannot be renewed, because its server or the store behind that does not answer, is given up so long before it ends
// that what was being written then has ended, too; an outage that is shorter it survives.
func TestGivenUpBeforeItEnds(t *testing.T) {
	for _, test := range []struct{ duration, life time.Duration }{
		{DefaultDuration, 25 * time.Second}, {8 * time.Second, 6 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &session{Options: options("ns", "one"), client: silent{}}
			s.Duration = test.duration
			began := time.Now()
			l := s.hold(t.Context(), &coordinationv1.Lease{}, began)
			<-l.Lost()
			if spent := time.Since(began); spent != test.life {
				t.Errorf("a lock of %s was given up after %s, want %s", test.duration, spent, test.life)
			}
			if err := l.Release(); err != nil {
				t.Error(err)
			}
		})
	}
}

// heldBack is a server whose answers something on the way holds back until there is the first event.
type heldBack struct{ client.WithWatch }

func (heldBack) Watch(ctx context.Context, _ client.ObjectList, _ ...client.ListOption) (watch.Interface, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Of a holder that was killed there are no events any more.
func TestLockOfAKilledRunIsTakenThoughTheWatchDoesNotOpen(t *testing.T) {
	t.Parallel()
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	one, err := Acquire(t.Context(), c, options(namespace, "one"))
	if err != nil {
		t.Fatal(err)
	}
	kill(one)
	second := options(namespace, "two")
	second.Wait = time.Minute
	acquire(t, heldBack{c}, second)
}
