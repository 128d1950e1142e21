package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/restmapper"

	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/retry"
)

const (
	// negativeTTL is how long the answer "unknown kind" is believed. It is long
	// enough that the two thousand objects of one unknown kind do not ask two
	// thousand times, and shorter than the pause after which a caller asks again
	// because the definition has just been applied.
	negativeTTL = 150 * time.Millisecond
	// quietTTL takes its place as long as nothing has been written here and
	// nobody waits for a kind to come: however slow the machine is, the plan is
	// made of one discovery.
	quietTTL = 10 * time.Minute
)

// mapper knows the kinds that the server has. It learns all of them at the
// first question, with the two requests of aggregated discovery, and again
// when it is asked for one that it does not know.
type mapper struct {
	disco discovery.DiscoveryInterfaceWithContext
	on    *limits
	// done ends the questions for good; nil for never.
	done <-chan struct{}
	// wrote is set by the first write to the cluster, and by the first who waits
	// for a kind that something else brings.
	wrote atomic.Bool

	mu sync.Mutex
	known
}

// known is what one discovery has brought.
type known struct {
	meta.RESTMapper
	asked time.Time
	// silent are the groups and versions of aggregated API servers that do
	// not answer: what they serve is not known just now.
	silent map[schema.GroupVersion]bool
}

var _ meta.ResettableRESTMapper = (*mapper)(nil)

// Reset says that somebody waits for a kind that is not known: from now on that
// one is not known is not believed for long.
func (m *mapper) Reset() { m.wrote.Store(true) }

// current returns what is known; older forces a refresh if that was learned
// before that time. Concurrent callers share one refresh.
func (m *mapper) current(older time.Time) (known, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.RESTMapper != nil && m.asked.After(older) {
		return m.known, nil
	}
	ctx, cancel := m.until()
	defer cancel()
	var now known
	err := retry.Do(ctx, requestRetry, func(ctx context.Context, attempt int) error {
		if attempt > 1 {
			m.on.again.Add(1)
		}
		var err error
		now, err = discover(ctx, m.disco)
		switch class := faults.Of(err); {
		case err != nil && !class.Passing():
			return retry.Permanent(err)
		case class == faults.Unwell:
			return retry.AtMost(err, unwellAttempts)
		}
		return err
	})
	if err != nil {
		return known{}, fmt.Errorf("cannot ask the server for the kinds that it knows: %w", err)
	}
	m.known = now
	return now, nil
}

// errDone is the cause of what done has ended.
var errDone = errors.New("the run is at its end")

