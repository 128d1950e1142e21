//go:build unix

package main

import "fmt"

// budget is a limit that the design sets, and what was found.
type budget struct {
	work, compared, found, limit string
	kept                         bool
}

// noOpRequests is how many requests a run may send in all if nothing of
// 2,000 objects has changed.
const noOpRequests = 60

// budgets are those which can be told from the report. They are for full size,
// so there are none for another scale.
func (r *Report) budgets() []budget {
	if r.Scale != 1 {
		return nil
	}
	var list []budget
	ratio := func(work, compared string, got, base, limit float64) {
		list = append(list, budget{work, fmt.Sprintf("%s: %s", compared, seconds(base)),
			fmt.Sprintf("%s = %.2f ×", seconds(got), got/base), fmt.Sprintf("%.1f ×", limit), got <= limit*base})
	}
	memory := func(s Shape, limit int64) {
		var peak int64
		for _, m := range s.Measurements {
			if m.Client == (sluice{}).name() || m.Client == (cached{}).name() {
				peak = max(peak, m.PeakBytes)
			}
		}
		list = append(list, budget{s.Name + ", peak memory of all situations", "–", megabytes(peak), megabytes(limit), peak <= limit})
	}
	gates := func(s Shape, l *Latency) {
		if l == nil {
			return
		}
		list = append(list, budget{fmt.Sprintf("%s, first install, gate latency p99 (%d gates)", s.Name, l.Gates), "–",
			fmt.Sprintf("%.0f ms", l.P99*1000), fmt.Sprintf("%d ms", gateLimit.Milliseconds()), l.P99 <= gateLimit.Seconds()})
	}
	for _, s := range r.Shapes {
		base, ok := s.find(raw{}.name(), install)
		first, ok2 := s.find(sluice{}.name(), install)
		nothing, ok3 := s.find(sluice{}.name(), unchanged)
		if !ok || !ok2 || !ok3 {
			continue
		}
		switch s.Name {
		case "chain":
			ratio("chain, first install", "raw, with the roll-outs", first.Seconds, base.Seconds, 1.2)
			gates(s, first.Gates)
		case "layers":
			gates(s, first.Gates)
		case "wide":
			ratio("wide, first install", "raw", first.Seconds, base.Seconds, 2)
			ratio("wide, unchanged", "raw's first install", nothing.Seconds, base.Seconds, 0.4)
			n := nothing.Requests.total()
			list = append(list, budget{"wide, unchanged, all requests", "–", thousands(n), fmt.Sprintf("fewer than %d", noOpRequests), n < noOpRequests})
			memory(s, 250e6)
		case "big":
			ratio("big, first install", "kustomize's own build + 2 × raw", first.Seconds, s.BuildSeconds+2*base.Seconds, 1)
			if warm, ok := s.find(cached{}.name(), unchanged); ok {
				ratio("big, unchanged, from a cache of builds", "raw's first install", warm.Seconds, base.Seconds, 0.4)
			} else {
				ratio("big, unchanged, although nothing is cached", "raw's first install", nothing.Seconds, base.Seconds, 0.4)
			}
			memory(s, 250e6)
		case "huge":
			memory(s, 1500e6)
		}
	}
	return append(list,
		budget{"`sluice version`", "–", fmt.Sprintf("%.0f ms", r.Start.Seconds*1000), "50 ms", r.Start.Seconds <= 0.050},
		budget{"size of the stripped binary", "–", megabytes(r.Start.BinaryBytes), "90 MB", r.Start.BinaryBytes <= 90e6})
}
