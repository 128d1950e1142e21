package health

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/safe"
)

// Options says how to wait.
type Options struct {
	// Timeout limits the wait; 0 sets no limit. That Flux never waits less than 30 seconds (S8.1) is the caller's matter.
	Timeout time.Duration
	// FailFast ends the wait with the first object that has Failed (S6.11), as Flux does by default. Without it the wait goes
	// on until only Failed and Current are left, or the limit.
	FailFast bool
	// Report, if not nil, is called with each change of an object's status or message, always from the goroutine that called
	// Wait. While it runs no news is taken, so it should be quick.
	Report func(Status)
}

// tick is how often the wait looks at what time alone changes.
const tick = time.Second

// firstListsGrace is how long a watch of objects that nobody else awaits waits for the other groups' first lists. If those
// already say that all is well, no watch is ever opened.
const firstListsGrace = time.Second

// Wait waits until every target is Current.
//
// The statuses come back in any case, one per object, sorted. The error is nil if all are Current; a [*NotReadyError] if one
// has Failed or the time is up; and wraps the context's cause if ctx ended, with the statuses as they were then. A status
// error, a kind that is not served or an object that is not found does not end the wait: each may pass (S6.12, S6.13, S6.15).
// A reference that can name nothing does (S6.14).
//
// Nothing counts that is older than [Target.Version], or where there is none, than the call of Wait.
func (h *Hub) Wait(ctx context.Context, targets []Target, o Options) ([]Status, error) {
	started := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	w := &waiter{hub: h, options: o, news: newMailbox()}
	defer w.running.Wait()
	defer w.leavePods()
	defer cancel()

	targets = distinct(targets)
	for _, t := range targets {
		w.objects = append(w.objects, &object{target: t, status: Status{Ref: t.Ref, Status: Unknown, Message: unanswered}})
	}
	h.Expect(targets)
	var limit <-chan time.Time
	if o.Timeout > 0 {
		timer := time.NewTimer(o.Timeout)
		defer timer.Stop()
		limit = timer.C
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()

	if ctx.Err() == nil {
		w.start(ctx)
	}
	for {
		if ctx.Err() != nil {
			return w.statuses(), fmt.Errorf("health check stopped after %s: %w", round(time.Since(started)), context.Cause(ctx))
		}
		if ready, over := w.verdict(); ready {
			return w.statuses(), nil
		} else if over {
			return w.statuses(), w.notReady(false, started)
		}
		w.openWatches()
		select {
		case <-ctx.Done():
		case <-w.news.signal:
			for _, apply := range w.news.take() {
				apply(ctx)
				if _, over := w.verdict(); over {
					// What came after it does not take it back.
					break
				}
			}
		case <-ticker.C:
			w.passTime()
		case <-limit:
			return w.statuses(), w.notReady(true, started)
		}
	}
}

// unanswered is what is said of an object before anything is known of it.
const unanswered = "the cluster has not answered yet"

// waiter is one wait. Its state belongs to the goroutine that called Wait, to which all others send what they learn, so nothing is
// locked.
type waiter struct {
	hub     *Hub
	options Options
	objects []*object
	groups  []*group
	running sync.WaitGroup
	news    *mailbox
	opened  bool
	// wants are how sets are told that a list alone has not been enough.
	wants []func()
}

// verdict reports whether all is Current, and whether the wait is over without that (S6.11, S6.14).
func (w *waiter) verdict() (ready, over bool) {
	counts := map[string]int{}
	for _, o := range w.objects {
		counts[o.status.Status]++
		if isMisnamed(o.status.Err) {
			over = true
		}
	}
	current, failed := counts[Current], counts[Failed]
	if current == len(w.objects) {
		return true, false
	}
	return false, over || failed > 0 && (w.options.FailFast || current+failed == len(w.objects))
}

func (w *waiter) statuses() []Status {
	all := make([]Status, len(w.objects))
	for i, o := range w.objects {
		all[i] = o.status
	}
	return all
}

func (w *waiter) notReady(timedOut bool, started time.Time) error {
	e := &NotReadyError{TimedOut: timedOut, Elapsed: time.Since(started), Timeout: w.options.Timeout}
	for _, o := range w.objects {
		if !o.status.Ready() {
			e.Statuses = append(e.Statuses, o.status)
		}
	}
	return e
}

// start groups the objects and follows each group.
func (w *waiter) start(ctx context.Context) {
	var targets []Target
	for _, o := range w.objects {
		targets = append(targets, o.target)
	}
	w.groups = groupsOf(targets)
	for _, o := range w.objects {
		o.group = find(w.groups, o.target)
		o.group.objects[o.target.Ref.Name] = o
	}
	for _, g := range w.groups {
		w.follow(ctx, g)
	}
}

// follow follows a group in a goroutine of its own. A panic there is one of the wait's own goroutine, which is where the wait
// ends.
func (w *waiter) follow(ctx context.Context, g *group) {
	w.running.Go(func() {
		if err := safe.Do(func() error { w.followGroup(ctx, g); return nil }); err != nil {
			w.news.send(func(context.Context) { safe.Raise(err) })
		}
	})
}

// openWatches has the watches opened of sets that only this wait needs, once there is an answer for every object.
func (w *waiter) openWatches() {
	if w.opened {
		return
	}
	for _, o := range w.objects {
		if !o.answered {
			return
		}
	}
	w.opened = true
	for _, want := range w.wants {
		want()
	}
}

// followGroup finds the kind's resource and follows the group's objects until ctx ends. It runs in a goroutine of its own.
func (w *waiter) followGroup(ctx context.Context, g *group) {
	var p pause
	for ctx.Err() == nil {
		// Asked for before the kind is looked up, so that no change between the two is missed.
		wake := w.hub.kinds.wake(g.kind.Group)
		m, err := resolve(ctx, w.hub.clients.Mapper, g.kind)
		if err == nil {
			var namespace string
			if namespace, err = namespaceFor(m, flux.Ref{Kind: g.kind.Kind, Namespace: g.namespace}); err == nil {
				err = w.followObjects(ctx, g, m, namespace)
			}
		}
		safe.Raise(err) // one of a watch that others share
		var s Status
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case isMisnamed(err):
			w.news.send(func(context.Context) {
				w.setAll(g, func(r flux.Ref) Status { return Status{Status: Unknown, Err: &misnamedError{r}} })
			})
			return
		case meta.IsNoMatchError(err) || err == errGone:
			// S6.15: not an error; the kind may come.
			s = Status{Status: Unknown, Message: fmt.Sprintf("the cluster does not serve kind %s of %s", g.kind.Kind, apiGroup(g.kind))}
			w.hub.awaitKinds()
		default:
			// Discovery failed. Flux ends the wait here (S6.14); a run that has one chance tries again.
			s = Status{Status: Unknown, Err: err}
		}
		w.news.send(func(context.Context) { w.setAll(g, func(flux.Ref) Status { return s }) })
		if !p.wait(ctx, wake) {
			return
		}
		meta.MaybeResetRESTMapper(w.hub.clients.Mapper)
	}
}

