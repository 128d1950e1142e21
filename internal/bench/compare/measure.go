//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"k8s.io/client-go/discovery"
	"sigs.k8s.io/kustomize/api/krusty"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/sluicerun/sluice/internal/bench"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// comparison is what to measure.
type comparison struct {
	shapes   []shape
	clients  []client // raw first: the others are compared with it
	rounds   int
	progress io.Writer

	// What is learned on the way.
	busy   float64 // the largest share of strangers, see Machine.Busy
	server string  // the version of the API servers
}

// run measures every shape. Nothing is retried: a client that fails ends the
// comparison, since its numbers would not be those of the work. The shapes
// before that are returned with the error.
func (c *comparison) run(ctx context.Context) ([]Shape, error) {
	var found []Shape
	for _, s := range c.shapes {
		shape, err := c.shape(ctx, s)
		if err != nil {
			return found, fmt.Errorf("%s: %w", s.name, err)
		}
		found = append(found, shape)
	}
	return found, nil
}

func (c *comparison) shape(ctx context.Context, s shape) (Shape, error) {
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return Shape{}, err
	}
	defer os.RemoveAll(dir)
	c.say("%s: %s", s.name, s.what)
	h, err := newHistory(path.Join(dir, "repository"), s.options)
	if err != nil {
		return Shape{}, err
	}
	c.busy = max(c.busy, busy()) // before anything of ours runs
	found := Shape{Name: s.name, What: s.what, Objects: h.states[0].objects(), Times: c.rounds * s.times}
	took, err := kustomizeAlone(h.repository)
	if err != nil {
		return Shape{}, err
	}
	found.BuildSeconds = took.Seconds()
	var clients []client
	for _, client := range c.clients {
		if f, ok := client.(fitting); !ok || f.fits(s.name) {
			clients = append(clients, client)
		}
	}
	all := samples{}
	for range found.Times {
		for _, client := range clients {
			if err := c.client(ctx, client, h, dir, all); err != nil {
				return Shape{}, fmt.Errorf("%s: %w", client.name(), err)
			}
		}
	}
	var situations []situation
	for _, state := range h.states {
		situations = append(situations, state.situation)
	}
	var names []string
	for _, client := range clients {
		names = append(names, client.name())
	}
	found.Measurements = all.measurements(situations, names)
	return found, nil
}

// client measures one client in all situations, on a cluster that has just
// been started, and a second time to count requests if it has to be so.
func (c *comparison) client(ctx context.Context, client client, h *history, dir string, all samples) error {
	timed, err := c.pass(ctx, client, h, dir, client.counting() == passing)
	if err != nil {
		return err
	}
	if client.counting() == apart {
		counted, err := c.pass(ctx, client, h, dir, true)
		if err != nil {
			return fmt.Errorf("counting requests: %w", err)
		}
		for i := range timed {
			timed[i].requests, timed[i].gates = counted[i].requests, counted[i].gates
		}
	}
	i := 0
	for _, state := range h.states {
		if meets(client, state.situation) {
			all.add(state.situation, client.name(), timed[i])
			i++
		}
	}
	return nil
}

func meets(c client, s situation) bool {
	l, ok := c.(limited)
	return !ok || l.meets(s)
}

// pass brings all states that the client meets into a new cluster, one after
// the other.
func (c *comparison) pass(ctx context.Context, client client, h *history, dir string, through bool) (took []spent, err error) {
	cluster, err := kubetest.Start(ctx, kubetest.Options{Progress: c.progress})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	if c.server == "" {
		if c.server, err = serverVersion(cluster); err != nil {
			return nil, err
		}
	}
	var p *counter
	var g *gates
	if through {
		if p, err = newCounter(cluster, dir); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, p.Close()) }()
		if client.counting() == apart {
			g = watchGates(p.Proxy)
		}
	}
	for _, state := range h.states {
		if !meets(client, state.situation) {
			continue
		}
		got, err := client.deploy(ctx, h, state, cluster, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", state.situation, err)
		}
		if through {
			got.requests = proxy.Count(p.Take())
		}
		told := seconds(got.wall.Seconds())
		if through && client.counting() == apart {
			told = "counted: " + got.requests.String()
		}
		if g != nil {
			ready, began, errs := g.take()
			if len(errs) > 0 {
				return nil, fmt.Errorf("%s: %w", state.situation, errors.Join(errs...))
			}
			if got.gates = opened(state.steps, ready, began); len(got.gates) > 0 {
				told += fmt.Sprintf("; gates opened within %s (p50 / p99 of %d)", latency(got.gates), len(got.gates))
			}
		}
		c.say("  %-12s  %-23s  %s", client.name(), state.situation, told)
		took = append(took, got)
	}
	return took, nil
}

func serverVersion(c *kubetest.Cluster) (string, error) {
	asking, err := discovery.NewDiscoveryClientForConfig(c.Config())
	if err != nil {
		return "", err
	}
	v, err := asking.ServerVersion()
	if err != nil {
		return "", err
	}
	return v.GitVersion, nil
}

func (c *comparison) say(format string, args ...any) {
	fmt.Fprintf(c.progress, format+"\n", args...)
}

// kustomizeAlone builds all folders with nothing but the kustomize library,
// one after the other from files in memory, and returns the time it took.
func kustomizeAlone(r *bench.Repository) (time.Duration, error) {
	var took time.Duration
	for _, folder := range r.Folders() {
		memory := filesys.MakeFsInMemory()
		for name, content := range folder {
			if err := memory.WriteFile(path.Join("/", name), []byte(content)); err != nil {
				return 0, err
			}
		}
		began := time.Now()
		_, err := krusty.MakeKustomizer(&krusty.Options{
			Reorder:          krusty.ReorderOptionNone,
			LoadRestrictions: kustypes.LoadRestrictionsNone,
			PluginConfig:     kustypes.DisabledPluginConfig(),
		}).Run(memory, "/")
		took += time.Since(began)
		if err != nil {
			return 0, fmt.Errorf("kustomize alone: %w", err)
		}
	}
	return took, nil
}
