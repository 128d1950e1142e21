//go:build unix

package kubetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// A cluster is held by a supervisor: the same program, started once more with superviseEnv set. The owner writes a
// supervisorConfig to the supervisor's standard input and keeps that pipe open. The kernel closes it when the owner ends, even
// by SIGKILL, and the supervisor then kills the components and removes the folder. The owner reads one supervisorReport from
// the supervisor's standard output. After that it may send commands, one in a line, each of which is answered with another report.
const superviseEnv = "SLUICE_KUBETEST_SUPERVISE"

// supervisorConfig is what a supervisor needs to know.
type supervisorConfig struct {
	Dir      string            `json:"dir"`
	Binaries map[string]string `json:"binaries"`
	Nodes    int               `json:"nodes"`
	Detach   bool              `json:"detach"` // outlive the owner
	Keep     bool              `json:"keep"`   // leave the folder behind, for its logs
}

// supervisorReport says that the cluster is ready, or a command carried out, or why not.
type supervisorReport struct {
	Error  string `json:"error,omitempty"`
	Server string `json:"server,omitempty"` // URL of the API server
}

// init turns this process into a supervisor if it was started as one. It has to happen here, before main or TestMain: the
// program may be any test binary, and package initialisation runs on the main thread (see childAttr).
func init() {
	if os.Getenv(superviseEnv) == "" {
		return
	}
	os.Unsetenv(superviseEnv)
	if err := supervise(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kubetest supervisor:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Reasons for which a supervisor ends its cluster.
var (
	errOwnerEnded = errors.New("the process that started the cluster ended")
	errSignalled  = errors.New("the supervisor was told to stop")
)

// maxAttempts bounds how often a start is repeated because another process took a port.
const maxAttempts = 5

// supervise starts a cluster, reports, and holds the cluster until its owner ends or a signal comes. It returns an error if the
// cluster did not start or a component died.
func supervise(in io.Reader, out io.WriteCloser) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		cancel(errSignalled)
	}()

	reader := json.NewDecoder(in)
	var config supervisorConfig
	if err := reader.Decode(&config); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	commands := make(chan command)
	go func() {
		for {
			var c command
			// It fails when the last descriptor of the other end is closed.
			if err := reader.Decode(&c); err != nil {
				break
			}
			select {
			case commands <- c:
			case <-ctx.Done():
			}
		}
		if !config.Detach {
			cancel(errOwnerEnded)
		}
	}()

	l := layout{config.Dir}
	lock, err := tryLock(l.lock(), fmt.Sprint(os.Getpid()))
	if err != nil {
		err = fmt.Errorf("take %q: %w", l.lock(), err)
		return errors.Join(err, report(out, supervisorReport{Error: err.Error()}))
	}
	defer lock.unlock()

	cluster, err := start(ctx, l, config)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return errors.Join(err, report(out, supervisorReport{Error: err.Error()}), clean(l, config.Keep))
	}
	err = report(out, supervisorReport{Server: cluster.server})
	if config.Detach {
		// Whoever reads it to its end must not wait for ours.
		err = errors.Join(err, out.Close())
	}
	for err == nil {
		select {
		case <-ctx.Done():
			cluster.kill()
			return clean(l, config.Keep)
		case dead := <-cluster.died:
			err := fmt.Errorf("%s ended by itself: %w\n%s", dead.name, dead.err, logTail(l.log(dead.name), tailLines))
			cluster.kill()
			// The logs say why, so they stay.
			return errors.Join(err, clean(l, true))
		case c := <-commands:
			// Here, on the main thread, since it may start a component.
			r := supervisorReport{Server: cluster.server}
			if failed := cluster.obey(ctx, config, c); failed != nil {
				r = supervisorReport{Error: failed.Error()}
			}
			err = report(out, r)
		}
	}
	cluster.kill()
	return errors.Join(err, clean(l, config.Keep))
}

// start starts the cluster, again with other ports if one was taken by another process in between.
func start(ctx context.Context, l layout, config supervisorConfig) (*running, error) {
	for attempt := 1; ; attempt++ {
		cluster, err := startOnce(ctx, l, config)
		if err == nil || attempt == maxAttempts || !errors.Is(err, errPortTaken) {
			return cluster, err
		}
		fmt.Fprintf(os.Stderr, "start %d of %d: %v\n", attempt, maxAttempts, err)
	}
}

func report(out io.Writer, r supervisorReport) error {
	if err := json.NewEncoder(out).Encode(r); err != nil {
		return fmt.Errorf("report to the owner: %w", err)
	}
	return nil
}

// clean removes what a cluster wrote, and the folder if nothing else is in it. It names each file because the folder may be the
// user's own. With keep, the logs stay.
func clean(l layout, keep bool) error {
	paths := []string{l.data(), l.pki(""), l.kubeconfig(), l.stages(), filepath.Join(l.dir, "users")}
	if !keep {
		paths = append(paths, filepath.Join(l.dir, "logs"), l.lock())
	}
	var errs []error
	for _, path := range paths {
		errs = append(errs, os.RemoveAll(path))
	}
	if !keep {
		if err := os.Remove(l.dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
