//go:build unix

package kubetest

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// writeProgram is a builder that writes a program without compiling anything.
func writeProgram(_ context.Context, c component, output string, _ io.Writer) error {
	return os.WriteFile(output, []byte(c.name), 0o755)
}

// signalWriter passes on what is written, line by line.
type signalWriter chan string

func (w signalWriter) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

func TestTwoBuildersAtOnce(t *testing.T) {
	dir := t.TempDir()
	var builds atomic.Int32
	building, finish := make(chan struct{}), make(chan struct{})
	slow := func(ctx context.Context, c component, output string, log io.Writer) error {
		if builds.Add(1) == 1 {
			close(building)
			<-finish
		}
		return writeProgram(ctx, c, output, log)
	}
	var wait sync.WaitGroup
	results := make([]map[string]string, 2)
	wait.Go(func() {
		var err error
		if results[0], err = (store{dir: dir, build: slow, progress: io.Discard}).ensure(t.Context(), components); err != nil {
			t.Error(err)
		}
	})
	<-building
	said := make(signalWriter, 100)
	wait.Go(func() {
		var err error
		if results[1], err = (store{dir: dir, build: slow, progress: said}).ensure(t.Context(), components); err != nil {
			t.Error(err)
		}
	})
	// The second says for whom it waits, and that is us.
	if line := <-said; !strings.Contains(line, "waiting for process ") || !strings.Contains(line, filepath.Base(os.Args[0])) {
		t.Errorf("the second builder says %q", line)
	}
	close(finish)
	wait.Wait()
	if n := int(builds.Load()); n != len(components) {
		t.Errorf("%d builds, want %d: the second builder must use what the first has built", n, len(components))
	}
	if !maps.Equal(results[0], results[1]) || len(results[0]) != len(components) {
		t.Errorf("the builders disagree: %v and %v", results[0], results[1])
	}
}

func TestWaitingBuilderCanBeCalledOff(t *testing.T) {
	dir := t.TempDir()
	l, err := tryLock(filepath.Join(dir, "lock"), "process 1 (other)")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	called := errors.New("called off")
	said := make(signalWriter, 1)
	go func() {
		<-said
		cancel(called)
	}()
	if _, err := (store{dir: dir, build: writeProgram, progress: said}).ensure(ctx, components); !errors.Is(err, called) {
		t.Errorf("got %v, want %v", err, called)
	}
	l.unlock()
	// The lock that came too late is given back.
	if _, err := (store{dir: dir, build: writeProgram, progress: io.Discard}).ensure(t.Context(), components); err != nil {
		t.Error(err)
	}
}

func TestHalfBuiltIsNeverUsed(t *testing.T) {
	for name, half := range map[string]func(ctx context.Context, c component, output string, log io.Writer) error{
		"build fails": func(_ context.Context, _ component, output string, _ io.Writer) error {
			return errors.Join(os.WriteFile(output, []byte("half"), 0o755), errors.New("no space left"))
		},
		"builder dies": func(_ context.Context, _ component, output string, _ io.Writer) error {
			if err := os.WriteFile(output, []byte("half"), 0o755); err != nil {
				return err
			}
			runtime.Goexit() // as a killed process, it does nothing more
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			done := make(chan struct{})
			go func() {
				defer close(done)
				if _, err := (store{dir: dir, build: half, progress: io.Discard}).ensure(t.Context(), components); err == nil {
					t.Error("a failed build succeeded")
				}
			}()
			<-done
			if paths, _ := (store{dir: dir}).look(components); len(paths) > 0 {
				t.Errorf("half-built programs pass for whole ones: %v", paths)
			}
			paths, err := (store{dir: dir, build: writeProgram, progress: io.Discard}).ensure(t.Context(), components)
			if err != nil {
				t.Fatal(err)
			}
			for name, path := range paths {
				if data, err := os.ReadFile(path); err != nil || string(data) != name {
					t.Errorf("%s holds %q, %v", path, data, err)
				}
			}
			left, err := filepath.Glob(filepath.Join(dir, unfinishedPrefix+"*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
		})
	}
}

func TestOnlyMissingIsBuilt(t *testing.T) {
	dir := t.TempDir()
	s := store{dir: dir, build: writeProgram, progress: io.Discard}
	if _, err := s.ensure(t.Context(), components[:2]); err != nil {
		t.Fatal(err)
	}
	var built []string
	s.build = func(ctx context.Context, c component, output string, log io.Writer) error {
		built = append(built, c.name)
		return writeProgram(ctx, c, output, log)
	}
	if _, err := s.ensure(t.Context(), components); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(built, names(components[2:])) {
		t.Errorf("built %v, want %v", built, names(components[2:]))
	}
}

func TestAssets(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "kwok"), nil, 0o644); err != nil { // not a program
		t.Fatal(err)
	}
	found, missing, err := fromAssets(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"etcd": filepath.Join(dir, "etcd"), "kube-apiserver": filepath.Join(dir, "kube-apiserver")}
	if !maps.Equal(found, want) || !slices.Equal(names(missing), []string{"kube-controller-manager", "kube-scheduler", "kwok"}) {
		t.Errorf("found %v, missing %v", found, names(missing))
	}
	if _, _, err := fromAssets(filepath.Join(dir, "nowhere")); err == nil || !strings.Contains(err.Error(), "KUBEBUILDER_ASSETS") {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func TestKeyDependsOnEverything(t *testing.T) {
	base := buildSpec{ldflags: "-s", goVersion: "go1.26.8", sources: []byte("module a")}
	seen := map[string]bool{base.key(): true}
	for _, change := range []func(*buildSpec){
		func(s *buildSpec) { s.ldflags = "-w" },
		func(s *buildSpec) { s.goVersion = "go1.26.9" },
		func(s *buildSpec) { s.sources = []byte("module b") },
	} {
		s := base
		change(&s)
		if seen[s.key()] {
			t.Errorf("%+v has the key of another build", s)
		}
		seen[s.key()] = true
	}
}

func TestVersionsComeFromTheNestedModule(t *testing.T) {
	module, err := locateModule()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range components {
		if !strings.Contains(string(data), "\t"+c.pkg+"\n") {
			t.Errorf("%s/go.mod has no tool directive for %s", nestedDir, c.pkg)
		}
	}
	version, err := requiredVersion(data, "k8s.io/kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	// Kubernetes v1.x.y is made of libraries v0.x.y; a replace line that was forgotten in an update would mix two releases.
	libraries := "v0." + strings.TrimPrefix(version, "v1.")
	for line := range strings.Lines(string(data)) {
		if from, to, ok := strings.Cut(strings.TrimSpace(line), " => "); ok && to != from+" "+libraries {
			t.Errorf("replace line %q: want version %s", strings.TrimSpace(line), libraries)
		}
	}
}
