package health

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/sluicerun/sluice/internal/safe"
)

// lagLimit is how long a watch may owe what was written before the set is listed again. Events of a healthy server come within
// milliseconds.
const lagLimit = 2 * time.Second

// setKey says which objects a set holds.
type setKey struct {
	resource schema.GroupVersionResource
	// namespace is empty for the whole cluster, and for what has none; name is empty for all objects.
	namespace, name string
	// labels restricts the set to what matches; see [Hub.selector].
	labels string
	// whole says that the objects are wanted with all that they hold.
	whole bool
}

// labelled reports whether the set holds only objects that carry labels, so that a missing one may exist without them.
func (k setKey) labelled() bool { return k.labels != "" }

// set is what one list and one watch have told of a set of objects, for all who wait for some of them. It is safe for
// concurrent use.
type set struct {
	setKey
	kind   schema.GroupVersionKind
	stream *stream
	// begin starts the stream, unless it has been started: after the first subscription, so that the first list is one that
	// begins after that.
	begin  func()
	cancel context.CancelFunc
	// refs is how many waits use the set; the hub's lock guards it.
	refs int
	// ended is closed when the stream gives up, with end set before.
	ended chan struct{}
	end   error
	// wanted is closed once a watch is: when a list alone has not made somebody ready.
	wanted     chan struct{}
	wantedOnce sync.Once

	mu      sync.Mutex
	objects map[types.NamespacedName]known
	subs    map[types.NamespacedName][]*subscriber
	// hungry are subscribers to whom nothing could be told yet.
	hungry map[*subscriber]bool
	lag    *time.Timer
	// begun counts the lists that were begun, epoch is the number of the last that was answered.
	begun, epoch int
	// live says that the set has been followed without a gap since that list.
	live bool
	// version is how far the set has been followed.
	version string
	// err is why nothing is known at present.
	err error
}

// known is what is kept of an object: little, since there may be many.
type known struct {
	version string
	// gone says that the object does not exist (any more), as of version.
	gone bool
	// result is the verdict of the kind's own rule; where the object is gone, what it was before.
	result Status
	// object is kept, without what no rule reads, where a verdict may depend on more than it: on pods, the time, an expression.
	object *unstructured.Unstructured
}

// subscriber is one wait's interest in one object.
type subscriber struct {
	key types.NamespacedName
	// floor is the resource version from which on an object counts. Empty: only a list that begins after the subscription does.
	floor string
	// after is the number of lists begun when the subscription was made.
	after int
	// told takes what becomes known, in order, and why nothing is. It is called with the set locked and must not wait.
	told func(k known, err error)
}

func newSet(ctx context.Context, k setKey, kind schema.GroupVersionKind, l lister, giveUp bool, running *sync.WaitGroup) *set {
	s := &set{setKey: k, kind: kind, ended: make(chan struct{}), wanted: make(chan struct{}), objects: map[types.NamespacedName]known{},
		subs: map[types.NamespacedName][]*subscriber{}, hungry: map[*subscriber]bool{}}
	ctx, s.cancel = context.WithCancel(ctx)
	s.stream = &stream{lister: l, name: k.name, labels: k.labels, again: make(chan struct{}, 1),
		begin: s.begins, emit: s.emit, needed: s.needed}
	if k.labelled() {
		// What others own is looked at only once, and what is ours may be awaited later.
		s.want()
	} else {
		s.stream.keep = s.subscribed
		s.stream.listed = s.awaitWanted
	}
	if !k.whole {
		s.stream.trim = trim
	}
	s.begin = sync.OnceFunc(func() {
		running.Go(func() {
			defer close(s.ended)
			defer safe.Recover(&s.end)
			s.end = s.stream.run(ctx, giveUp)
		})
	})
	return s
}

// begins counts a list.
func (s *set) begins() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun++
}

// needed reports whether anybody is interested.
func (s *set) needed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.subs) > 0
}

func (s *set) subscribed(o *unstructured.Unstructured) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subs[keyOf(o)] != nil
}

func keyOf(o *unstructured.Unstructured) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// want lets the stream go on from its list to its watch.
func (s *set) want() { s.wantedOnce.Do(func() { close(s.wanted) }) }