// followObjects follows a group's objects in the widest set that may be listed, or each in one of its own if the account may only
// read objects by name. It returns errGone if the resource is not served, nil if ctx has ended.
func (w *waiter) followObjects(ctx context.Context, g *group, m *meta.RESTMapping, namespace string) error {
	for {
		s := w.hub.join(m, namespace, g)
		if s == nil {
			break
		}
		if err := w.followIn(ctx, s, g, namespace, g.objects); !apierrors.IsForbidden(err) {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(g.objects))
	for name, o := range g.objects {
		go func() {
			errs <- safe.Do(func() error {
				return w.followIn(ctx, w.hub.joinOne(m, namespace, name, g.whole), g, namespace, map[string]*object{name: o})
			})
		}()
	}
	// The first that ends ends all: the context has, or the resource is gone.
	var first error
	for i := range len(g.objects) {
		if err := <-errs; i == 0 {
			first = err
			cancel()
		}
	}
	return first
}

// followIn follows objects in a set, which it leaves, until ctx or the set ends. It returns why the set did, nil if ctx did.
func (w *waiter) followIn(ctx context.Context, s *set, g *group, namespace string, objects map[string]*object) error {
	defer w.hub.leave(s)
	w.news.send(func(context.Context) {
		if w.wants = append(w.wants, s.want); w.opened {
			s.want()
		}
	})
	for name, o := range objects {
		sub := &subscriber{key: types.NamespacedName{Namespace: namespace, Name: name}, floor: o.target.Version}
		sub.told = func(k known, err error) {
			w.news.send(func(waitCtx context.Context) {
				// What is on its way when the object is looked for elsewhere is of no use any more.
				if ctx.Err() == nil && o.group == g {
					w.take(waitCtx, o, k, err, s.labelled())
				}
			})
		}
		s.subscribe(sub)
		defer s.unsubscribe(sub)
	}
	s.begin()
	select {
	case <-ctx.Done():
		return nil
	case <-s.ended:
		return s.end
	}
}

// take applies what was learned of an object. labelled says that only objects with the owner labels would have been seen.
func (w *waiter) take(ctx context.Context, o *object, k known, err error, labelled bool) {
	o.answered = true
	switch {
	case err != nil:
		o.last = nil
		w.set(o, Status{Status: Unknown, Err: err})
	case !k.gone && k.object == nil:
		o.last = nil
		w.set(o, k.result)
	case !k.gone:
		o.last = k.object
		w.judge(ctx, o)
	case o.target.TTLJob && k.result.Status == Failed:
		o.last = nil // the Job has deleted itself, and what it was before counts
		w.set(o, k.result)
	case labelled:
		w.seek(ctx, o)
	default:
		w.setMissing(o)
	}
}

// seek looks for an object that is not among those with the owner labels: it may not exist, or something has taken them off.
func (w *waiter) seek(ctx context.Context, o *object) {
	if o.status.Status == Current {
		o.last = nil
		w.set(o, Status{Status: Unknown, Message: unanswered})
	}
	o.target.Owner = flux.ID{}
	o.group = &group{kind: o.group.kind, namespace: o.group.namespace, whole: o.group.whole, objects: map[string]*object{o.target.Ref.Name: o}}
	g := o.group
	w.follow(ctx, g)
}

// setMissing applies S6.12.
func (w *waiter) setMissing(o *object) {
	o.last = nil
	if o.target.TTLJob {
		w.set(o, Status{Status: Current, Message: "the Job has finished and deleted itself"})
		return
	}
	w.set(o, Status{Status: NotFound, Message: "the object does not exist"})
}

// judge sets the status that follows from what is known of an object, and keeps of it only what will be needed again.
func (w *waiter) judge(ctx context.Context, o *object) {
	s := evaluate(ctx, o.target, o.last, o.pods)
	if t := podTrouble(o.pods); t != "" {
		o.trouble = t
	} else if s.Status == Failed && o.trouble != "" && isJob(o.last.GroupVersionKind().GroupKind()) {
		s.Message += "; " + o.trouble
	}
	_, hasPods := podSelector(o.last)
	if s.Status == Current || !hasPods && o.last.GroupVersionKind().GroupKind() != podKind {
		o.last = nil
	}
	w.set(o, s)
}

// setAll gives all objects of a group the same status.
func (w *waiter) setAll(g *group, s func(flux.Ref) Status) {
	for _, o := range g.objects {
		if o.group != g {
			continue // it is looked for elsewhere
		}
		o.answered, o.last = true, nil
		w.set(o, s(o.target.Ref))
	}
}

func (w *waiter) set(o *object, s Status) {
	s.Ref = o.target.Ref
	if s.Status != o.status.Status {
		o.since = time.Now()
	}
	if o.last == nil && o.stopPods != nil {
		o.stopPods()
		o.stopPods, o.pods = nil, nil
	}
	changed := !s.same(o.status)
	o.status = s
	if changed && w.options.Report != nil {
		w.options.Report(s)
	}
}

// passTime does what becomes due without any news: it looks at the pods of workloads that take longer than a moment, and judges
// pods again, whose rule knows an age (S6.23).
func (w *waiter) passTime() {
	for _, o := range w.objects {
		if o.last == nil {
			continue
		}
		if o.last.GroupVersionKind().GroupKind() == podKind {
			w.judge(context.Background(), o)
			continue
		}
		if o.stopPods == nil && time.Since(o.since) >= tick && o.status.Status == InProgress {
			w.followPods(o)
		}
	}
}

// followPods follows the pods of a workload.
func (w *waiter) followPods(o *object) {
	selector, ok := podSelector(o.last)
	if !ok {
		return
	}
	f := &podFollower{selector: selector}
	f.told = func(pods map[string]podState) {
		w.news.send(func(ctx context.Context) {
			if o.last != nil && o.stopPods != nil {
				o.pods = pods
				w.judge(ctx, o)
			}
		})
	}
	// Without a place the workload's own status decides alone, and another tick tries again.
	if stop, ok := w.hub.pods.follow(o.last.GetNamespace(), f, podsDecide(o.last.GroupVersionKind().GroupKind())); ok {
		o.stopPods = stop
	}
}

// leavePods ends what the wait follows of pods.
func (w *waiter) leavePods() {
	for _, o := range w.objects {
		if o.stopPods != nil {
			o.stopPods()
			o.stopPods = nil
		}
	}
}

func apiGroup(gk schema.GroupKind) string {
	if gk.Group == "" {
		return "the core group"
	}
	return "group " + gk.Group
}
