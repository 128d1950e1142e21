//go:build unix

package main

import (
	"context"
	"time"

	"github.com/sluicerun/sluice/internal/kubetest"
)

// client is one way to bring a repository into a cluster.
type client interface {
	// name is how the table calls it.
	name() string
	counting() counting
	// deploy brings one state into the cluster and returns when all is
	// applied, and rolled out where the state waits. Only the time that the
	// client itself takes is measured. If proxy is not nil, the client talks to
	// the cluster through it.
	deploy(ctx context.Context, h *history, s state, c *kubetest.Cluster, p *counter) (spent, error)
}

// spent is what one deployment took.
type spent struct {
	wall time.Duration
	// cpu and peak are those of the client's process; 0 for clients in
	// this one. The peak is in bytes.
	cpu  time.Duration
	peak int64
	// requests are those that the client has counted itself, else nil.
	requests counts
	// gates are how long the gates took to open, where that was measured.
	gates []time.Duration
}

// counting says how a client's requests are counted.
type counting int

const (
	// inside: the client is in this process and counts them itself.
	inside counting = iota
	// apart: by a proxy, in further runs on a cluster of their own. What is
	// counted is not timed.
	apart
	// passing: by a proxy, in the runs that are timed.
	passing
)

// limited is a client that is not measured in every situation.
type limited interface {
	client
	meets(situation) bool
}

// fitting is a client that is not measured with every shape.
type fitting interface {
	client
	fits(shape string) bool
}
