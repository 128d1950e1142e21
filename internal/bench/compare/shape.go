//go:build unix

package main

import (
	"fmt"
	"math"

	"github.com/fluxcd/pkg/ssa/normalize"

	"github.com/sluicerun/sluice/internal/bench"
)

// shape is a repository that everything is measured with.
type shape struct {
	name string
	// what it is, for the table.
	what    string
	options bench.Options
	// times is how often a round measures it.
	times int
}

// shapes are all shapes in the order of the table, from smallest to largest.
// The scale shrinks the numbers of Kustomizations, and of the objects where
// there is only one Kustomization; 1 is what budgets are for.
func shapes(scale float64) []shape {
	part := func(n, least int) int { return max(least, int(math.Round(float64(n)*scale))) }
	links := part(20, 2)
	list := []shape{
		{name: "chain", options: bench.Options{Kustomizations: links, Objects: 6, Layers: links, Replicas: 1}},
		{name: "layers", options: bench.Options{Kustomizations: part(100, 5), Objects: 6, Layers: 5, Replicas: 1}},
		{name: "wide", options: bench.Options{Kustomizations: part(100, 2), Objects: 20}},
		{name: "big", options: bench.Options{Kustomizations: 1, Objects: part(2000, 20)}},
		{name: "huge", options: bench.Options{Kustomizations: part(1000, 3), Objects: 20}},
	}
	for i := range list {
		o := list[i].options
		list[i].what, list[i].times = fmt.Sprintf("%d × %d objects", o.Kustomizations, o.Objects), 1
		switch {
		case o.Layers == o.Kustomizations && o.Layers > 1:
			list[i].what += ", each waiting for the one before"
			// It is about the smallest differences, and over in two seconds, of
			// which one measurement says little.
			if scale == 1 {
				list[i].times = 3
			}
		case o.Layers > 0:
			list[i].what += fmt.Sprintf(" in %d layers, each waiting for the one before", o.Layers)
		}
	}
	return list
}

// situation is what a client meets in the cluster, and what the commit has
// changed since.
type situation string

// The situations follow on each other on one cluster.
const (
	install   situation = "first install"
	unchanged situation = "unchanged"
	changed   situation = "one object changed"
	added     situation = "one Kustomization added"
)

// state is what a client brings into the cluster in a situation.
type state struct {
	situation situation
	commit    string
	steps     [][]bench.Kustomization
}

// objects are how many the state has.
func (s state) objects() int {
	n := 0
	for _, step := range s.steps {
		for _, k := range step {
			n += len(k.Objects)
		}
	}
	return n
}

// history is a repository with one commit for each situation. It is made once
// for all clients of a shape.
type history struct {
	repository *bench.Repository
	states     []state
}

func newHistory(dir string, o bench.Options) (*history, error) {
	r, err := bench.New(dir, o)
	if err != nil {
		return nil, err
	}
	h := &history{repository: r}
	for _, next := range []struct {
		situation situation
		commit    func() error
	}{
		{install, func() error { return nil }},
		{unchanged, r.CommitNothing},
		{changed, r.CommitImage},
		{added, r.CommitKustomization},
	} {
		if err := next.commit(); err != nil {
			return nil, err
		}
		steps, err := r.Steps()
		if err != nil {
			return nil, err
		}
		for _, step := range steps {
			for _, k := range step {
				// As Flux and sluice do before they apply, so that all
				// clients send the same fields.
				if err := normalize.UnstructuredList(k.Objects); err != nil {
					return nil, err
				}
			}
		}
		h.states = append(h.states, state{next.situation, r.Head(), steps})
	}
	return h, nil
}
