package health

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// script is a lister that answers as it is told, once for each call, and journals the calls with their times.
type script struct {
	start   time.Time
	lists   []func(metav1.ListOptions) (names []string, version, next string, err error)
	watches []func(metav1.ListOptions) ([]watch.Event, error)
	// open keeps the last watch open until its context ends.
	calls []string
}

func (s *script) call(format string, args ...any) {
	s.calls = append(s.calls, fmt.Sprintf("%s %s", time.Since(s.start).Round(time.Second), fmt.Sprintf(format, args...)))
}

func (s *script) list(_ context.Context, o metav1.ListOptions) ([]*unstructured.Unstructured, metav1.ListInterface, error) {
	s.call("list from=%q after=%q", o.ResourceVersion, o.Continue)
	f := s.lists[0]
	s.lists = s.lists[1:]
	names, version, next, err := f(o)
	if err != nil {
		return nil, nil, err
	}
	var items []*unstructured.Unstructured
	for _, n := range names {
		items = append(items, thing(n, version))
	}
	return items, &metav1.ListMeta{ResourceVersion: version, Continue: next}, nil
}

func (s *script) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	s.call("watch from=%q", o.ResourceVersion)
	if len(s.watches) == 0 {
		w := watch.NewFake()
		context.AfterFunc(ctx, w.Stop)
		return w, nil
	}
	f := s.watches[0]
	s.watches = s.watches[1:]
	events, err := f(o)
	if err != nil {
		return nil, err
	}
	w := watch.NewFakeWithChanSize(len(events)+1, false)
	go func() {
		for _, e := range events {
			if e.Type == "" {
				time.Sleep(10 * time.Second) // synctest's clock
				continue
			}
			w.Action(e.Type, e.Object)
		}
		w.Stop()
	}()
	return w, nil
}

func (s *script) get(context.Context, string) (*unstructured.Unstructured, error) {
	return nil, errors.New("not scripted")
}

func thing(name, version string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetName(name)
	o.SetResourceVersion(version)
	return o
}

func listOf(version string, names ...string) func(metav1.ListOptions) ([]string, string, string, error) {
	return func(metav1.ListOptions) ([]string, string, string, error) { return names, version, "", nil }
}

func events(es ...watch.Event) func(metav1.ListOptions) ([]watch.Event, error) {
	return func(metav1.ListOptions) ([]watch.Event, error) { return es, nil }
}

var pauseOf10s watch.Event

// TestStream: what a stream asks of the server, and when, whatever the server does. The pauses grow to five seconds and half
// as much again, so the times given are lower bounds by at most that.
func TestStream(t *testing.T) {
	gone := apierrors.NewResourceExpired("too old")
	unavailable := apierrors.NewServiceUnavailable("starting")
	refused := errors.New("connection refused")
	tests := []struct {
		name    string
		lists   []func(metav1.ListOptions) ([]string, string, string, error)
		watches []func(metav1.ListOptions) ([]watch.Event, error)
		calls   string
		news    string
	}{
		{
			name:  "a watch goes on from the list",
			lists: []func(metav1.ListOptions) ([]string, string, string, error){listOf("5", "a")},
			watches: []func(metav1.ListOptions) ([]watch.Event, error){
				events(pauseOf10s, watch.Event{Type: watch.Modified, Object: thing("a", "7")}, watch.Event{Type: watch.Bookmark, Object: thing("", "9")})},
			// The server ended the watch in good order; the next one begins where the bookmark was.
			calls: `0s list from="" after="" | 0s watch from="5" | 10s watch from="9"`,
			news:  "set[a@5] +[a@7] @9",
		},
		{
			name:  "an expired watch lists again (410)",
			lists: []func(metav1.ListOptions) ([]string, string, string, error){listOf("5", "a"), listOf("20")},
			watches: []func(metav1.ListOptions) ([]watch.Event, error){
				events(pauseOf10s, watch.Event{Type: watch.Error, Object: &gone.ErrStatus})},
			calls: `0s list from="" after="" | 0s watch from="5" | 10s list from="" after="" | 10s watch from="20"`,
			news:  "set[a@5] lost set[]",
		},
		{
			name:  "watches that end at once are not hammered",
			lists: []func(metav1.ListOptions) ([]string, string, string, error){listOf("1"), listOf("2"), listOf("3"), listOf("4")},
			watches: []func(metav1.ListOptions) ([]watch.Event, error){
				events(), events(), events()},
			calls: `0s list from="" after="" | 0s watch from="1" | 0s list from="" after="" | 0s watch from="2" | 0s list from="" after="" | 0s watch from="3" | 1s list from="" after="" | 1s watch from="4"`,
			news:  "set[] lost set[] lost set[] lost set[]",
		},
		{
			name: "a server that is away is asked until it is back",
			lists: []func(metav1.ListOptions) ([]string, string, string, error){
				func(metav1.ListOptions) ([]string, string, string, error) { return nil, "", "", refused },
				func(metav1.ListOptions) ([]string, string, string, error) { return nil, "", "", unavailable },
				listOf("3", "a")},
			calls: `0s list from="" after="" | 0s list from="" after="" | 0s list from="" after="" | 0s watch from="3"`,
			news:  "error(connection refused) error(starting) set[a@3]",
		},
		{
			name: "pages are one set, and only what matters is kept",
			lists: []func(metav1.ListOptions) ([]string, string, string, error){
				func(metav1.ListOptions) ([]string, string, string, error) {
					return []string{"a", "other"}, "5", "page2", nil
				},
				listOf("5", "b")},
			calls: `0s list from="" after="" | 0s list from="" after="page2" | 0s watch from="5"`,
			news:  "set[a@5 b@5]",
		},
		{
			name: "pages that have become too old are read again in one piece",
			lists: []func(metav1.ListOptions) ([]string, string, string, error){
				func(metav1.ListOptions) ([]string, string, string, error) { return []string{"a"}, "5", "page2", nil },
				func(metav1.ListOptions) ([]string, string, string, error) { return nil, "", "", gone },
				func(o metav1.ListOptions) ([]string, string, string, error) {
					if o.Limit != 0 {
						return nil, "", "", errors.New("still paged")
					}
					return []string{"a", "b"}, "9", "", nil
				}},
			calls: `0s list from="" after="" | 0s list from="" after="page2" | 0s list from="" after="" | 0s watch from="9"`,
			news:  "set[a@9 b@9]",
		},
		{
			name:  "deletions are told",
			lists: []func(metav1.ListOptions) ([]string, string, string, error){listOf("5", "a")},
			watches: []func(metav1.ListOptions) ([]watch.Event, error){
				events(watch.Event{Type: watch.Deleted, Object: thing("a", "6")}, watch.Event{Type: watch.Added, Object: thing("other", "7")}, watch.Event{Type: watch.Added, Object: thing("b", "8")}, pauseOf10s)},
			calls: `0s list from="" after="" | 0s watch from="5" | 10s watch from="8"`,
			news:  "set[a@5] -[a@6] @7 +[b@8]",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				l := &script{start: time.Now(), lists: tt.lists, watches: tt.watches}
				var news []string
				s := &stream{lister: l, keep: func(o *unstructured.Unstructured) bool { return o.GetName() != "other" },
					emit: func(b batch) bool { news = append(news, b.String()); return true }}
				done := make(chan error)
				go func() { done <- s.run(ctx, false) }()
				time.Sleep(30 * time.Second)
				synctest.Wait()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if got := strings.Join(l.calls, " | "); got != tt.calls {
					t.Errorf("calls\n got %s\nwant %s", got, tt.calls)
				}
				if got := strings.Join(news, " "); got != tt.news {
					t.Errorf("news\n got %s\nwant %s", got, tt.news)
				}
			})
		})
	}
}

