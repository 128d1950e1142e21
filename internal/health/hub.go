package health

import (
	"context"
	"maps"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/safe"
)

// Hub is what all waits of a run know together of one cluster, as one user. It lists and watches each kind once for all of them:
// the objects that carry the owner labels in the whole cluster, or in one namespace if no other is awaited or the user may not
// list more widely; other objects by their names.
//
// It is safe for concurrent use. Its owner closes it when the run waits for nothing any more.
type Hub struct {
	clients Clients
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	kinds   newKinds
	pods    podWatches
	fault   func(error)

	kindsOnce sync.Once

	mu   sync.Mutex
	sets map[setKey]*set
	// refused are the sets that the user may not list.
	refused map[setKey]bool
	// expected are the namespaces in which objects of a kind are or will be awaited, owners the Kustomizations they belong to.
	expected map[schema.GroupKind]map[string]bool
	owners   map[string]bool
	// selectors are those in use, each with the names that it covers.
	selectors []selector
}

// selector is a label selector and the names of the Kustomizations whose objects it matches; nil for all.
type selector struct {
	text  string
	names map[string]bool
}

// maxNames is how many Kustomizations a selector names; the address of a request has a limit.
const maxNames = 50

// NewHub makes a hub that asks for nothing yet. fault is called with a panic of what the hub does for no wait in particular; the
// waits cannot be relied on any more then. It may be called concurrently.
func NewHub(c Clients, fault func(error)) *Hub {
	h := &Hub{clients: c, fault: fault, sets: map[setKey]*set{}, refused: map[setKey]bool{}, expected: map[schema.GroupKind]map[string]bool{}, owners: map[string]bool{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.pods.init(h)
	return h
}

// background does something that Close waits for.
func (h *Hub) background(do func()) {
	h.running.Go(func() {
		if err := safe.Do(func() error { do(); return nil }); err != nil {
			h.fault(err)
		}
	})
}

// Clients returns what the hub was made of.
func (h *Hub) Clients() Clients { return h.clients }

// Close ends all that the hub has begun, and returns when it has ended. Waits that go on learn nothing any more.
func (h *Hub) Close() {
	h.cancel()
	h.mu.Lock()
	sets := slices.Collect(maps.Values(h.sets))
	h.mu.Unlock()
	for _, s := range sets {
		s.close()
	}
	h.running.Wait()
}

// Expect says what will be awaited, as far as that is known, so that the first wait for a kind can look as widely as the others
// need. It sends nothing.
func (h *Hub) Expect(targets []Target) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range targets {
		if t.Owner.IsZero() {
			continue
		}
		gk := t.Ref.GVK().GroupKind()
		if h.expected[gk] == nil {
			h.expected[gk] = map[string]bool{}
		}
		h.expected[gk][t.Ref.Namespace] = true
		h.owners[t.Owner.Name] = true
	}
}

// Watch begins to watch what Wait will be called for soon, so that the answer is there by then. Objects that carry no owner
// labels and kinds that are not served are left to Wait. It does not wait for the server.
func (h *Hub) Watch(targets []Target) {
	h.Expect(targets)
	for _, g := range groupsOf(targets) {
		if g.owner.IsZero() {
			continue
		}
		h.background(func() {
			m, err := resolve(h.ctx, h.clients.Mapper, g.kind)
			if err != nil {
				return // Wait finds it out, and tells
			}
			namespace, err := namespaceFor(m, flux.Ref{Kind: g.kind.Kind, Namespace: g.namespace})
			if err != nil {
				return // as above
			}
			if s := h.join(m, namespace, g); s != nil {
				s.begin()
				h.leave(s)
			}
		})
	}
}

// join returns the widest set that holds the objects of a group and may be listed, and begins it if need be; nil if only each
// object by its name is left. Whoever joins must leave.
func (h *Hub) join(m *meta.RESTMapping, namespace string, g *group) *set {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := setKey{resource: m.Resource, namespace: namespace, whole: g.whole}
	switch {
	case !g.owner.IsZero():
		k.labels = h.selector(g.owner.Name)
		wide := k
		wide.namespace = metav1.NamespaceNone
		if namespace != metav1.NamespaceNone && len(h.expected[g.kind]) > 1 && !h.refused[wide] && h.sets[k] == nil {
			k = wide
		}
	case len(g.objects) < 2:
		return nil
	}
	if h.refused[k] {
		return nil
	}
	return h.get(m, k, true)
}

// joinOne returns the set of a single object. Whoever joins must leave.
func (h *Hub) joinOne(m *meta.RESTMapping, namespace, name string, whole bool) *set {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.get(m, setKey{resource: m.Resource, namespace: namespace, name: name, whole: whole}, false)
}

func (h *Hub) get(m *meta.RESTMapping, k setKey, giveUp bool) *set {
	s := h.sets[k]
	if s == nil {
		s = newSet(h.ctx, k, m.GroupVersionKind, newLister(h.clients, m, k.namespace, k.whole), giveUp, &h.running)
		h.sets[k] = s
	}
	s.refs++
	return s
}

// leave gives a set back. One that has ended, or that nobody else needs or will need, is forgotten.
func (h *Hub) leave(s *set) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.refs--
	select {
	case <-s.ended:
		if apierrors.IsForbidden(s.end) {
			h.refused[s.setKey] = true
		}
	default:
		if s.labelled() || s.refs > 0 {
			return
		}
	}
	s.close()
	if h.sets[s.setKey] == s {
		delete(h.sets, s.setKey)
	}
}

// selector returns a selector that matches what a Kustomization of this name owns, and if it has to be made, all others that
// are known of. The caller holds the lock.
func (h *Hub) selector(name string) string {
	h.owners[name] = true
	for _, s := range h.selectors {
		if s.names == nil || s.names[name] {
			return s.text
		}
	}
	made := selector{names: maps.Clone(h.owners)}
	operator, values := selection.In, slices.Sorted(maps.Keys(h.owners))
	if len(values) > maxNames {
		operator, values, made.names = selection.Exists, nil, nil
	}
	requirement, err := labels.NewRequirement(flux.NameLabel, operator, values)
	if err != nil {
		// A name that is no label value: nothing can carry it, all can be looked at.
		made = selector{text: flux.NameLabel}
	} else {
		made.text = requirement.String()
	}
	h.selectors = append(h.selectors, made)
	return made.text
}

// awaitKinds begins, once, to watch for kinds that the cluster does not serve yet.
func (h *Hub) awaitKinds() {
	h.kindsOnce.Do(func() { h.background(func() { h.kinds.watch(h.ctx, h.clients) }) })
}
