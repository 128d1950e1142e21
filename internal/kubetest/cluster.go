//go:build unix

package kubetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"k8s.io/client-go/rest"
)

// Options say what cluster is wanted. The zero value is a good cluster for tests.
type Options struct {
	// Dir is the cluster's folder: kubeconfig, logs, data. "" is a new temporary folder.
	Dir string
	// Nodes is the number of nodes, 3 if 0.
	Nodes int
	// Progress receives what takes long: building the programs. nil is standard error.
	Progress io.Writer
	// Detach lets the cluster outlive this process; Down ends it. Dir must be set.
	Detach bool
	// KeepLogs leaves the folder with its logs behind when the cluster ends.
	KeepLogs bool
}

// Cluster is a running control plane with nodes. Its methods may be called concurrently.
type Cluster struct {
	dir    string
	server string
	config *rest.Config

	lifeline io.Closer     // closing it ends the cluster; nil for a detached cluster
	ended    chan struct{} // closed when the supervisor is gone
	err      error         // why the cluster ended by itself; set before ended is closed
	stopping sync.Once
	users    sync.Mutex

	telling sync.Mutex    // held while the supervisor is told something
	orders  *json.Encoder // to the supervisor
	reports *json.Decoder // from it
}

// Start starts a cluster and returns when pods can run on it, usually within 4 s; the first time on a machine, it builds the
// programs first (see Build). If ctx ends before that, nothing is left.
//
// The cluster ends with Stop or with this process, however that ends, unless Options.Detach is set. Errors name the component
// that failed and hold the end of its log.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Progress == nil {
		o.Progress = os.Stderr
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Detach && o.Dir == "" {
		return nil, errors.New("start a test cluster: a detached cluster needs a folder by which to find it again")
	}
	programs, err := Build(ctx, o.Progress)
	if err != nil {
		return nil, fmt.Errorf("start a test cluster: %w", err)
	}
	dir, err := clusterDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("start a test cluster: %w", err)
	}
	c, err := startSupervisor(ctx, supervisorConfig{
		Dir: dir, Binaries: programs, Nodes: o.Nodes, Detach: o.Detach, Keep: o.KeepLogs,
	}, o.Progress)
	if err != nil {
		return nil, fmt.Errorf("start a test cluster in %q: %w", dir, err)
	}
	return c, nil
}

func clusterDir(dir string) (string, error) {
	if dir == "" {
		dir, err := os.MkdirTemp("", "kubetest-")
		if err != nil {
			return "", fmt.Errorf("make the cluster's folder: %w", err)
		}
		return dir, nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the cluster's folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the cluster's folder: %w", err)
	}
	return dir, nil
}

// startSupervisor starts the supervisor and waits for its report.
func startSupervisor(ctx context.Context, config supervisorConfig, progress io.Writer) (*Cluster, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, which supervises the cluster: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(config.Dir, "logs"), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the logs: %w", err)
	}
	// A file and not our standard error: whoever waits for our output to end must not wait for the supervisor.
	logPath := layout{config.Dir}.log("supervisor")
	log, err := os.Create(logPath)
	if err != nil {
		return nil, fmt.Errorf("make the supervisor's log: %w", err)
	}
	defer log.Close()

	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), superviseEnv+"=1")
	cmd.Dir = config.Dir
	cmd.Stderr = log
	// A group of its own: Ctrl-C at a terminal reaches the owner only, and the whole group can be killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe to the supervisor: %w", err)
	}
	reports, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe from the supervisor: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}

	c := &Cluster{dir: config.Dir, lifeline: lifeline, ended: make(chan struct{})}
	ready := make(chan error, 1)
	go func() { ready <- c.handshake(lifeline, reports, config) }()
	var startErr error
	select {
	case startErr = <-ready:
	case <-ctx.Done():
		startErr = context.Cause(ctx)
		lifeline.Close() // the supervisor ends, and with it the hand-shake
		if config.Detach {
			_ = cmd.Process.Signal(syscall.SIGTERM) // gone already if it fails
		}
		<-ready
	}
	if startErr != nil {
		lifeline.Close()
		_ = cmd.Wait() // the report says more than the exit status
		killGroup(cmd.Process.Pid)
		return nil, startErr
	}
	if config.Detach {
		lifeline.Close()
		c.lifeline = nil
		if err := cmd.Process.Release(); err != nil {
			return nil, fmt.Errorf("let go of the supervisor: %w", err)
		}
		return c, nil
	}
	go c.watch(cmd, logPath, progress)
	return c, nil
}

