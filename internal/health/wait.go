package health

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
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

// firstListsGrace is how long a watch waits for the other groups' first lists. If those already say that all is well, no watch
// is ever opened.
const firstListsGrace = time.Second

// Wait waits until every target is Current.
//
// The statuses come back in any case, one per object, sorted. The error is nil if all are Current; a [*NotReadyError] if one
// has Failed or the time is up; and wraps the context's cause if ctx ended, with the statuses as they were then. A status
// error, a kind that is not served or an object that is not found does not end the wait: each may pass (S6.12, S6.13, S6.15).
// A reference that can name nothing does (S6.14).
func Wait(ctx context.Context, c Clients, targets []Target, o Options) ([]Status, error) {
	started := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	w := &waiter{clients: c, options: o, news: make(chan news), allListed: make(chan struct{})}
	defer w.running.Wait()
	defer cancel()

	for _, t := range distinct(targets) {
		w.objects = append(w.objects, &object{target: t, status: Status{Ref: t.Ref, Status: Unknown, Message: "the cluster has not answered yet"}})
	}
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
		case n := <-w.news:
			n.apply(ctx)
		case <-ticker.C:
			w.passTime(ctx)
		case <-limit:
			return w.statuses(), w.notReady(true, started)
		}
	}
}

// waiter is one wait. Everything but the goroutines of streams runs in the goroutine that called Wait, so nothing is locked.
type waiter struct {
	clients Clients
	options Options
	objects []*object
	groups  []*group
	running sync.WaitGroup

	// news carries what streams learn to the one goroutine that keeps the state.
	news chan news
	// allListed is closed when every group has answered once.
	allListed chan struct{}
	opened    bool

	kinds     newKinds
	kindsOnce sync.Once
}

// news is a change to the state, made in the waiter's goroutine.
type news struct{ apply func(ctx context.Context) }

// object is what is known of a target.
type object struct {
	target Target
	status Status
	// last is kept for objects that are not Current and whose status depends on more than themselves: their pods, or time.
	last  *unstructured.Unstructured
	since time.Time
	pods  map[string]podState
	// trouble is the last that the pods had: a Job that fails deletes its pods first.
	trouble string
	// stopPods ends the watch of the pods; nil while there is none.
	stopPods context.CancelFunc
}

// group is what one list can answer: objects of one kind in one namespace.
type group struct {
	kind      schema.GroupKind
	namespace string
	objects   map[string]*object
	answered  bool
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
	type key struct {
		kind      schema.GroupKind
		namespace string
	}
	groups := map[key]*group{}
	for _, o := range w.objects {
		k := key{o.target.Ref.GVK().GroupKind(), o.target.Ref.Namespace}
		g := groups[k]
		if g == nil {
			g = &group{kind: k.kind, namespace: k.namespace, objects: map[string]*object{}}
			groups[k] = g
			w.groups = append(w.groups, g)
		}
		g.objects[o.target.Ref.Name] = o
	}
	for _, g := range w.groups {
		w.running.Go(func() { w.followGroup(ctx, g) })
	}
}

// openWatches lets the streams go on from their lists to their watches once every group has answered.
func (w *waiter) openWatches() {
	if w.opened {
		return
	}
	for _, g := range w.groups {
		if !g.answered {
			return
		}
	}
	w.opened = true
	close(w.allListed)
}

// send hands news over; false when the wait has ended.
func (w *waiter) send(ctx context.Context, apply func(ctx context.Context)) bool {
	select {
	case w.news <- news{apply}:
		return true
	case <-ctx.Done():
		return false
	}
}

// followGroup finds the kind's resource and follows the group's objects until ctx ends. It runs in a goroutine of its own.
func (w *waiter) followGroup(ctx context.Context, g *group) {
	var p pause
	wholeObject := false
	for _, o := range g.objects {
		wholeObject = wholeObject || o.target.Expr != nil
	}
	for ctx.Err() == nil {
		// Asked for before the kind is looked up, so that no change between the two is missed.
		wake := w.kinds.wake(g.kind.Group)
		m, err := resolve(ctx, w.clients.Mapper, g.kind)
		if err == nil {
			var namespace string
			if namespace, err = namespaceFor(m, flux.Ref{Kind: g.kind.Kind, Namespace: g.namespace}); err == nil {
				err = w.followObjects(ctx, g, newLister(w.clients, m, namespace, wholeObject))
			}
		}
		var s Status
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case isMisnamed(err):
			w.send(ctx, func(context.Context) {
				w.setAll(g, func(r flux.Ref) Status { return Status{Status: Unknown, Err: &misnamedError{r}} })
			})
			return
		case meta.IsNoMatchError(err) || err == errGone:
			// S6.15: not an error; the kind may come.
			s = Status{Status: Unknown, Message: fmt.Sprintf("the cluster does not serve kind %s of %s", g.kind.Kind, apiGroup(g.kind))}
			w.kindsOnce.Do(func() { w.running.Go(func() { w.kinds.watch(ctx, w.clients) }) })
		default:
			// Discovery failed. Flux ends the wait here (S6.14); a run that has one chance tries again.
			s = Status{Status: Unknown, Err: err}
		}
		if !w.send(ctx, func(context.Context) { w.setAll(g, func(flux.Ref) Status { return s }) }) || !p.wait(ctx, wake) {
			return
		}
		meta.MaybeResetRESTMapper(w.clients.Mapper)
	}
}