// awaitWanted keeps the stream from opening its watch while a list alone may do.
func (s *set) awaitWanted(ctx context.Context) bool {
	grace := time.NewTimer(firstListsGrace)
	defer grace.Stop()
	select {
	case <-s.wanted:
	case <-grace.C:
	case <-s.stream.again:
		s.stream.ask()
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// subscribe tells sub what is known of its object, as soon as that is recent enough, and every change from then on.
func (s *set) subscribe(sub *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub.after = s.begun
	s.subs[sub.key] = append(s.subs[sub.key], sub)
	if !s.labelled() {
		// The set forgets what nobody awaits, so what it knows says nothing of one who comes late.
		sub.floor = ""
	}
	s.offer(sub)
	// A stream that failed while nobody was interested rests until it is asked.
	if s.hungry[sub] && s.begun > 0 && (sub.floor == "" || s.err != nil || !s.live && s.epoch == s.begun) {
		s.stream.ask()
	}
}

func (s *set) unsubscribe(sub *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.hungry, sub)
	left := s.subs[sub.key][:0:0]
	for _, other := range s.subs[sub.key] {
		if other != sub {
			left = append(left, other)
		}
	}
	if len(left) > 0 {
		s.subs[sub.key] = left
	} else {
		delete(s.subs, sub.key)
	}
}

// offer tells a subscriber of its object if what is known is recent enough. The caller holds the lock.
func (s *set) offer(sub *subscriber) {
	delete(s.hungry, sub)
	if s.err != nil {
		sub.told(known{}, s.err)
		s.hungry[sub] = true
		return
	}
	k, ok := s.objects[sub.key]
	if !ok || k.gone {
		// That it is not there is known as of all that was seen.
		k.gone, k.version = true, s.version
	}
	switch recent, missed := s.recent(sub, k); {
	case recent:
		sub.told(k, nil)
		return
	case missed:
		s.stream.ask()
	}
	s.hungry[sub] = true
	if s.lag == nil {
		s.lag = time.AfterFunc(lagLimit, s.lags)
	}
}

// recent reports whether what is known of an object is not older than what the subscriber knows already. missed says that only
// another list can tell: something that should have been seen was not.
func (s *set) recent(sub *subscriber, k known) (recent, missed bool) {
	switch {
	case s.epoch == 0:
		return false, false
	case s.epoch > sub.after:
		return true, false
	case sub.floor == "" || !s.live:
		return false, false
	}
	c, err := resourceversion.CompareResourceVersion(k.version, sub.floor)
	if err != nil {
		return false, true
	}
	if c >= 0 {
		return true, false
	}
	c, err = resourceversion.CompareResourceVersion(s.version, sub.floor)
	return false, err == nil && c >= 0
}

// lags has the set listed again if the watch still owes something.
func (s *set) lags() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lag = nil; len(s.hungry) == 0 {
		return
	}
	select {
	case <-s.ended:
		return
	default:
	}
	if s.live {
		s.stream.ask()
	}
	s.lag = time.AfterFunc(lagLimit, s.lags)
}

// close ends the set.
func (s *set) close() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hungry = map[*subscriber]bool{}
	if s.lag != nil {
		s.lag.Stop()
		s.lag = nil
	}
}

// emit takes the stream's news.
func (s *set) emit(b batch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case b.lost:
		s.live = false
	case b.err != nil:
		s.err, s.live = b.err, false
		for _, subs := range s.subs {
			for _, sub := range subs {
				s.offer(sub)
			}
		}
	case b.replace:
		s.replace(b)
	default:
		s.change(b)
	}
	return true
}

// replace takes a whole list.
func (s *set) replace(b batch) {
	before := s.objects
	s.objects = make(map[types.NamespacedName]known, len(b.objects))
	s.err, s.live, s.epoch, s.version = nil, true, s.begun, b.version
	for _, o := range b.objects {
		s.objects[keyOf(o)] = s.learn(o)
	}
	for key, subs := range s.subs {
		if _, ok := s.objects[key]; !ok && s.labelled() && before[key].version != "" {
			s.objects[key] = known{gone: true, version: b.version, result: before[key].result}
		}
		for _, sub := range subs {
			s.offer(sub)
		}
	}
}

// change takes an event, or a bookmark, which is an event of no object.
func (s *set) change(b batch) {
	s.version = b.version
	touched := map[types.NamespacedName]bool{}
	for _, o := range b.objects {
		if s.old(o) {
			continue
		}
		s.objects[keyOf(o)] = s.learn(o)
		touched[keyOf(o)] = true
	}
	for _, o := range b.deleted {
		if s.old(o) {
			continue
		}
		s.objects[keyOf(o)] = known{gone: true, version: o.GetResourceVersion(), result: s.objects[keyOf(o)].result}
		touched[keyOf(o)] = true
	}
	for key := range touched {
		for _, sub := range s.subs[key] {
			s.offer(sub)
		}
	}
	for sub := range s.hungry {
		if !touched[sub.key] {
			s.offer(sub)
		}
	}
}

// old reports whether an event tells of an object what is known already, or less: it was sent twice, or late.
func (s *set) old(o *unstructured.Unstructured) bool {
	c, err := resourceversion.CompareResourceVersion(o.GetResourceVersion(), s.objects[keyOf(o)].version)
	return err == nil && c < 0
}

// learn reduces an object to what is kept of it.
func (s *set) learn(o *unstructured.Unstructured) known {
	if o.GetKind() == "" {
		o.SetGroupVersionKind(s.kind) // a list's items need not name theirs
	}
	k := known{version: o.GetResourceVersion()}
	if s.whole {
		k.object = o
		return k
	}
	k.result = evaluate(context.Background(), Target{}, o, nil)
	if _, hasPods := podSelector(o); k.result.Status != Current && (hasPods || o.GroupVersionKind().GroupKind() == podKind) {
		k.object = o
	}
	return k
}

// specRead are the groups of whose objects some rule reads the spec.
var specRead = map[string]bool{"": true, "apps": true, "batch": true, "policy": true}

// trim takes from an object what no rule reads.
func trim(o *unstructured.Unstructured) {
	if m, ok := o.Object["metadata"].(map[string]any); ok {
		delete(m, "managedFields")
		delete(m, "annotations")
		delete(m, "ownerReferences")
	}
	for field := range o.Object {
		switch field {
		case "apiVersion", "kind", "metadata", "status":
		case "spec":
			if !specRead[o.GroupVersionKind().Group] {
				delete(o.Object, field)
			} else if spec, ok := o.Object["spec"].(map[string]any); ok && o.GroupVersionKind().GroupKind() != podKind {
				delete(spec, "template")
				delete(spec, "jobTemplate")
				delete(spec, "volumeClaimTemplates")
			}
		default:
			delete(o.Object, field)
		}
	}
}
