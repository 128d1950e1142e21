package inventory

import (
	"context"
	"maps"
	"strconv"
	"sync"

	"github.com/sluicerun/sluice/internal/flux"
)

// MemoryStore is a Store in memory, for work without a cluster and for tests. It goes through the stored form, so that it
// refuses what ClusterStore refuses. The zero value is empty and ready.
type MemoryStore struct {
	mu      sync.Mutex
	objects map[string]memoryObject
	counter int
}

type memoryObject struct {
	payload
	version string
	kind    string
	id      flux.ID
	root    flux.ID
}

// Load implements Store.
func (m *MemoryStore) Load(_ context.Context, root flux.ID) (*State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	state := newState()
	for name, o := range m.objects {
		at := stored{object: "memory/" + name, name: name, kind: o.kind, rootLabel: RootLabelValue(o.root), id: o.id, root: o.root,
			payload: o.payload, version: o.version}
		if err := state.add(at, root); err != nil {
			return nil, err
		}
	}
	state.fold()
	state.Versions = m.versions(root)
	return state, nil
}

// Save implements Store.
func (m *MemoryStore) Save(_ context.Context, r *Record) error {
	p, err := r.encode()
	if err != nil {
		return err
	}
	if err := m.write(RecordName(r.ID), memoryObject{payload: p, kind: KindKustomization, id: r.ID, root: r.Root}, &r.stored); err != nil {
		return err
	}
	r.parts = p.refs
	r.keep()
	return nil
}

// SaveRoot implements Store.
func (m *MemoryStore) SaveRoot(_ context.Context, r *Root) error {
	p, err := r.encode()
	if err != nil {
		return err
	}
	return m.write(RootName(r.ID), memoryObject{payload: p, kind: KindRoot, id: r.ID, root: r.ID}, &r.stored)
}

// Delete implements Store.
func (m *MemoryStore) Delete(_ context.Context, r *Record) error {
	return m.remove(RecordName(r.ID), &r.stored)
}

// DeleteRoot implements Store.
func (m *MemoryStore) DeleteRoot(_ context.Context, r *Root) error {
	return m.remove(RootName(r.ID), &r.stored)
}

// Sweep implements Store: here nothing is left.
func (m *MemoryStore) Sweep(context.Context, flux.ID) error { return nil }

func (m *MemoryStore) write(name string, o memoryObject, stored *string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	live := m.objects[name]
	if live.version != "" && live.version != *stored && live.root != o.root {
		return &OwnedError{ID: o.id, Root: live.root}
	}
	if live.version != *stored {
		return &ConflictError{Object: "memory/" + name}
	}
	m.counter++
	o.version = strconv.Itoa(m.counter)
	o.data, o.binary = maps.Clone(o.data), maps.Clone(o.binary)
	if m.objects == nil {
		m.objects = map[string]memoryObject{}
	}
	m.objects[name] = o
	*stored = o.version
	return nil
}

func (m *MemoryStore) remove(name string, stored *string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	live, ok := m.objects[name]
	if *stored == "" || !ok {
		*stored = ""
		return nil
	}
	if live.version != *stored {
		return &ConflictError{Object: "memory/" + name}
	}
	delete(m.objects, name)
	*stored = ""
	return nil
}
