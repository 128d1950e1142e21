package health

import (
	"context"
	"maps"
	"sync"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// maxPodWatches bounds how many watches of pods are open at once for workloads whose own status decides, to which pods only
	// add why.
	maxPodWatches = 16
	// maxPodSelectors is how many workloads of a namespace have a watch of their own pods each; if it is more, all of them share
	// one of the namespace's pods.
	maxPodSelectors = 4
)

// podsDecide reports whether the pods of a kind can make it fail (S6.24), so that they must be seen.
func podsDecide(gk schema.GroupKind) bool {
	return gk.Group == "apps" && (gk.Kind == "StatefulSet" || gk.Kind == "ReplicaSet")
}

// podWatches are the watches of pods that waits share, for what pods tell of the workloads behind which they stand.
type podWatches struct {
	hub *Hub

	mu  sync.Mutex
	all map[podScope]*podWatch
}

// podScope says which pods a watch brings: those of a namespace that match a selector, or all of it.
type podScope struct{ namespace, selector string }

// podWatch is what one watch has told of pods.
type podWatch struct {
	scope  podScope
	cancel context.CancelFunc

	mu        sync.Mutex
	listed    bool
	pods      map[string]labelledPod
	followers map[*podFollower]bool
}

type labelledPod struct {
	podState
	labels labels.Set
}

// podFollower is one wait's interest in the pods of a workload.
type podFollower struct {
	selector labels.Selector
	// told gets all pods that match, after each change among them; the map is the follower's. It must not wait.
	told func(map[string]podState)
}

func (p *podWatches) init(h *Hub) { p.hub, p.all = h, map[podScope]*podWatch{} }

// follow tells f of the pods in a namespace that match its selector, until stop is called. An account that may not see them is no
// failure: nothing is told. ok is false if there are too many watches already, unless f must have one.
func (p *podWatches) follow(namespace string, f *podFollower, must bool) (stop func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	scope := podScope{namespace, f.selector.String()}
	if p.all[scope] == nil {
		same := 0
		for other := range p.all {
			if other.namespace == namespace {
				same++
			}
		}
		if same >= maxPodSelectors || p.all[podScope{namespace: namespace}] != nil {
			scope.selector = ""
		}
	}
	w := p.all[scope]
	if w == nil {
		if len(p.all) >= maxPodWatches && !must {
			return nil, false
		}
		w = p.open(scope)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.followers[f] = true
	if w.listed {
		w.tell(f)
	}
	return func() { p.leave(w, f) }, true
}

func (p *podWatches) open(scope podScope) *podWatch {
	w := &podWatch{scope: scope, pods: map[string]labelledPod{}, followers: map[*podFollower]bool{}}
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(p.hub.ctx)
	p.all[scope] = w
	s := &stream{
		lister: dynamicLister{p.hub.clients.Dynamic.Resource(podResource).Namespace(scope.namespace)},
		labels: scope.selector,
		emit:   func(b batch) bool { w.take(b); return true },
	}
	p.hub.background(func() {
		// Forbidden is told by what is not said, and pods are always served.
		_ = s.run(ctx, true)
	})
	return w
}

func (p *podWatches) leave(w *podWatch, f *podFollower) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.mu.Lock()
	delete(w.followers, f)
	over := len(w.followers) == 0
	w.mu.Unlock()
	if over && p.all[w.scope] == w {
		w.cancel()
		delete(p.all, w.scope)
	}
}

func (w *podWatch) take(b batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b.err != nil || !w.listed && !b.replace || !b.replace && len(b.objects) == 0 && len(b.deleted) == 0 {
		return
	}
	before := w.pods
	if b.replace {
		w.listed, w.pods = true, map[string]labelledPod{}
	}
	var touched []labels.Set
	for _, o := range b.objects {
		touched = append(touched, before[o.GetName()].labels, o.GetLabels())
		w.pods[o.GetName()] = labelledPod{podStateOf(o), maps.Clone(o.GetLabels())}
	}
	for _, o := range b.deleted {
		touched = append(touched, before[o.GetName()].labels, o.GetLabels())
		delete(w.pods, o.GetName())
	}
	for f := range w.followers {
		if b.replace || matchesAny(f.selector, touched) {
			w.tell(f)
		}
	}
}

func matchesAny(s labels.Selector, sets []labels.Set) bool {
	for _, set := range sets {
		if s.Matches(set) {
			return true
		}
	}
	return false
}

// tell gives a follower its pods. The caller holds the lock.
func (w *podWatch) tell(f *podFollower) {
	pods := map[string]podState{}
	for name, pod := range w.pods {
		if f.selector.Matches(pod.labels) {
			pods[name] = pod.podState
		}
	}
	f.told(pods)
}
