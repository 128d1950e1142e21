package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"

	"github.com/sluicerun/sluice/internal/safe"
)

const (
	// pageSize bounds one answer to a list, and with it memory.
	pageSize = 500
	// watchSeconds is how long the server is asked to keep a watch, plus up to as much again at random. A connection that is
	// dead without saying so is found out after that time at the latest.
	watchSeconds = 120
	// listAge is how old a list gets before the end of a watch leads to another one. What was lost on the way, which should not
	// happen, is found then at the latest.
	listAge = 3 * time.Minute

	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// pause is a growing wait between attempts that fail.
type pause struct{ next time.Duration }

// wait waits, up to half as long again at random so that many waits do not march in step. It ends early, with the pause at its
// beginning again, when wake is closed or has a value. It returns false when ctx ends.
func (p *pause) wait(ctx context.Context, wake <-chan struct{}) bool {
	d := max(p.next, firstPause)
	p.next = min(2*d, lastPause)
	timer := time.NewTimer(d + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-wake:
		p.reset()
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func (p *pause) reset() { p.next = 0 }

// batch is news of a set of objects.
type batch struct {
	// replace says that objects is the whole set; else each is new or changed, and deleted names those that are gone. With
	// neither nothing has happened to the set.
	replace bool
	objects []*unstructured.Unstructured
	deleted []*unstructured.Unstructured
	// version is how far the set has been followed with this; empty if that is not known.
	version string
	// err, if not nil, says why nothing is known of the set at present.
	err error
	// lost says that nothing follows the set any more: what happens from now on is told by the next list.
	lost bool
}

// lister lists and watches one resource within one namespace, or without one. It gives unstructured objects in any case.
type lister interface {
	list(ctx context.Context, o metav1.ListOptions) ([]*unstructured.Unstructured, metav1.ListInterface, error)
	watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
	get(ctx context.Context, name string) (*unstructured.Unstructured, error)
}

// stream follows a set of objects: a consistent list, then a watch from there, and all over again when that breaks.
type stream struct {
	lister lister
	// name restricts the set to one object, labels to those that match.
	name, labels string
	// keep says which objects matter; nil means all. What does not matter is forgotten page by page.
	keep func(*unstructured.Unstructured) bool
	// trim, if not nil, takes from an object what nobody reads.
	trim func(*unstructured.Unstructured)
	// begin, if not nil, is called before each list.
	begin func()
	// emit takes the news. It returns false when nobody wants any more.
	emit func(batch) bool
	// listed is called after each list that was emitted, before the watch is opened; nil for nothing. False ends the stream.
	listed func(ctx context.Context) bool
	// again, if not nil, is how another list is asked for, which ends the watch and every pause; see ask. It holds one value.
	again chan struct{}
	// needed, if not nil, says whether anybody is interested. If not, a stream that was broken off is left so until asked.
	needed func() bool
}

// ask has the set listed again: with a list that begins after this call.
func (s *stream) ask() {
	select {
	case s.again <- struct{}{}:
	default: // asked already
	}
}

// errGone says that the resource itself is not served (any more).
var errGone = errors.New("the server does not serve this resource")

// run follows the set until ctx ends, emit or listed return false, or the resource is not served: then the error is errGone,
// or if the account may not list, the API server's Forbidden when giveUp is set.
func (s *stream) run(ctx context.Context, giveUp bool) error {
	var p pause
	for {
		version, err := s.relist(ctx)
		var onlyGet *onlyGetError
		switch {
		case ctx.Err() != nil || errors.Is(err, errStopped):
			return nil
		case apierrors.IsNotFound(err):
			return errGone
		case apierrors.IsForbidden(err) && giveUp:
			return err
		case errors.As(err, &onlyGet):
			// The object has been read; there is nothing to watch.
			if !s.emit(batch{lost: true}) {
				return nil
			}
		case err != nil:
			if !s.emit(batch{err: err}) {
				return nil
			}
		default:
			if s.listed != nil && !s.listed(ctx) {
				return nil
			}
			listed := time.Now()
			for err == nil {
				opened := time.Now()
				version, err = s.follow(ctx, version)
				if ctx.Err() != nil || errors.Is(err, errStopped) {
					return nil
				}
				switch {
				case time.Since(opened) > time.Second:
					p.reset()
				case err == nil:
					// Something between here and the server ends watches at once: list again, with a pause.
					err = errShort
				}
				if err == nil && time.Since(listed) >= listAge {
					err = errAsked
				}
			}
			if !s.emit(batch{lost: true}) {
				return nil
			}
			if errors.Is(err, errAsked) {
				continue
			}
		}
		if s.needed != nil && !s.needed() {
			select {
			case <-s.again:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		if !p.wait(ctx, s.again) {
			return nil
		}
	}
}

var (
	errStopped = errors.New("stopped")
	errShort   = errors.New("watch ended at once")
	errAsked   = errors.New("another list is due")
)

// relist lists and emits the set. Without a resource version the answer is as new as the server's latest write, so that what
// is seen is never older than what was applied.
func (s *stream) relist(ctx context.Context) (version string, err error) {
	o := metav1.ListOptions{Limit: pageSize, LabelSelector: s.labels, FieldSelector: s.field()}
	b := batch{replace: true}
	select {
	case <-s.again: // this list is one that begins after it was asked for
	default:
	}
	if s.begin != nil {
		s.begin()
	}
	for {
		items, list, err := s.lister.list(ctx, o)
		if apierrors.IsResourceExpired(err) && o.Continue != "" {
			// The pages are too old to go on: take the rest in one piece, at the server's present.
			o.Continue, o.Limit, b.objects = "", 0, nil
			continue
		}
		if apierrors.IsForbidden(err) && s.name != "" {
			if o, getErr := s.lister.get(ctx, s.name); getErr == nil || apierrors.IsNotFound(getErr) {
				return "", s.found(o, getErr, err)
			}
		}
		if err != nil {
			return "", err
		}
		for _, item := range items {
			if s.keep == nil || s.keep(item) {
				if s.trim != nil {
					s.trim(item)
				}
				b.objects = append(b.objects, item)
			}
		}
		if o.Continue = list.GetContinue(); o.Continue == "" {
			if b.version = list.GetResourceVersion(); !s.emit(b) {
				return "", errStopped
			}
			return list.GetResourceVersion(), nil
		}
	}
}

// found emits an object that may be read but not listed: an account with only the right to get. There is nothing to watch
// then, so the caller goes on as after any failure, which reads it again.
func (s *stream) found(o *unstructured.Unstructured, getErr, listErr error) error {
	b := batch{replace: true}
	if getErr == nil {
		b.objects = append(b.objects, o)
	}
	if !s.emit(b) {
		return errStopped
	}
	return &onlyGetError{listErr}
}

// onlyGetError carries why an object had to be read by name, and that it was.
type onlyGetError struct{ err error }

func (e *onlyGetError) Error() string { return e.err.Error() }

func (s *stream) field() string {
	if s.name == "" {
		return ""
	}
	return "metadata.name=" + s.name
}

// follow watches from version on. It returns the version to go on from when the server ended the watch in good order, else an
// error after which the set must be listed again.
func (s *stream) follow(ctx context.Context, version string) (string, error) {
	select {
	case <-s.again:
		s.ask() // for the list, which takes it
		return "", errAsked
	default:
	}
	seconds := watchSeconds + rand.Int64N(watchSeconds)
	w, err := s.open(ctx, metav1.ListOptions{LabelSelector: s.labels, FieldSelector: s.field(),
		ResourceVersion: version, AllowWatchBookmarks: true, TimeoutSeconds: &seconds})
	if err != nil {
		return "", err
	}
	// Reading to the end lets the watch's own goroutine finish, whatever it has still to say.
	defer func() {
		w.Stop()
		for range w.ResultChan() {
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-s.again:
			s.ask() // for the list, which takes it
			return "", errAsked
		case e, open := <-w.ResultChan():
			if !open {
				return version, nil
			}
			if e.Type == watch.Error {
				return "", apierrors.FromObject(e.Object)
			}
			o, err := toUnstructured(e.Object)
			if err != nil {
				return "", err
			}
			version = o.GetResourceVersion()
			b := batch{version: version}
			switch {
			case e.Type == watch.Bookmark || s.keep != nil && !s.keep(o):
			case e.Type == watch.Deleted:
				b.deleted = []*unstructured.Unstructured{o}
			default:
				if s.trim != nil {
					s.trim(o)
				}
				b.objects = []*unstructured.Unstructured{o}
			}
			if !s.emit(b) {
				return "", errStopped
			}
		}
	}
}

// open opens a watch, unless another list is asked for before that: something between here and the server may hold back its answer
// until there is the first event.
func (s *stream) open(ctx context.Context, o metav1.ListOptions) (w watch.Interface, err error) {
	opening, cancel := context.WithCancel(ctx)
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		err = safe.Do(func() (err error) { w, err = s.lister.watch(opening, o); return err })
	}()
	select {
	case <-opened:
		if err != nil {
			cancel()
			safe.Raise(err)
			return nil, err
		}
		return &cancelledWatch{w, cancel}, nil
	case <-s.again:
		s.ask() // for the list, which takes it
	case <-ctx.Done():
	}
	cancel()
	<-opened
	if err == nil {
		w.Stop()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, errAsked
}

// cancelledWatch is a watch that has a context of its own, which ends with it.
type cancelledWatch struct {
	watch.Interface
	cancel context.CancelFunc
}

func (w *cancelledWatch) Stop() {
	w.Interface.Stop()
	w.cancel()
}

// onlyMetadata lists the kinds whose content plays no part in their health (S6.23). Not reading it saves what may be megabytes,
// and keeps secrets where they are.
var onlyMetadata = map[schema.GroupKind]bool{
	{Kind: "ConfigMap"}:               true,
	{Kind: "Secret"}:                  true,
	{Group: "batch", Kind: "CronJob"}: true,
}

// newLister picks the client for a resource.
func newLister(c Clients, m *meta.RESTMapping, namespace string, wholeObject bool) lister {
	if c.Metadata != nil && !wholeObject && onlyMetadata[m.GroupVersionKind.GroupKind()] {
		var r metadata.ResourceInterface = c.Metadata.Resource(m.Resource)
		if namespace != "" {
			r = c.Metadata.Resource(m.Resource).Namespace(namespace)
		}
		return metadataLister{r, m.GroupVersionKind}
	}
	var r dynamic.ResourceInterface = c.Dynamic.Resource(m.Resource)
	if namespace != "" {
		r = c.Dynamic.Resource(m.Resource).Namespace(namespace)
	}
	return dynamicLister{r}
}

type dynamicLister struct{ r dynamic.ResourceInterface }

func (l dynamicLister) list(ctx context.Context, o metav1.ListOptions) ([]*unstructured.Unstructured, metav1.ListInterface, error) {
	list, err := l.r.List(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	items := make([]*unstructured.Unstructured, len(list.Items))
	for i := range list.Items {
		items[i] = &list.Items[i]
	}
	return items, list, nil
}

func (l dynamicLister) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return l.r.Watch(ctx, o)
}

func (l dynamicLister) get(ctx context.Context, name string) (*unstructured.Unstructured, error) {
	return l.r.Get(ctx, name, metav1.GetOptions{})
}

type metadataLister struct {
	r    metadata.ResourceInterface
	kind schema.GroupVersionKind
}

func (l metadataLister) list(ctx context.Context, o metav1.ListOptions) ([]*unstructured.Unstructured, metav1.ListInterface, error) {
	list, err := l.r.List(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	items := make([]*unstructured.Unstructured, len(list.Items))
	for i := range list.Items {
		items[i] = fromMetadata(&list.Items[i], l.kind)
	}
	return items, list, nil
}

func (l metadataLister) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	w, err := l.r.Watch(ctx, o)
	if err != nil {
		return nil, err
	}
	return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
		if m, ok := e.Object.(*metav1.PartialObjectMetadata); ok {
			e.Object = fromMetadata(m, l.kind)
		}
		return e, true
	}), nil
}

func (l metadataLister) get(ctx context.Context, name string) (*unstructured.Unstructured, error) {
	m, err := l.r.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return fromMetadata(m, l.kind), nil
}

// fromMetadata makes an object of what the rules read: the name, the version and whether it is being deleted.
func fromMetadata(m *metav1.PartialObjectMetadata, kind schema.GroupVersionKind) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(kind)
	o.SetNamespace(m.Namespace)
	o.SetName(m.Name)
	o.SetUID(m.UID)
	o.SetResourceVersion(m.ResourceVersion)
	o.SetDeletionTimestamp(m.DeletionTimestamp)
	o.SetCreationTimestamp(m.CreationTimestamp)
	return o
}

func toUnstructured(o runtime.Object) (*unstructured.Unstructured, error) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("the watch sent a %T, not an object", o)
	}
	return u, nil
}
