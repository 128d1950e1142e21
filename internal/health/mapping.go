package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/safe"
)

// resolve asks the mapper, which knows no context and may be asking the server, without waiting for it longer than ctx.
func resolve(ctx context.Context, mapper meta.RESTMapper, gk schema.GroupKind) (*meta.RESTMapping, error) {
	type answer struct {
		m   *meta.RESTMapping
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		defer func() { answers <- a }()
		defer safe.Recover(&a.err)
		a.m, a.err = mapper.RESTMapping(gk)
	}()
	select {
	case a := <-answers:
		return a.m, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// misnamedError says that a reference can never name an object (S6.14).
type misnamedError struct{ ref flux.Ref }

func (e *misnamedError) Error() string {
	return fmt.Sprintf("can't determine status for %s: the kind is namespaced and no namespace is given", e.ref)
}

// Hint says what to do.
func (e *misnamedError) Hint() string {
	return fmt.Sprintf("set the namespace of %s in spec.healthChecks; it is not defaulted", e.ref)
}

func isMisnamed(err error) bool {
	var m *misnamedError
	return errors.As(err, &m)
}

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// newKinds wakes those who wait for a kind that is not served yet, whenever a CustomResourceDefinition of its group changes.
type newKinds struct {
	mu    sync.Mutex
	wakes map[string]chan struct{}
}

// wake returns a channel that is closed with the next change in the group.
func (n *newKinds) wake(group string) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	c, ok := n.wakes[group]
	if !ok {
		c = make(chan struct{})
		if n.wakes == nil {
			n.wakes = map[string]chan struct{}{}
		}
		n.wakes[group] = c
	}
	return c
}

func (n *newKinds) changed(group string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c, ok := n.wakes[group]; ok {
		close(c)
		delete(n.wakes, group)
	}
}

// watch follows the cluster's CustomResourceDefinitions until ctx ends, or gives up if the account may not: whoever waits then
// asks again after a pause, as for kinds that come from an aggregated API server.
func (n *newKinds) watch(ctx context.Context, c Clients) {
	kind := schema.GroupVersionKind{Group: crdResource.Group, Version: crdResource.Version, Kind: "CustomResourceDefinition"}
	var l lister = dynamicLister{c.Dynamic.Resource(crdResource)}
	if c.Metadata != nil {
		l = metadataLister{c.Metadata.Resource(crdResource), kind}
	}
	s := stream{lister: l, emit: func(b batch) bool {
		for _, o := range append(b.objects, b.deleted...) {
			if _, group, ok := strings.Cut(o.GetName(), "."); ok {
				n.changed(group)
			}
		}
		return ctx.Err() == nil
	}}
	// Neither errGone nor Forbidden is a failure here, and nothing else comes back.
	_ = s.run(ctx, true)
}

// namespaceFor is the namespace in which objects of a mapping's kind called ref are found.
func namespaceFor(m *meta.RESTMapping, r flux.Ref) (string, error) {
	if m.Scope.Name() != meta.RESTScopeNameNamespace {
		return metav1.NamespaceNone, nil
	}
	if r.Namespace == "" {
		return "", &misnamedError{r}
	}
	return r.Namespace, nil
}
