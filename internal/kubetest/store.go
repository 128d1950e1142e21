//go:build unix

package kubetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// progressInterval is how often a build says that it is still at it.
const progressInterval = 10 * time.Second

// store keeps finished programs in one folder. A program has its final name only once it is complete and on disk: it is built
// under another name, synced and renamed. So an interrupted build, even by a power cut, leaves nothing that looks finished.
type store struct {
	dir      string
	build    func(ctx context.Context, c component, output string, log io.Writer) error
	progress io.Writer
}

// ensure returns the paths of the wanted programs by name and builds those that are not there.
func (s store) ensure(ctx context.Context, wanted []component) (map[string]string, error) {
	if paths, missing := s.look(wanted); len(missing) == 0 {
		return paths, nil
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	holder := fmt.Sprintf("process %d (%s)", os.Getpid(), filepath.Base(os.Args[0]))
	l, err := lock(ctx, filepath.Join(s.dir, "lock"), holder, func(holder string) {
		fmt.Fprintf(s.progress, "kubetest: waiting for %s, which is building the programs of the test cluster\n", holder)
	})
	if err != nil {
		return nil, err
	}
	defer l.unlock()

	// Whoever held the lock may have built them meanwhile.
	paths, missing := s.look(wanted)
	if len(missing) == 0 {
		return paths, nil
	}
	if err := s.sweep(); err != nil {
		return nil, err
	}
	fmt.Fprintf(s.progress, "kubetest: building %s into %s; this is done once and takes some minutes\n", strings.Join(names(missing), ", "), s.dir)
	start := time.Now()
	for i, c := range missing {
		if err := s.buildOne(ctx, c, i+1, len(missing)); err != nil {
			return nil, fmt.Errorf("build %s for the test cluster: %w", c.name, err)
		}
	}
	fmt.Fprintf(s.progress, "kubetest: all built in %.0f s\n", time.Since(start).Seconds())
	paths, missing = s.look(wanted)
	if len(missing) > 0 {
		return nil, fmt.Errorf("%s vanished from %q while building: is something cleaning the cache folder?", strings.Join(names(missing), ", "), s.dir)
	}
	return paths, nil
}

func (s store) look(wanted []component) (paths map[string]string, missing []component) {
	paths = map[string]string{}
	for _, c := range wanted {
		if path := filepath.Join(s.dir, c.name); isProgram(path) {
			paths[c.name] = path
		} else {
			missing = append(missing, c)
		}
	}
	return paths, missing
}

// unfinishedPrefix starts the names of programs that are being built.
const unfinishedPrefix = ".unfinished-"

// sweep removes what interrupted builds left. Only the holder of the lock may call it.
func (s store) sweep() error {
	left, err := filepath.Glob(filepath.Join(s.dir, unfinishedPrefix+"*"))
	if err != nil {
		return fmt.Errorf("look for unfinished programs: %w", err)
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove an unfinished program: %w", err)
		}
	}
	return nil
}

func (s store) buildOne(ctx context.Context, c component, number, total int) error {
	start := time.Now()
	log := &packageCounter{}
	say := func(what string) {
		fmt.Fprintf(s.progress, "kubetest: %s %s (%d of %d): %d packages compiled, %.0f s\n",
			what, c.name, number, total, log.count.Load(), time.Since(start).Seconds())
	}
	done := make(chan struct{})
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		tick := time.NewTicker(progressInterval)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				say("building")
			}
		}
	}()
	// The process id keeps a go command that outlived its killed parent from writing into our file.
	unfinished := filepath.Join(s.dir, fmt.Sprintf("%s%s-%d", unfinishedPrefix, c.name, os.Getpid()))
	err := s.build(ctx, c, unfinished, log)
	close(done)
	<-reported
	if err != nil {
		// The error of the build is what matters; a leftover is removed by the next build.
		_ = os.Remove(unfinished)
		return err
	}
	if err := finish(unfinished, filepath.Join(s.dir, c.name)); err != nil {
		return err
	}
	say("built")
	return nil
}

// finish brings a program to disk and then, and only then, gives it its final name.
func finish(unfinished, final string) error {
	if err := syncPath(unfinished); err != nil {
		return err
	}
	if err := os.Chmod(unfinished, 0o755); err != nil {
		return err
	}
	if err := os.Rename(unfinished, final); err != nil {
		return err
	}
	return syncPath(filepath.Dir(final))
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return fmt.Errorf("sync %q: %w", path, err)
	}
	return f.Close()
}

// packageCounter counts lines: `go build -v` prints one for each package that it compiles.
type packageCounter struct{ count atomic.Int64 }

func (p *packageCounter) Write(data []byte) (int, error) {
	p.count.Add(int64(bytes.Count(data, []byte("\n"))))
	return len(data), nil
}
