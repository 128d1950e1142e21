//go:build unix

package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

var gradeBook = schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "GradeBook"}

// book is an object whose status is "True", "False", or "" for none, which is Current.
func book(name, version, ready string) *unstructured.Unstructured {
	o := thing(name, version)
	o.SetGroupVersionKind(gradeBook)
	o.SetNamespace("n")
	if ready != "" {
		o.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": ready}}}
	}
	return o
}

// heard is what a subscriber was told, in order.
type heard struct{ lines []string }

func (h *heard) subscriber(name, floor string) *subscriber {
	return &subscriber{key: types.NamespacedName{Namespace: "n", Name: name}, floor: floor, told: func(k known, err error) {
		switch {
		case err != nil:
			h.lines = append(h.lines, "error")
		case k.gone:
			h.lines = append(h.lines, "gone@"+k.version)
		default:
			h.lines = append(h.lines, k.result.Status+"@"+k.version)
		}
	}}
}

func listed(version string, objects ...*unstructured.Unstructured) batch {
	return batch{replace: true, version: version, objects: objects}
}

func changed(o *unstructured.Unstructured) batch {
	return batch{version: o.GetResourceVersion(), objects: []*unstructured.Unstructured{o}}
}

func removed(o *unstructured.Unstructured) batch {
	return batch{version: o.GetResourceVersion(), deleted: []*unstructured.Unstructured{o}}
}

func bookmark(version string) batch { return batch{version: version} }

// TestSetTellsNothingOld: an object counts only as of the version that was written or read, whatever the set knew before, and
// however events are late, repeated or lost. The subscriber comes after the batches in known.
func TestSetTellsNothingOld(t *testing.T) {
	lost := batch{lost: true}
	tests := []struct {
		name     string
		labels   string
		floor    string
		known    []batch
		then     []batch
		want     string
		asks     bool // for another list
		asksThen bool // for another list, after the second batches
	}{
		{name: "what is known at the version counts at once", labels: "l", floor: "5", known: []batch{listed("9", book("a", "5", ""))}, want: "Current@5"},
		{name: "and so does what is newer", labels: "l", floor: "5", known: []batch{listed("4"), changed(book("a", "6", "False"))}, want: "InProgress@6"},
		{name: "what is older does not", labels: "l", floor: "5", known: []batch{listed("4", book("a", "4", ""))},
			then: []batch{changed(book("a", "5", "False")), changed(book("a", "8", "True"))}, want: "InProgress@5 Current@8"},
		{name: "numbers, not texts, are compared", labels: "l", floor: "10", known: []batch{listed("9", book("a", "9", ""))},
			then: []batch{changed(book("a", "10", "False"))}, want: "InProgress@10"},
		{name: "an object is not missing that was made after what is known", labels: "l", floor: "5", known: []batch{listed("4")},
			then: []batch{changed(book("b", "3", "")), changed(book("a", "5", ""))}, want: "Current@5"},
		{name: "it is when what is known is newer", labels: "l", floor: "5", known: []batch{listed("6")}, want: "gone@6"},
		{name: "or becomes so by events of others", labels: "l", floor: "5", known: []batch{listed("4")}, then: []batch{changed(book("b", "7", ""))}, want: "gone@7"},
		{name: "or by a bookmark", labels: "l", floor: "5", known: []batch{listed("4")}, then: []batch{bookmark("7")}, want: "gone@7"},
		{name: "an object that went away and came again", labels: "l", floor: "5", known: []batch{listed("5", book("a", "5", ""))},
			then: []batch{removed(book("a", "6", "")), changed(book("a", "7", "False"))}, want: "Current@5 gone@6 InProgress@7"},
		{name: "an event that is sent twice, and one that is late, take nothing back", labels: "l", floor: "3", known: []batch{listed("4", book("a", "4", ""))},
			then: []batch{changed(book("a", "6", "False")), changed(book("a", "4", "")), changed(book("a", "5", ""))}, want: "Current@4 InProgress@6"},
		{name: "an event that was lost is noticed by the next", labels: "l", floor: "5", known: []batch{listed("4", book("a", "4", ""))},
			then: []batch{changed(book("b", "6", ""))}, asksThen: true},
		{name: "after another list all counts", labels: "l", floor: "5", known: []batch{listed("4", book("a", "4", ""))},
			then: []batch{listed("3", book("a", "2", "False"))}, want: "InProgress@2"}, // a server that was restored
		{name: "no version is known: only a list from now on counts", labels: "l", known: []batch{listed("9", book("a", "5", ""))}, asks: true,
			then: []batch{changed(book("a", "10", "")), listed("11", book("a", "11", "True"))}, want: "Current@11"},
		{name: "versions that cannot be compared: likewise", labels: "l", floor: "x5", known: []batch{listed("x9", book("a", "x6", ""))}, asks: true,
			then: []batch{listed("x12", book("a", "x7", ""))}, want: "Current@x7"},
		{name: "a list that has begun already is too old where no version is known", labels: "l", known: []batch{{}}, asks: true,
			then: []batch{listed("11", book("a", "11", "True"))}, want: "Current@11"},
		{name: "nothing follows the set: likewise", labels: "l", floor: "5", known: []batch{listed("9", book("a", "5", "")), lost}, asks: true,
			then: []batch{listed("10", book("a", "5", ""))}, want: "Current@5"},
		{name: "a set without labels forgets what nobody awaits", floor: "5", known: []batch{listed("9")}, asks: true,
			then: []batch{listed("9", book("a", "5", ""))}, want: "Current@5"},
		{name: "an outage is told, and what was before counts no more", labels: "l", floor: "5", known: []batch{listed("9", book("a", "5", ""))},
			then: []batch{lost, {err: errors.New("refused")}, listed("12", book("a", "11", "False"))}, want: "Current@5 error InProgress@11"},
		{name: "a list that failed while nobody awaited anything is asked for again", labels: "l", floor: "5", known: []batch{{}, {err: errors.New("refused")}}, asks: true,
			then: []batch{listed("9", book("a", "5", ""))}, want: "error Current@5"},
		{name: "one that is gone after an outage", labels: "l", floor: "5", known: []batch{listed("9", book("a", "5", ""))},
			then: []batch{lost, listed("12")}, want: "Current@5 gone@12"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, asked := bareSet(setKey{labels: tt.labels})
			emit := func(batches []batch) {
				for _, b := range batches {
					if b.replace || b.version == "" && !b.lost && b.err == nil {
						s.begins() // a batch of nothing stands for a list that is under way
					}
					s.emit(b)
				}
			}
			emit(tt.known)
			var h heard
			sub := h.subscriber("a", tt.floor)
			s.subscribe(sub)
			if asked() != tt.asks {
				t.Errorf("asks for another list: %v, want %v", !tt.asks, tt.asks)
			}
			emit(tt.then)
			if got := asked(); got != tt.asksThen {
				t.Errorf("asks for another list in the end: %v, want %v", got, tt.asksThen)
			}
			if got := strings.Join(h.lines, " "); got != tt.want {
				t.Errorf("told %q, want %q", got, tt.want)
			}
			s.unsubscribe(sub)
			n := len(h.lines)
			s.emit(changed(book("a", "99", "")))
			if len(h.lines) != n || len(s.subs) != 0 || len(s.hungry) != 0 {
				t.Errorf("after the end: told %q, %d subscribers, %d hungry", h.lines[n:], len(s.subs), len(s.hungry))
			}
			s.close()
		})
	}
}

