package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/restmapper"

	"github.com/sluicerun/sluice/internal/retry"
)

// negativeTTL is how long the answer "unknown kind" is believed. It is long
// enough that the two thousand objects of one unknown kind do not ask two
// thousand times, and shorter than the pause after which a caller asks again
// because the definition has just been applied.
const negativeTTL = 150 * time.Millisecond

// mapper knows the kinds that the server has. It learns all of them at the
// first question, with the two requests of aggregated discovery, and again
// when it is asked for one that it does not know.
type mapper struct {
	disco discovery.DiscoveryInterface

	mu     sync.Mutex
	inner  meta.RESTMapper
	loaded time.Time
}

var _ meta.RESTMapper = (*mapper)(nil)

// current returns the mapper in use; older forces a refresh if what is known
// was learned before that time. Concurrent callers share one refresh.
func (m *mapper) current(older time.Time) (meta.RESTMapper, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inner != nil && m.loaded.After(older) {
		return m.inner, m.loaded, nil
	}
	// The time before the question, since the answer may miss whatever
	// comes after.
	asked := time.Now()
	var groups []*restmapper.APIGroupResources
	err := retry.Do(context.Background(), requestRetry, func(context.Context, int) error {
		var err error
		if groups, err = restmapper.GetAPIGroupResources(m.disco); err != nil && !Transient(err) {
			return retry.Permanent(err)
		}
		return err
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("cannot ask the server for the kinds that it knows: %w", err)
	}
	m.inner, m.loaded = restmapper.NewDiscoveryRESTMapper(groups), asked
	return m.inner, m.loaded, nil
}

// ask puts a question to the mapper in use, and again after a refresh if it
// does not know the answer.
func ask[T any](m *mapper, question func(meta.RESTMapper) (T, error)) (T, error) {
	var none T
	inner, loaded, err := m.current(time.Time{})
	if err != nil {
		return none, err
	}
	answer, err := question(inner)
	if err == nil || !meta.IsNoMatchError(err) {
		return answer, err
	}
	if time.Since(loaded) < negativeTTL {
		return none, err
	}
	fresh, _, refreshErr := m.current(loaded)
	if refreshErr != nil {
		return none, errors.Join(err, refreshErr)
	}
	return question(fresh)
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
	inner, _, err := m.current(time.Time{})
	if err != nil {
		return "", err
	}
	return inner.ResourceSingularizer(resource)
}