func (b batch) String() string {
	names := func(objects []*unstructured.Unstructured) string {
		var out []string
		for _, o := range objects {
			out = append(out, o.GetName()+"@"+o.GetResourceVersion())
		}
		slices.Sort(out)
		return "[" + strings.Join(out, " ") + "]"
	}
	switch {
	case b.lost:
		return "lost"
	case b.err != nil:
		return fmt.Sprintf("error(%v)", b.err)
	case b.replace:
		return "set" + names(b.objects)
	case b.deleted != nil:
		return "-" + names(b.deleted)
	}
	if b.objects == nil {
		return "@" + b.version
	}
	return "+" + names(b.objects)
}

func TestStreamGivesUpOnlyWhereToldTo(t *testing.T) {
	resource := schema.GroupResource{Resource: "things"}
	notServed := func(metav1.ListOptions) ([]string, string, string, error) {
		return nil, "", "", apierrors.NewGenericServerResponse(http.StatusNotFound, "GET", resource, "", "", 0, true)
	}
	forbidden := func(metav1.ListOptions) ([]string, string, string, error) {
		return nil, "", "", apierrors.NewForbidden(resource, "", errors.New("no"))
	}
	run := func(f func(metav1.ListOptions) ([]string, string, string, error), giveUp bool) error {
		s := &stream{lister: &script{start: time.Now(), lists: []func(metav1.ListOptions) ([]string, string, string, error){f}},
			emit: func(batch) bool { return false }}
		return s.run(t.Context(), giveUp)
	}
	if err := run(notServed, false); !errors.Is(err, errGone) {
		t.Errorf("a resource that is not served: %v", err)
	}
	if err := run(forbidden, true); !apierrors.IsForbidden(err) {
		t.Errorf("forbidden, told to give up: %v", err)
	}
	if err := run(forbidden, false); err != nil {
		t.Errorf("forbidden, told to go on: %v", err)
	}
}

// late is a server whose watches something on the way holds back until there is the first event.
type late struct{ *script }

func (late) watch(ctx context.Context, _ metav1.ListOptions) (watch.Interface, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A watch that does not open keeps nobody from asking for another list, nor the stream from its end.
func TestStreamWhoseWatchDoesNotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		lists := 0
		s := &stream{lister: late{&script{lists: []func(metav1.ListOptions) ([]string, string, string, error){listOf("5", "a"), listOf("6", "a")}}},
			again: make(chan struct{}, 1), emit: func(b batch) bool {
				if b.replace {
					lists++
				}
				return true
			}}
		done := make(chan error)
		go func() { done <- s.run(ctx, true) }()
		synctest.Wait()
		if lists != 1 {
			t.Fatalf("%d lists", lists)
		}
		s.ask()
		synctest.Wait()
		if lists != 2 {
			t.Errorf("%d lists after another was asked for", lists)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