// followObjects follows a group's objects with one stream, or one for each if the account may only read objects by name. It
// returns errGone if the resource is not served, nil if ctx has ended.
func (w *waiter) followObjects(ctx context.Context, g *group, l lister) error {
	if len(g.objects) > 1 {
		err := w.stream(ctx, g, l, g.objects, "").run(ctx, true)
		if !apierrors.IsForbidden(err) {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(g.objects))
	for name, o := range g.objects {
		s := w.stream(ctx, g, l, map[string]*object{name: o}, name)
		go func() { errs <- s.run(ctx, false) }()
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

func (w *waiter) stream(ctx context.Context, g *group, l lister, objects map[string]*object, name string) *stream {
	return &stream{
		lister: l,
		name:   name,
		keep:   func(o *unstructured.Unstructured) bool { return objects[o.GetName()] != nil },
		emit: func(b batch) bool {
			return w.send(ctx, func(ctx context.Context) { w.take(ctx, g, objects, b) })
		},
		listed: w.awaitLists,
	}
}

// awaitLists keeps a stream from opening its watch before the other groups' first lists are in.
func (w *waiter) awaitLists(ctx context.Context) bool {
	grace := time.NewTimer(firstListsGrace)
	defer grace.Stop()
	select {
	case <-w.allListed:
	case <-grace.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// take applies a batch to a group's objects.
func (w *waiter) take(ctx context.Context, g *group, objects map[string]*object, b batch) {
	g.answered = true
	if b.err != nil {
		for _, o := range objects {
			o.last = nil
			w.set(o, Status{Status: Unknown, Err: b.err})
		}
		return
	}
	seen := map[string]bool{}
	for _, u := range b.objects {
		seen[u.GetName()] = true
		if o := objects[u.GetName()]; o != nil {
			o.last = u
			w.judge(ctx, o)
		}
	}
	for _, u := range b.deleted {
		if o := objects[u.GetName()]; o != nil {
			w.setMissing(o)
		}
	}
	if b.replace {
		for name, o := range objects {
			if !seen[name] {
				w.setMissing(o)
			}
		}
	}
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

// setAll gives all objects of a group the same status, unless it was answered meanwhile.
func (w *waiter) setAll(g *group, s func(flux.Ref) Status) {
	g.answered = true
	for _, o := range g.objects {
		o.last = nil
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
func (w *waiter) passTime(ctx context.Context) {
	for _, o := range w.objects {
		if o.last == nil {
			continue
		}
		if o.last.GroupVersionKind().GroupKind() == podKind {
			w.judge(ctx, o)
			continue
		}
		if o.stopPods == nil && time.Since(o.since) >= tick && o.status.Status == InProgress {
			w.followPods(ctx, o)
		}
	}
}

// followPods follows the pods of a workload. An account that may not is no failure: the workload's own status then decides
// alone.
func (w *waiter) followPods(ctx context.Context, o *object) {
	selector, ok := podSelector(o.last)
	if !ok {
		return
	}
	ctx, o.stopPods = context.WithCancel(ctx)
	s := &stream{
		lister: dynamicLister{w.clients.Dynamic.Resource(podResource).Namespace(o.last.GetNamespace())},
		labels: selector.String(),
	}
	s.emit = func(b batch) bool {
		return w.send(ctx, func(waitCtx context.Context) {
			if ctx.Err() == nil && b.err == nil {
				w.takePods(waitCtx, o, b)
			}
		})
	}
	w.running.Go(func() {
		// Forbidden is told by what is not said, and pods are always served.
		_ = s.run(ctx, true)
	})
}

func (w *waiter) takePods(ctx context.Context, o *object, b batch) {
	if b.replace || o.pods == nil {
		o.pods = map[string]podState{}
	}
	for _, p := range b.objects {
		o.pods[p.GetName()] = podStateOf(p)
	}
	for _, p := range b.deleted {
		delete(o.pods, p.GetName())
	}
	if o.last != nil {
		w.judge(ctx, o)
	}
}

func apiGroup(gk schema.GroupKind) string {
	if gk.Group == "" {
		return "the core group"
	}
	return "group " + gk.Group
}
