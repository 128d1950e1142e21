//go:build unix

package main

import (
	"fmt"
	"strconv"
	"strings"
)

// markdown is the report for people: on what it was measured, the budgets, and
// one table of everything.
func (r *Report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s.\n\n", r.Date, r.Machine)
	fmt.Fprintf(&b, "%s.\n\n", strings.Join(r.Versions, ", "))
	if r.Scale != 1 {
		fmt.Fprintf(&b, "Shrunk to %g of full size, so only good to see whether it works.\n\n", r.Scale)
	}
	if r.Rounds > 1 {
		fmt.Fprintf(&b, "Medians of %d rounds.\n\n", r.Rounds)
	}
	if len(r.Arguments) > 0 {
		fmt.Fprintf(&b, "Every `sluice run` with `%s`.\n\n", strings.Join(r.Arguments, " "))
	}
	if r.Failed != "" {
		fmt.Fprintf(&b, "Ended before all was measured: %s.\n\n", r.Failed)
	}
	for _, missing := range r.Missing {
		fmt.Fprintf(&b, "Not measured: %s.\n\n", missing)
	}
	if budgets := r.budgets(); len(budgets) > 0 {
		lines := [][]string{{"Budget", "Compared with", "Found", "Limit", "Kept"}}
		for _, one := range budgets {
			kept := "**no**"
			if one.kept {
				kept = "yes"
			}
			lines = append(lines, []string{one.work, one.compared, one.found, one.limit, kept})
		}
		b.WriteString(table(lines) + "\n")
	}
	lines := [][]string{{"Shape", "Situation", "Client", "Time", "× raw", "CPU", "Peak memory", "Gates p50 / p99", "Requests", "By verb"}}
	for _, s := range r.Shapes {
		lines = append(lines, s.lines(r.Rounds)...)
	}
	b.WriteString(table(lines))
	return b.String()
}

// lines of the table. What is the same as in the line before is left empty, so
// that the groups are seen; kustomize's own time is a line of its own. rounds is
// how often everything was measured.
func (s Shape) lines(rounds int) [][]string {
	what := s.What
	if s.Times > rounds {
		what += fmt.Sprintf("; medians of %d", s.Times)
	}
	lines := [][]string{{"**" + s.Name + "**: " + what, "–", "kustomize's own build", seconds(s.BuildSeconds), "", "", "", "", "", ""}}
	var before situation
	for _, m := range s.Measurements {
		in := ""
		if m.Situation != before {
			in, before = string(m.Situation), m.Situation
		}
		cpu, peak, requests := "", "", ""
		if m.CPUSeconds > 0 {
			cpu = seconds(m.CPUSeconds)
		}
		if m.PeakBytes > 0 {
			peak = megabytes(m.PeakBytes)
		}
		if m.Requests != nil {
			requests = thousands(m.Requests.total())
		}
		lines = append(lines, []string{"", in, m.Client, seconds(m.Seconds), fmt.Sprintf("%.2f", m.RatioRaw), cpu, peak, m.Gates.String(), requests, m.Requests.String()})
	}
	return lines
}

// table is Markdown whose columns stand below each other. The first line is
// the head.
func table(lines [][]string) string {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	for n, line := range lines {
		for i, cell := range line {
			fmt.Fprintf(&b, "| %s%s ", cell, strings.Repeat(" ", widths[i]-len([]rune(cell))))
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, width := range widths {
				b.WriteString("| " + strings.Repeat("-", width) + " ")
			}
			b.WriteString("|\n")
		}
	}
	return b.String()
}

func (m Machine) String() string {
	parts := []string{m.System}
	if m.CPU != "" {
		parts = append(parts, m.CPU)
	}
	parts = append(parts, fmt.Sprintf("%d cores", m.Cores))
	if m.MemoryBytes > 0 {
		parts = append(parts, fmt.Sprintf("%d GiB of memory", (m.MemoryBytes+1<<29)>>30))
	}
	if m.Busy >= 0 {
		parts = append(parts, fmt.Sprintf("at most %.0f %% busy with other work", m.Busy*100))
	}
	return strings.Join(parts, ", ")
}

func seconds(s float64) string {
	if s >= 10 {
		return fmt.Sprintf("%.1f s", s)
	}
	return fmt.Sprintf("%.2f s", s)
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

// thousands writes a number as people do: 12,345.
func thousands(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
