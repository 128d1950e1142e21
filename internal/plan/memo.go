package plan

import (
	"context"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/cluster/rehearse"
	"github.com/sluicerun/sluice/internal/flux"
)

// memo is what planning has learned about one node's objects.
type memo struct {
	mu      sync.Mutex
	entries map[flux.Ref]*entry
}

type entry struct {
	desired *unstructured.Unstructured
	// known is set if the object is as desired and no answers were kept; ref
	// is then what the cluster calls it, and version as of when.
	known        bool
	ref          flux.Ref
	version      string
	live, dryRun *rehearse.Answer
}

func (p *Plan) remember(it *item, s *supply) {
	m := p.memos[it.node.ID]
	if m == nil {
		m = &memo{entries: map[flux.Ref]*entry{}}
		p.memos[it.node.ID] = m
	}
	e := &entry{desired: it.object.Unstructured, known: it.let, ref: it.change.Ref, version: it.version, live: it.live, dryRun: it.dryRun}
	switch {
	case it.otherwise:
		return // it may exist, and nobody has looked
	case it.absent || it.unserved != nil:
		e.live, e.dryRun = &rehearse.Answer{}, nil
	case it.change.Action == Later, it.homeless, s.changesKind(it):
		// By its turn the answers may be others.
		return
	}
	if e.live != nil && e.live.Object == nil && e.live.Err == nil && markerIn(it.object.Unstructured, it.node.Rules.SSA.IfNotPresentSelector) != "" {
		// Whether it is to be created at all is decided by whether it is
		// there: at its turn, not when the plan was made.
		e.live = nil
	}
	m.entries[it.object.Ref()] = e
}

// Known says, once, of an object of a node that its apply need not look at it: it
// was proven to be as desired. The reference is what the cluster calls it, the
// version that of the object as it was read. The object must be the one that was
// planned, not a copy. Calls may overlap.
func (p *Plan) Known(node flux.ID, o flux.Object) (ref flux.Ref, version string, ok bool) {
	m := p.memos[node]
	if m == nil {
		return flux.Ref{}, "", false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[o.Ref()]
	if e == nil || !e.known || e.desired != o.Unstructured {
		return flux.Ref{}, "", false
	}
	e.known = false
	return e.ref, e.version, true
}

// Client returns a client for the apply of one node. It answers the read and
// the dry run of an object from the plan, each once, and only if the object is
// still the one that was planned; so a second attempt sees the server. All else
// goes to real, which must act as the node's user.
//
// It is safe for concurrent use. A node that was not planned gets real.
func (p *Plan) Client(node flux.ID, real client.WithWatch) client.WithWatch {
	m := p.memos[node]
	if m == nil {
		return real
	}
	return &memoClient{WithWatch: real, memo: m}
}

type memoClient struct {
	client.WithWatch
	memo *memo
}

// Get answers from the plan, once.
func (c *memoClient) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	if into, ok := obj.(*unstructured.Unstructured); ok {
		gvk := into.GroupVersionKind()
		ref := flux.Ref{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Namespace: key.Namespace, Name: key.Name}
		if answer := c.memo.takeLive(ref); answer != nil {
			return answer.Fill(into, key)
		}
	}
	return c.WithWatch.Get(ctx, key, obj, opts...)
}

// Patch answers a dry run from the plan, once.
func (c *memoClient) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	if into, ok := obj.(*unstructured.Unstructured); ok && rehearse.IsDryRunApply(patch, opts) {
		if answer := c.memo.takeDryRun(into); answer != nil {
			if answer.Err != nil {
				return answer.Err
			}
			into.Object = answer.Object.DeepCopy().Object
			return nil
		}
	}
	return c.WithWatch.Patch(ctx, obj, patch, opts...)
}

func (m *memo) takeLive(ref flux.Ref) *rehearse.Answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[ref]
	if e == nil {
		return nil
	}
	answer := e.live
	e.live = nil
	return answer
}

func (m *memo) takeDryRun(desired *unstructured.Unstructured) *rehearse.Answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[flux.RefOf(desired)]
	if e == nil || e.live != nil || e.dryRun == nil {
		// The answers belong together: a dry run is not compared with an
		// object that was read at another time.
		return nil
	}
	answer := e.dryRun
	e.dryRun = nil
	if !reflect.DeepEqual(e.desired.Object, desired.Object) {
		return nil
	}
	return answer
}
