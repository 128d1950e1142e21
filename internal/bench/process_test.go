//go:build unix

package bench

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/kubetest"
)

// binaryFlag measures another binary, to compare releases or to profile:
//
//	go test -run '^$' -bench . -benchtime 1x ./internal/bench -sluice /tmp/sluice
var binaryFlag = flag.String("sluice", "", "the sluice binary to measure; default: one built from this tree as a release is")

// TestMain lets the test binary be the process that starts and measures
// another one, and prints the table at the end.
func TestMain(m *testing.M) {
	if file := os.Getenv(measureEnv); file != "" {
		os.Exit(measure(file, os.Args[1:]))
	}
	code := m.Run()
	if binary.dir != "" {
		if err := os.RemoveAll(binary.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	results.print(os.Stdout)
	os.Exit(code)
}

// binary is the sluice that is measured, the same for all benchmarks.
var binary struct {
	once sync.Once
	dir  string // if it was built here
	path string
	err  error
}

// sluice returns the path of the binary to measure. Without -sluice it is
// built with the flags of the Makefile's target "build", so that it is what
// users get and never one that somebody forgot to build again.
func sluice(tb testing.TB) string {
	tb.Helper()
	binary.once.Do(func() {
		if *binaryFlag != "" {
			binary.path, binary.err = filepath.Abs(*binaryFlag)
			return
		}
		if binary.dir, binary.err = os.MkdirTemp("", "sluice-bench-"); binary.err != nil {
			return
		}
		binary.path = filepath.Join(binary.dir, "sluice")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary.path, "github.com/sluicerun/sluice/cmd/sluice")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			binary.err = fmt.Errorf("building sluice: %w\n%s", err, out)
		}
	})
	if binary.err != nil {
		tb.Fatal(binary.err)
	}
	return binary.path
}

// measureEnv names the file for the measurement, and makes the test binary
// the process that measures.
const measureEnv = "SLUICE_BENCH_MEASURE"

// measurement is what the operating system says of a process that has ended.
type measurement struct {
	// Wall is from its start to its end, CPU what it computed in that time.
	Wall, CPU time.Duration
	// Peak is the largest resident set, in bytes.
	Peak int64
	// Code is its exit code, -1 after a signal.
	Code int
}

// measure runs a command and writes what it took.
//
// It is a process of its own, because on Linux a child's peak begins with that
// of the process which forks it: the benchmark itself, which holds thousands
// of objects, would show up as sluice's memory.
func measure(file string, command []string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "measure:", err)
		return 1
	}
	if err := os.Unsetenv(measureEnv); err != nil {
		return fail(err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	began := time.Now()
	err := cmd.Run()
	wall := time.Since(began)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fail(err)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	m := measurement{Wall: wall, CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
		Peak: usage.Maxrss, Code: cmd.ProcessState.ExitCode()}
	if runtime.GOOS != "darwin" {
		m.Peak *= 1024 // kilobytes everywhere but there
	}
	data, err := json.Marshal(m)
	if err != nil {
		return fail(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return fail(err)
	}
	return 0
}

// start runs sluice with these arguments in a process of its own and measures
// it. An exit code other than 0 fails the benchmark.
func start(tb testing.TB, kubeconfig string, args ...string) measurement {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	file := filepath.Join(dir, "measurement.json")
	cmd := exec.CommandContext(tb.Context(), self, append([]string{sluice(tb)}, args...)...)
	// Nothing of the CI job or of the person who runs this.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "KUBECONFIG=" + kubeconfig, measureEnv + "=" + file}
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("%v\n%s", err, tail(string(out)))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	var m measurement
	if err := json.Unmarshal(data, &m); err != nil {
		tb.Fatal(err)
	}
	if m.Code != 0 {
		tb.Fatalf("sluice %q: exit code %d\n%s", args, m.Code, tail(string(out)))
	}
	return m
}

// run is sluice run on a generated repository.
func run(tb testing.TB, r *Repository, kubeconfig string) measurement {
	tb.Helper()
	return start(tb, kubeconfig, "run", "--repo", r.Dir, "--path", Entry)
}

// startCluster starts a cluster of its own, which ends with the benchmark or
// when stop is called.
func startCluster(tb testing.TB) (c *kubetest.Cluster, stop func()) {
	tb.Helper()
	c, err := kubetest.Start(tb.Context(), kubetest.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := c.Stop(); err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(stop)
	return c, stop
}