// bareSet is a set that is told by the test what its stream would tell. asked says whether another list was asked for since the
// last call.
func bareSet(k setKey) (s *set, asked func() bool) {
	s = &set{setKey: k, kind: gradeBook, cancel: func() {}, ended: make(chan struct{}), wanted: make(chan struct{}),
		objects: map[types.NamespacedName]known{}, subs: map[types.NamespacedName][]*subscriber{}, hungry: map[*subscriber]bool{},
		stream: &stream{again: make(chan struct{}, 1)}}
	return s, func() bool {
		select {
		case <-s.stream.again:
			return true
		default:
			return false
		}
	}
}

// A Job that failed and then deleted itself has failed, for who awaits it only now, too (S6.12).
func TestSetRemembersWhatAGoneObjectWas(t *testing.T) {
	s, _ := bareSet(setKey{labels: "l"})
	s.begins()
	s.emit(listed("4"))
	failed := book("a", "5", "")
	failed.SetGroupVersionKind(schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"})
	failed.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Failed", "status": "True", "message": "no"}}}
	s.emit(changed(failed))
	s.emit(removed(book("a", "6", "")))
	var got known
	sub := (&heard{}).subscriber("a", "5")
	sub.told = func(k known, _ error) { got = k }
	s.subscribe(sub)
	if !got.gone || got.result.Status != Failed {
		t.Errorf("%+v", got)
	}
}

// What a set keeps of an object is little: nothing once it is Current, and never what no rule reads.
func TestSetKeepsLittle(t *testing.T) {
	s, _ := bareSet(setKey{labels: "l"})
	deployment := parse(t, deploymentOf("web", "web:1", 1, ""))
	deployment.SetResourceVersion("5")
	deployment.SetNamespace("n")
	deployment.SetAnnotations(map[string]string{"big": "text"})
	deployment.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "m"}})
	custom := book("a", "5", "False")
	custom.Object["spec"] = map[string]any{"big": "text"}
	custom.Object["data"] = "text"
	trim(deployment)
	trim(custom)
	s.begins()
	s.emit(listed("5", deployment, custom, book("b", "5", "True")))
	kept := s.objects[types.NamespacedName{Namespace: "n", Name: "web"}].object
	if kept == nil || kept.GetManagedFields() != nil || kept.GetAnnotations() != nil {
		t.Fatalf("of a Deployment that is not ready: %v", kept)
	}
	if _, ok := podSelector(kept); !ok {
		t.Error("the selector of its pods is gone")
	}
	if _, found, _ := unstructured.NestedMap(kept.Object, "spec", "template"); found {
		t.Error("the template is kept")
	}
	if len(custom.Object) != 4 {
		t.Errorf("a custom resource is trimmed to %v", custom.Object)
	}
	for _, name := range []string{"a", "b"} {
		if k := s.objects[types.NamespacedName{Namespace: "n", Name: name}]; k.object != nil || k.result.Status == "" {
			t.Errorf("%s: %+v", name, k)
		}
	}
}