// handshake sends the configuration and waits for the report.
func (c *Cluster) handshake(lifeline io.Writer, reports io.Reader, config supervisorConfig) error {
	c.orders, c.reports = json.NewEncoder(lifeline), json.NewDecoder(reports)
	if err := c.orders.Encode(config); err != nil {
		return fmt.Errorf("configure the supervisor: %w; its log:\n%s", err, logTail(layout{config.Dir}.log("supervisor"), tailLines))
	}
	var r supervisorReport
	if err := c.reports.Decode(&r); err != nil {
		return fmt.Errorf("the supervisor ended without a report: %w; its log:\n%s", err, logTail(layout{config.Dir}.log("supervisor"), tailLines))
	}
	if r.Error != "" {
		return errors.New(r.Error)
	}
	c.server = r.Server
	var err error
	c.config, err = configFor(c.Kubeconfig())
	return err
}

// watch waits for the end of the supervisor, and says so if nobody asked for it.
func (c *Cluster) watch(cmd *exec.Cmd, logPath string, progress io.Writer) {
	err := cmd.Wait()
	// If the supervisor was killed, the kernel of Linux has killed the components; elsewhere this does.
	killGroup(cmd.Process.Pid)
	if err != nil {
		// Its last words are a sentence and the end of a component's log.
		c.err = fmt.Errorf("the test cluster ended: %w\n%s", err, logTail(logPath, tailLines+1))
		fmt.Fprintln(progress, "kubetest:", c.err)
	}
	close(c.ended)
}

// killGroup kills what is left of a supervisor's process group, usually nothing.
func killGroup(leader int) {
	_ = syscall.Kill(-leader, syscall.SIGKILL)
}

// Stop ends the cluster and waits until all its processes and its folder are gone. It returns an error if the cluster had ended
// by itself. Calling it again does nothing more. A detached cluster is ended by Down instead.
func (c *Cluster) Stop() error {
	if c.lifeline == nil {
		return errors.New("stop a detached test cluster: use Down")
	}
	c.stopping.Do(func() { c.lifeline.Close() })
	<-c.ended
	return c.err
}

// Ended is closed when the cluster is gone, for whatever reason. It is never closed for a detached cluster.
func (c *Cluster) Ended() <-chan struct{} { return c.ended }

// Dir is the cluster's folder. The logs of the components are in its folder "logs".
func (c *Cluster) Dir() string { return c.dir }

// Server is the URL of the API server.
func (c *Cluster) Server() string { return c.server }

// Kubeconfig is the path of a kubeconfig for an administrator (user kubetest-admin, group system:masters).
func (c *Cluster) Kubeconfig() string { return layout{c.dir}.kubeconfig() }

// Config is a new client configuration for the administrator, without client-side throttling. The caller owns it.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// KubeconfigFor writes a kubeconfig for a user who is a member of groups and returns its path. The user may do what the cluster's
// RBAC rules grant, which at first is what every authenticated user may: ask which APIs are served. The file goes with the cluster.
func (c *Cluster) KubeconfigFor(user string, groups ...string) (string, error) {
	c.users.Lock()
	defer c.users.Unlock()
	l := layout{c.dir}
	ca, err := loadAuthority(l.pki(""))
	if err != nil {
		return "", fmt.Errorf("make a kubeconfig for %q: %w", user, err)
	}
	client, err := ca.client(user, groups...)
	if err != nil {
		return "", fmt.Errorf("make a kubeconfig for %q: %w", user, err)
	}
	dir := filepath.Join(c.dir, "users")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a kubeconfig for %q: %w", user, err)
	}
	// User names may hold any character, as system:serviceaccount:a:b does; file names may not.
	sum := sha256.Sum256([]byte(strings.Join(slices.Concat([]string{user}, groups), "\x00")))
	path := filepath.Join(dir, hex.EncodeToString(sum[:8]))
	return path, writeKubeconfig(path, c.server, ca.pem, user, client)
}
