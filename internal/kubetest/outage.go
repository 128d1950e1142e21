//go:build unix

package kubetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// Component is a program of the control plane.
type Component string

// The components.
const (
	Etcd              Component = "etcd"
	APIServer         Component = "kube-apiserver"
	ControllerManager Component = "kube-controller-manager"
	Scheduler         Component = "kube-scheduler"
	Kubelets          Component = "kwok"
)

// The ways in which a component can be away, and back.
const (
	orderKill   = "kill"   // it ends at once, as in a crash
	orderEnd    = "end"    // it is asked to end, as at an upgrade
	orderStart  = "start"  // it is started again, on the same port
	orderFreeze = "freeze" // it stands still: connections stay open and nothing answers
	orderThaw   = "thaw"   // it goes on
)

// command is an order to a supervisor.
type command struct {
	Do        string    `json:"do"`
	Component Component `json:"component"`
}

// Outage is a component that is away. Its methods are not for concurrent use.
type Outage struct {
	t         testing.TB
	cluster   *Cluster
	component Component
	back      string // the order that ends the outage
	over      bool
}

// Kill ends a component as a crash does, and returns when it is gone. It is started again by End, at the latest when the test ends.
//
// Others share the cluster of [Shared]; a test that takes a component away starts a cluster of its own. That etcd syncs nothing to
// disk loses nothing here, since it is a process that ends and not the machine.
func (c *Cluster) Kill(t testing.TB, component Component) *Outage {
	t.Helper()
	return c.takeAway(t, component, orderKill, orderStart)
}

// Terminate is Kill, but the component may finish in good order, for 10 seconds at most.
func (c *Cluster) Terminate(t testing.TB, component Component) *Outage {
	t.Helper()
	return c.takeAway(t, component, orderEnd, orderStart)
}

// Freeze makes a component stand still: its connections stay open, and nothing answers. It goes on with End, at the latest when the
// test ends.
func (c *Cluster) Freeze(t testing.TB, component Component) *Outage {
	t.Helper()
	return c.takeAway(t, component, orderFreeze, orderThaw)
}

func (c *Cluster) takeAway(t testing.TB, component Component, order, back string) *Outage {
	t.Helper()
	if err := c.tell(command{order, component}); err != nil {
		t.Fatal(err)
	}
	o := &Outage{t: t, cluster: c, component: component, back: back}
	t.Cleanup(o.End)
	return o
}

// End brings the component back. It returns when one that was started again is ready; calling it again does nothing.
func (o *Outage) End() {
	o.t.Helper()
	if o.over {
		return
	}
	o.over = true
	if err := o.cluster.tell(command{o.back, o.component}); err != nil {
		o.t.Error(err)
	}
}

// tell gives the supervisor an order and returns when it has been carried out.
func (c *Cluster) tell(order command) error {
	if c.lifeline == nil {
		return fmt.Errorf("%s %s: a detached test cluster takes no orders", order.Do, order.Component)
	}
	c.telling.Lock()
	defer c.telling.Unlock()
	var r supervisorReport
	if err := c.orders.Encode(order); err != nil {
		return fmt.Errorf("%s %s: tell the supervisor: %w", order.Do, order.Component, err)
	}
	if err := c.reports.Decode(&r); err != nil {
		return fmt.Errorf("%s %s: hear from the supervisor: %w", order.Do, order.Component, err)
	}
	if r.Error != "" {
		return fmt.Errorf("%s %s: %s", order.Do, order.Component, r.Error)
	}
	return nil
}

// obey carries out an order. It must run on the main thread, see childAttr.
func (r *running) obey(ctx context.Context, config supervisorConfig, c command) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not ready after %s", startTimeout))
	defer cancel()
	i := slices.IndexFunc(r.processes, func(p *process) bool { return p.name == string(c.Component) })
	if i < 0 {
		return errors.New("there is no such component")
	}
	p := r.processes[i]
	if gone := p.gone(); gone != (c.Do == orderStart) {
		return fmt.Errorf("it runs: %t", !gone)
	}
	switch c.Do {
	case orderFreeze:
		return p.cmd.Process.Signal(syscall.SIGSTOP)
	case orderThaw:
		return p.cmd.Process.Signal(syscall.SIGCONT)
	case orderKill:
		return p.end(syscall.SIGKILL)
	case orderEnd:
		return p.end(syscall.SIGTERM)
	case orderStart:
		for {
			if err := r.run(config, p); err != nil {
				return err
			}
			err := r.await(ctx, p)
			if !errors.Is(err, errPortTaken) || ctx.Err() != nil {
				return err
			}
			// A connection of another process has the port for the moment; that this one has ended is no news.
			if dead := <-r.died; dead != p {
				r.died <- dead
				return err
			}
		}
	}
	return errors.New("there is no such order")
}

// gone reports whether the process has ended.
func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// politeness is how long a component that is asked to end may take.
const politeness = 10 * time.Second

// end ends a process on purpose and waits until it is gone.
func (p *process) end(signal syscall.Signal) error {
	p.meant.Store(true)
	if err := p.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(politeness):
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.exited
	return nil
}