// until returns the context of a question. Those who ask have none: client-go's
// mappers know no contexts.
func (m *mapper) until() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		select {
		case <-m.done:
			cancel(errDone)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// discover asks the server once, whatever part of the answer is missing: an
// aggregated API server that is down would not answer a second question a
// moment later, and takes only its own kinds with it.
func discover(ctx context.Context, disco discovery.DiscoveryInterfaceWithContext) (known, error) {
	// The time before the question, since the answer may miss whatever
	// comes after.
	now := known{asked: time.Now(), silent: map[schema.GroupVersion]bool{}}
	groups, lists, err := discovery.ServerGroupsAndResourcesWithContext(ctx, disco)
	if failed := (*discovery.ErrGroupDiscoveryFailed)(nil); errors.As(err, &failed) {
		for gv := range failed.Groups {
			now.silent[gv] = true
		}
	} else if err != nil {
		return known{}, err
	}
	resources := map[string][]metav1.APIResource{}
	for _, list := range lists {
		resources[list.GroupVersion] = list.APIResources
	}
	var all []*restmapper.APIGroupResources
	for _, group := range groups {
		of := &restmapper.APIGroupResources{Group: *group, VersionedResources: map[string][]metav1.APIResource{}}
		for _, version := range group.Versions {
			if list, ok := resources[version.GroupVersion]; ok {
				of.VersionedResources[version.Version] = list
			}
		}
		all = append(all, of)
	}
	now.RESTMapper = restmapper.NewDiscoveryRESTMapper(all)
	return now, nil
}

// SilentError says that a kind is not known because the API server that its
// group is delegated to does not answer. It counts as one of those for which
// meta.IsNoMatchError holds.
type SilentError struct {
	GroupVersion schema.GroupVersion
	// Err is the mapper's.
	Err error
}

func (e *SilentError) Error() string {
	return fmt.Sprintf("%v: the API server that %s is delegated to does not answer", e.Err, e.GroupVersion)
}

// Unwrap returns the mapper's error.
func (e *SilentError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *SilentError) Hint() string {
	return fmt.Sprintf("see the status of APIService %s.%s; the pods behind it may be down", e.GroupVersion.Version, e.GroupVersion.Group)
}

// explain says more of an unknown kind, if there is more to say.
func (k *known) explain(err error) error {
	var kind *meta.NoKindMatchError
	if !errors.As(err, &kind) {
		return err
	}
	var all []schema.GroupVersion
	for gv := range k.silent {
		if gv.Group == kind.GroupKind.Group && (len(kind.SearchedVersions) == 0 || slices.Contains(kind.SearchedVersions, gv.Version)) {
			all = append(all, gv)
		}
	}
	if len(all) == 0 {
		return err
	}
	slices.SortFunc(all, func(a, b schema.GroupVersion) int { return cmp.Compare(a.Version, b.Version) })
	return &SilentError{GroupVersion: all[0], Err: err}
}

// ask puts a question to the mapper in use, and again after a refresh if it
// does not know the answer.
func ask[T any](m *mapper, question func(meta.RESTMapper) (T, error)) (T, error) {
	var none T
	now, err := m.current(time.Time{})
	if err != nil {
		return none, err
	}
	answer, err := question(now)
	if err == nil || !meta.IsNoMatchError(err) {
		return answer, err
	}
	believed := quietTTL
	if m.wrote.Load() {
		believed = negativeTTL
	}
	if time.Since(now.asked) < believed {
		return none, now.explain(err)
	}
	fresh, refreshErr := m.current(now.asked)
	if refreshErr != nil {
		return none, errors.Join(err, refreshErr)
	}
	answer, err = question(fresh)
	return answer, fresh.explain(err)
}

func (m *mapper) KindFor(r schema.GroupVersionResource) (schema.GroupVersionKind, error) {
	return ask(m, func(i meta.RESTMapper) (schema.GroupVersionKind, error) { return i.KindFor(r) })
}

func (m *mapper) KindsFor(r schema.GroupVersionResource) ([]schema.GroupVersionKind, error) {
	return ask(m, func(i meta.RESTMapper) ([]schema.GroupVersionKind, error) { return i.KindsFor(r) })
}

func (m *mapper) ResourceFor(r schema.GroupVersionResource) (schema.GroupVersionResource, error) {
	return ask(m, func(i meta.RESTMapper) (schema.GroupVersionResource, error) { return i.ResourceFor(r) })
}

func (m *mapper) ResourcesFor(r schema.GroupVersionResource) ([]schema.GroupVersionResource, error) {
	return ask(m, func(i meta.RESTMapper) ([]schema.GroupVersionResource, error) { return i.ResourcesFor(r) })
}

func (m *mapper) RESTMapping(gk schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	return ask(m, func(i meta.RESTMapper) (*meta.RESTMapping, error) { return i.RESTMapping(gk, versions...) })
}

func (m *mapper) RESTMappings(gk schema.GroupKind, versions ...string) ([]*meta.RESTMapping, error) {
	return ask(m, func(i meta.RESTMapper) ([]*meta.RESTMapping, error) { return i.RESTMappings(gk, versions...) })
}

func (m *mapper) ResourceSingularizer(resource string) (string, error) {
	now, err := m.current(time.Time{})
	if err != nil {
		return "", err
	}
	return now.ResourceSingularizer(resource)
}
