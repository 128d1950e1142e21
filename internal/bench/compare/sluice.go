//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluicerun/sluice/internal/bench"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// sluice is sluice run as a process of its own, on a checkout.
type sluice struct {
	program string
	measure string   // the command measure of this module
	dir     string   // for files, and as the home folder
	env     []string // beside what it needs
	args    []string // beside the repository and the entry folder
}

func (sluice) name() string { return "sluice" }

// counting is apart: sluice has many requests in flight, and a proxy would
// take the cores that it and the server need.
func (sluice) counting() counting { return apart }

func (s sluice) deploy(ctx context.Context, h *history, st state, c *kubetest.Cluster, p *counter) (spent, error) {
	if err := h.repository.At(st.commit); err != nil {
		return spent{}, err
	}
	kubeconfig := c.Kubeconfig()
	if p != nil {
		kubeconfig = p.kubeconfig
	}
	args := append([]string{"run", "--repo", h.repository.Dir, "--path", bench.Entry}, s.args...)
	return s.start(ctx, kubeconfig, args...)
}

// start runs sluice and measures it. An exit code other than 0 is an error.
func (s sluice) start(ctx context.Context, kubeconfig string, args ...string) (spent, error) {
	file := filepath.Join(s.dir, "measurement.json")
	cmd := exec.CommandContext(ctx, s.measure, append([]string{file, s.program}, args...)...)
	// Nothing of the CI job or of the person who runs this.
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "TMPDIR=" + s.dir, "KUBECONFIG=" + kubeconfig}, s.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return spent{}, fmt.Errorf("measure: %w\n%s", err, tail(out))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return spent{}, err
	}
	var m struct {
		Wall, CPU time.Duration
		Peak      int64
		Code      int
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return spent{}, fmt.Errorf("%s: %w", file, err)
	}
	if m.Code != 0 {
		return spent{}, fmt.Errorf("sluice %q: exit code %d\n%s", args, m.Code, tail(out))
	}
	return spent{wall: m.Wall, cpu: m.CPU, peak: m.Peak}, nil
}

// starts is how often the time from the start of sluice to its end is taken
// when there is nothing to do.
const starts = 20

// starting measures the start of sluice, and its size.
func (s sluice) starting(ctx context.Context) (Start, error) {
	// The file is in the system's cache from the first one on.
	if _, err := s.start(ctx, "", "version"); err != nil {
		return Start{}, err
	}
	var walls []float64
	var peaks []int64
	for range starts {
		got, err := s.start(ctx, "", "version")
		if err != nil {
			return Start{}, err
		}
		walls, peaks = append(walls, got.wall.Seconds()), append(peaks, got.peak)
	}
	info, err := os.Stat(s.program)
	if err != nil {
		return Start{}, err
	}
	return Start{Seconds: median(walls), PeakBytes: median(peaks), BinaryBytes: info.Size()}, nil
}

// version is what sluice version says, by line: itself, Go and the libraries.
func (s sluice) version(ctx context.Context) ([]string, error) {
	cmd := exec.CommandContext(ctx, s.program, "version")
	cmd.Env = s.env
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("sluice version: %w", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), nil
}

// build builds a command of this module as a release is built, so that it is
// what users get, and never a binary that somebody forgot to build again.
func build(ctx context.Context, dir, pkg string) (string, error) {
	program := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "github.com/sluicerun/sluice/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, tail(out))
	}
	return program, nil
}

// tail is the end of a log, for a failure.
func tail(log []byte) []byte {
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-30):], []byte("\n"))
}
