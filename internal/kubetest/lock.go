//go:build unix

package kubetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// errLocked says that another process holds the lock.
var errLocked = errors.New("locked by another process")

// fileLock is an exclusive lock on a file. The kernel frees it when the holder ends, however it ends, so it is never stale.
// The file itself is never removed: a waiter may already have it open.
type fileLock struct{ file *os.File }

// tryLock takes the lock on path and notes holder in it, or returns errLocked at once.
func tryLock(path, holder string) (*fileLock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	if err := flock(file, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("lock %q: %w", path, err)
	}
	l := &fileLock{file: file}
	if err := l.note(holder); err != nil {
		l.unlock()
		return nil, err
	}
	return l, nil
}

// lock takes the lock on path. If another process holds it, waiting is called once with what that process noted, and lock
// waits until the lock is free or ctx ends.
func lock(ctx context.Context, path, holder string, waiting func(holder string)) (*fileLock, error) {
	l, err := tryLock(path, holder)
	if !errors.Is(err, errLocked) {
		return l, err
	}
	waiting(lockHolder(path))

	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	locked := make(chan error, 1)
	go func() { locked <- flock(file, syscall.LOCK_EX) }()
	select {
	case err := <-locked:
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("lock %q: %w", path, err)
		}
	case <-ctx.Done():
		// The system call cannot be called off; give the lock back once it arrives.
		go func() {
			<-locked
			file.Close()
		}()
		return nil, fmt.Errorf("wait for the lock %q, held by %s: %w", path, lockHolder(path), context.Cause(ctx))
	}
	l = &fileLock{file: file}
	if err := l.note(holder); err != nil {
		l.unlock()
		return nil, err
	}
	return l, nil
}

// lockHolder is what the holder of the lock noted, or "another process" if it noted nothing yet.
func lockHolder(path string) string {
	data, err := os.ReadFile(path)
	if text := strings.TrimSpace(string(data)); err == nil && text != "" {
		return text
	}
	return "another process"
}

func (l *fileLock) note(holder string) error {
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("write the lock: %w", err)
	}
	if _, err := l.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("write the lock: %w", err)
	}
	if _, err := fmt.Fprintln(l.file, holder); err != nil {
		return fmt.Errorf("write the lock: %w", err)
	}
	return nil
}

// unlock frees the lock; closing the only descriptor does it.
func (l *fileLock) unlock() { l.file.Close() }

func flock(file *os.File, how int) error {
	for {
		err := syscall.Flock(int(file.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
