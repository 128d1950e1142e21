//go:build unix

package main

import (
	"slices"
	"time"
)

// Report is what a comparison has found. As JSON it is the machine-readable
// form of the table.
type Report struct {
	// Date is the day of the measurement, UTC.
	Date string `json:"date"`
	// Versions are those of everything that was measured, one per entry,
	// name first: "sluice v1.2.3".
	Versions []string `json:"versions"`
	Machine  Machine  `json:"machine"`
	// Scale is by how much the shapes were shrunk; 1 is full size.
	Scale float64 `json:"scale"`
	// Rounds is how often everything was measured, if not more often; numbers are
	// medians.
	Rounds int `json:"rounds"`
	// Arguments are further ones of sluice run, if there were any.
	Arguments []string `json:"arguments,omitempty"`
	// Failed is why the comparison ended before all was measured; empty if
	// it did not.
	Failed string `json:"failed,omitempty"`
	// Missing says which clients were left out, and why.
	Missing []string `json:"missing,omitempty"`
	Start   Start    `json:"start"`
	Shapes  []Shape  `json:"shapes"`
}

// Machine is what the comparison ran on.
type Machine struct {
	System      string `json:"system"`
	CPU         string `json:"cpu,omitempty"`
	Cores       int    `json:"cores"`
	MemoryBytes int64  `json:"memoryBytes,omitempty"`
	// Busy is the share of the processor time that other processes took
	// in the second before a shape was measured: the largest of all. It is
	// negative where the system does not tell.
	Busy float64 `json:"busy"`
}

// Start is what it costs to start sluice when there is nothing to do.
type Start struct {
	Seconds     float64 `json:"seconds"`
	PeakBytes   int64   `json:"peakBytes"`
	BinaryBytes int64   `json:"binaryBytes"`
}

// Shape is what was found with one repository.
type Shape struct {
	Name    string `json:"name"`
	What    string `json:"what"`
	Objects int    `json:"objects"`
	// Times is how often it was measured; numbers are medians.
	Times int `json:"times"`
	// BuildSeconds is the time of the kustomize library alone for all
	// folders, one after the other.
	BuildSeconds float64       `json:"buildSeconds"`
	Measurements []Measurement `json:"measurements"`
}

// Measurement is what one client took in one situation.
type Measurement struct {
	Situation situation `json:"situation"`
	Client    string    `json:"client"`
	Seconds   float64   `json:"seconds"`
	// RatioRaw is the median of the rounds' ratios to the raw client in the
	// same situation; 0 if that was not measured.
	RatioRaw float64 `json:"ratioRaw"`
	// Requests are those of the last round, by verb.
	Requests counts `json:"requests"`
	// CPUSeconds and PeakBytes are those of sluice's process, else 0.
	CPUSeconds float64 `json:"cpuSeconds,omitempty"`
	PeakBytes  int64   `json:"peakBytes,omitempty"`
	// Gates is how long sluice's gates took to open in all rounds together,
	// nil where none was seen. It is measured in the runs whose requests are
	// counted, with a proxy on the way.
	Gates *Latency `json:"gates,omitempty"`
}

// find returns the measurement of a client in a situation.
func (s Shape) find(client string, in situation) (Measurement, bool) {
	i := slices.IndexFunc(s.Measurements, func(m Measurement) bool { return m.Client == client && m.Situation == in })
	if i < 0 {
		return Measurement{}, false
	}
	return s.Measurements[i], true
}

// samples are the rounds of a shape: what each client took, by situation.
type samples map[situation]map[string][]spent

func (s samples) add(in situation, client string, got spent) {
	if s[in] == nil {
		s[in] = map[string][]spent{}
	}
	s[in][client] = append(s[in][client], got)
}

// measurements are the medians, in the order of situations and then clients.
func (s samples) measurements(situations []situation, clients []string) []Measurement {
	var list []Measurement
	for _, in := range situations {
		base := s[in][raw{}.name()]
		for _, name := range clients {
			rounds := s[in][name]
			if len(rounds) == 0 {
				continue
			}
			m := Measurement{Situation: in, Client: name, Requests: rounds[len(rounds)-1].requests}
			var walls, cpus, ratios []float64
			var peaks []int64
			var gates []time.Duration
			for i, r := range rounds {
				gates = append(gates, r.gates...)
				walls, cpus, peaks = append(walls, r.wall.Seconds()), append(cpus, r.cpu.Seconds()), append(peaks, r.peak)
				if i < len(base) {
					ratios = append(ratios, r.wall.Seconds()/base[i].wall.Seconds())
				}
			}
			m.Gates = latency(gates)
			m.Seconds, m.CPUSeconds, m.PeakBytes = median(walls), median(cpus), median(peaks)
			if len(ratios) > 0 {
				m.RatioRaw = median(ratios)
			}
			list = append(list, m)
		}
	}
	return list
}

// median is the middle value, of an even number the upper one of the two.
func median[T int64 | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
