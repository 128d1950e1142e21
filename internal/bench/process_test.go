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
	"sync"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/kubetest"
)

// sluiceFlag measures another binary, to compare releases or to profile:
//
//	go test -run '^$' -bench . -benchtime 1x ./internal/bench -sluice /tmp/sluice
var sluiceFlag = flag.String("sluice", "", "the sluice binary to measure; default: one built from this tree as a release is")

// TestMain prints the table when all benchmarks are done.
func TestMain(m *testing.M) {
	code := m.Run()
	if err := programs.remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	results.print(os.Stdout)
	os.Exit(code)
}

// programs are what the benchmarks start, built once for all of them.
var programs struct {
	built
	once sync.Once
	err  error
}

type built struct {
	dir             string
	sluice, measure string
}

// build builds both with the flags of the Makefile's target "build". So sluice
// is what users get, and never a binary that somebody forgot to build again.
func (p *built) build() (err error) {
	if p.dir, err = os.MkdirTemp("", "sluice-bench-"); err != nil {
		return err
	}
	p.sluice, p.measure = filepath.Join(p.dir, "sluice"), filepath.Join(p.dir, "measure")
	err = p.compile(p.measure, "internal/bench/measure")
	if *sluiceFlag == "" {
		return errors.Join(err, p.compile(p.sluice, "cmd/sluice"))
	}
	p.sluice = *sluiceFlag
	return err
}

func (p *built) compile(file, pkg string) error {
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "github.com/sluicerun/sluice/"+pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return nil
}

func (p *built) remove() error {
	if p.dir == "" {
		return nil
	}
	return os.RemoveAll(p.dir)
}

// prepare returns the programs and builds them if nobody has asked before.
func prepare(tb testing.TB) built {
	tb.Helper()
	programs.once.Do(func() { programs.err = programs.build() })
	if programs.err != nil {
		tb.Fatal(programs.err)
	}
	return programs.built
}

// measurement is what the command measure writes.
type measurement struct {
	Wall, CPU time.Duration
	Peak      int64 // bytes
	Code      int
}

// start runs sluice with these arguments in a process of its own and measures
// it. An exit code other than 0 fails the benchmark.
func start(tb testing.TB, kubeconfig string, args ...string) measurement {
	tb.Helper()
	p := prepare(tb)
	dir := tb.TempDir()
	file := filepath.Join(dir, "measurement.json")
	cmd := exec.CommandContext(tb.Context(), p.measure, append([]string{file, p.sluice}, args...)...)
	// Nothing of the CI job or of the person who runs this.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "KUBECONFIG=" + kubeconfig}
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
