//go:build unix

package bench

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// row is a line of the table: one kind of work, measured once or more often.
type row struct {
	work string
	// compared names what is compared with.
	compared string
	// budget is the ratio that the design allows, 0 if it has none.
	budget float64

	// base are the times of what is compared with, took those of sluice,
	// in the order of the rounds.
	base, took, cpu []time.Duration
	peak            []int64 // bytes
	// requests are those of one more run, which was counted and not timed;
	// nil if there was none.
	requests map[string]int
	objects  int
}

func (r *row) add(base time.Duration, m measurement) {
	r.base = append(r.base, base)
	r.took = append(r.took, m.Wall)
	r.cpu = append(r.cpu, m.CPU)
	r.peak = append(r.peak, m.Peak)
}

// ratio is the median of the rounds' ratios: what is compared was measured
// side by side.
func (r *row) ratio() float64 {
	ratios := make([]float64, len(r.took))
	for i := range r.took {
		ratios[i] = r.took[i].Seconds() / r.base[i].Seconds()
	}
	return median(ratios)
}

// report gives the medians to the benchmark and the row to the table.
func (r *row) report(b *testing.B) {
	b.Helper()
	b.ReportMetric(0, "ns/op") // most of it was starting clusters
	b.ReportMetric(median(r.took).Seconds(), "sluice-s")
	b.ReportMetric(median(r.cpu).Seconds(), "cpu-s")
	b.ReportMetric(median(r.base).Seconds(), "raw-s")
	b.ReportMetric(r.ratio(), "ratio")
	b.ReportMetric(megabytes(median(r.peak)), "peak-MB")
	if r.requests != nil {
		b.ReportMetric(float64(total(r.requests))/float64(r.objects), "requests/object")
		for kind, n := range r.requests {
			b.ReportMetric(float64(n), kind+"-requests")
		}
	}
	results.add(r.line())
}

func (r *row) line() []string {
	budget, requests := "–", "–"
	if r.budget > 0 {
		budget = fmt.Sprintf("%.1f", r.budget)
	}
	if r.requests != nil {
		requests = fmt.Sprint(total(r.requests))
	}
	return []string{r.work, fmt.Sprintf("%.2f s %s", median(r.base).Seconds(), r.compared), fmt.Sprintf("%.2f s", median(r.took).Seconds()),
		fmt.Sprintf("%.2f", r.ratio()), budget,
		fmt.Sprintf("%.1f s", median(r.cpu).Seconds()), fmt.Sprintf("%.0f MB", megabytes(median(r.peak))), requests}
}

// results is the table that is printed when all benchmarks are done.
var results table

type table struct {
	mu    sync.Mutex
	lines [][]string
}

func (t *table) add(line []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line)
}

// print writes the table as Markdown, if there is anything in it.
func (t *table) print(w io.Writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == 0 {
		return
	}
	lines := slices.Concat([][]string{{"Work", "Compared with", "sluice", "Ratio", "Budget", "CPU", "Peak memory", "Requests"}}, t.lines)
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	fmt.Fprintf(w, "\n%s/%s, %d CPUs%s, medians\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), load())
	for n, line := range lines {
		for i, cell := range line {
			fmt.Fprintf(w, "| %s%s ", cell, strings.Repeat(" ", widths[i]-len([]rune(cell))))
		}
		fmt.Fprintln(w, "|")
		if n == 0 {
			for _, width := range widths {
				fmt.Fprintf(w, "| %s ", strings.Repeat("-", width))
			}
			fmt.Fprintln(w, "|")
		}
	}
}

// load says how busy the machine was for the last 15 minutes, where the system
// tells: above the number of CPUs, times say little.
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if fields := strings.Fields(string(data)); err == nil && len(fields) > 2 {
		return ", load average " + fields[2]
	}
	return ""
}

// median is the middle value, of an even number the upper one of the two.
func median[T int64 | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func megabytes(n int64) float64 { return float64(n) / 1e6 }