// A watch that owes something for two seconds is no longer trusted: the set is listed again, until what was written is seen.
func TestSetListsAgainWhenTheWatchLags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &script{start: time.Now(), lists: []func(metav1.ListOptions) ([]string, string, string, error){listOf("4", "a"), listOf("4", "a"), listOf("5", "a")}}
		// The fake's watches never send anything.
		s, h := startSet(t, l)
		sub := h.subscriber("a", "5")
		sub.key.Namespace = ""
		s.subscribe(sub)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		// The list after two seconds began after the subscription, so what it says is the truth; no third is needed.
		want := `0s list from="" after="" | 0s watch from="4" | 2s list from="" after="" | 2s watch from="4"`
		if got := strings.Join(l.calls, " | "); got != want {
			t.Errorf("calls\n got %s\nwant %s", got, want)
		}
		if got := strings.Join(h.lines, " "); got != "Current@4" {
			t.Errorf("told %q", got)
		}
	})
}

// A set that nobody needs any more is not asked about again once its watch breaks, until somebody comes.
func TestSetRestsWhenNobodyNeedsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := apierrors.NewResourceExpired("too old")
		l := &script{start: time.Now(), lists: []func(metav1.ListOptions) ([]string, string, string, error){listOf("4", "a"), listOf("7", "a")},
			watches: []func(metav1.ListOptions) ([]watch.Event, error){events(pauseOf10s, watch.Event{Type: watch.Error, Object: &gone.ErrStatus})}}
		s, h := startSet(t, l)
		time.Sleep(60 * time.Second)
		synctest.Wait()
		sub := h.subscriber("a", "6")
		sub.key.Namespace = ""
		s.subscribe(sub)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		want := `0s list from="" after="" | 0s watch from="4" | 1m0s list from="" after="" | 1m0s watch from="7"`
		if got := strings.Join(l.calls, " | "); got != want {
			t.Errorf("calls\n got %s\nwant %s", got, want)
		}
		if got := strings.Join(h.lines, " "); got != "Current@7" {
			t.Errorf("told %q", got)
		}
	})
}

// startSet starts a set, with its stream, that the test's end closes.
func startSet(t *testing.T, l lister) (*set, *heard) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	running := &sync.WaitGroup{}
	s := newSet(ctx, setKey{labels: "l"}, gradeBook, l, true, running)
	t.Cleanup(func() {
		s.close()
		cancel()
		running.Wait()
	})
	s.begin()
	synctest.Wait()
	return s, &heard{}
}

// The selector names the Kustomizations of the run while they are few, and a name that comes later gets another one.
func TestHubSelector(t *testing.T) {
	var targets []Target
	of := func(names ...string) []Target {
		targets = nil
		for _, n := range names {
			target := Target{Ref: checkRef("apps/v1", "Deployment", "n", n)}
			target.Owner.Namespace, target.Owner.Name = "flux-system", n
			targets = append(targets, target)
		}
		return targets
	}
	h := newHub(Clients{})
	defer h.Close()
	h.Expect(of("b", "a"))
	if got := h.selector("a"); got != "kustomize.toolkit.fluxcd.io/name in (a,b)" || h.selector("b") != got {
		t.Error(got)
	}
	if got := h.selector("c"); got != "kustomize.toolkit.fluxcd.io/name in (a,b,c)" {
		t.Error(got)
	}
	var many []string
	for i := range maxNames + 1 {
		many = append(many, fmt.Sprintf("n%d", i))
	}
	h.Expect(of(many...))
	if got := h.selector("n7"); got != "kustomize.toolkit.fluxcd.io/name" || h.selector("later") != got {
		t.Error(got)
	}
	if len(h.selectors) != 3 {
		t.Errorf("%d selectors", len(h.selectors))
	}
}
