//go:build unix

package kubetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// ErrRunning is returned by Up for a folder whose cluster runs already.
var ErrRunning = errors.New("a test cluster already runs in this folder")

// Up starts a cluster that outlives this process, see Options.Detach. If the folder's cluster runs already, it returns ErrRunning.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	o.Detach = true
	if o.Dir != "" {
		if _, running, err := supervisorOf(o.Dir); err != nil {
			return nil, fmt.Errorf("start a test cluster: %w", err)
		} else if running {
			return nil, fmt.Errorf("%w: %q", ErrRunning, o.Dir)
		}
	}
	return Start(ctx, o)
}

// Down ends the cluster that Up started in dir, waits until its processes and files are gone, and tells whether there was one.
func Down(ctx context.Context, dir string) (stopped bool, err error) {
	pid, running, err := supervisorOf(dir)
	if err != nil || !running {
		return false, err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return false, fmt.Errorf("stop the supervisor, process %d: %w", pid, err)
	}
	// The supervisor holds the lock as long as it lives, so having it means that all is over.
	l, err := lock(ctx, layout{dir}.lock(), "kubetest down", func(string) {})
	switch {
	case errors.Is(err, os.ErrNotExist):
		return true, nil // the folder went before we looked
	case err != nil:
		return false, fmt.Errorf("wait for the supervisor, process %d, to end: %w", pid, err)
	}
	defer l.unlock()
	return true, clean(layout{dir}, false)
}

// supervisorOf tells whether a supervisor holds the folder's lock, and which process it is.
func supervisorOf(dir string) (pid int, running bool, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return 0, false, fmt.Errorf("find the cluster's folder: %w", err)
	}
	path := layout{dir}.lock()
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	l, err := tryLock(path, "")
	switch {
	case err == nil:
		l.unlock()
		return 0, false, nil
	case !errors.Is(err, errLocked):
		return 0, false, err
	}
	pid, err = strconv.Atoi(lockHolder(path))
	if err != nil {
		return 0, false, fmt.Errorf("%q is locked, but not by a supervisor: is %q really the folder of a test cluster?", path, dir)
	}
	return pid, true, nil
}
