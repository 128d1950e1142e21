//go:build unix

package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMedians(t *testing.T) {
	s := samples{}
	for i, took := range []time.Duration{30, 10, 20} {
		s.add(install, "raw", spent{wall: time.Duration(i+1) * time.Second})
		s.add(install, "sluice", spent{wall: took * time.Second, cpu: took * time.Second, peak: int64(took), requests: counts{"get": i}})
	}
	s.add(unchanged, "sluice", spent{wall: time.Second})
	got := s.measurements([]situation{install, unchanged}, []string{"raw", "sluice"})
	want := []Measurement{
		{Situation: install, Client: "raw", Seconds: 2, RatioRaw: 1},
		// 30/1, 10/2, 20/3
		{Situation: install, Client: "sluice", Seconds: 20, RatioRaw: 20.0 / 3, CPUSeconds: 20, PeakBytes: 20, Requests: counts{"get": 2}},
		{Situation: unchanged, Client: "sluice", Seconds: 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// full is a report of full size.
func full(nothing Measurement) *Report {
	nothing.Situation, nothing.Client = unchanged, "sluice"
	return &Report{
		Date: "2026-01-02", Scale: 1, Rounds: 3, Versions: []string{"sluice v1", "Kubernetes v1.37.0"}, Missing: []string{"the kubectl loop, because"},
		Machine: Machine{System: "linux/amd64", CPU: "Some CPU", Cores: 2, MemoryBytes: 8e9, Busy: 0.031},
		Start:   Start{Seconds: 0.051, PeakBytes: 35e6, BinaryBytes: 52e6},
		Shapes: []Shape{{Name: "wide", What: "100 × 20 objects", Objects: 2000, BuildSeconds: 0.8, Measurements: []Measurement{
			{Situation: install, Client: "raw", Seconds: 8, RatioRaw: 1, Requests: counts{"apply": 2000}},
			{Situation: install, Client: "sluice", Seconds: 12, RatioRaw: 1.5, CPUSeconds: 5, PeakBytes: 110e6, Requests: counts{"apply": 2000, "list": 7}},
			nothing,
		}}},
	}
}

func TestBudgets(t *testing.T) {
	r := full(Measurement{Seconds: 4, PeakBytes: 251e6, Requests: counts{"list": 60}})
	var got []string
	for _, b := range r.budgets() {
		kept := "kept"
		if !b.kept {
			kept = "broken"
		}
		got = append(got, strings.Join([]string{b.work, b.compared, b.found, b.limit, kept}, "; "))
	}
	want := []string{
		"wide, first install; raw: 8.00 s; 12.0 s = 1.50 ×; 2.0 ×; kept",
		"wide, unchanged; raw's first install: 8.00 s; 4.00 s = 0.50 ×; 0.4 ×; broken",
		"wide, unchanged, all requests; –; 60; fewer than 60; broken",
		"wide, peak memory of all situations; –; 251 MB; 250 MB; broken",
		"`sluice version`; –; 51 ms; 50 ms; broken",
		"size of the stripped binary; –; 52 MB; 90 MB; kept",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	r.Shapes[0].Name = "big"
	r.Shapes[0].Measurements = append(r.Shapes[0].Measurements, Measurement{Situation: unchanged, Client: "sluice-cache", Seconds: 2, PeakBytes: 260e6})
	got = nil
	for _, b := range r.budgets()[:3] {
		got = append(got, fmt.Sprintf("%s; %s; %s; %s; %v", b.work, b.compared, b.found, b.limit, b.kept))
	}
	want = []string{
		"big, first install; kustomize's own build + 2 × raw: 16.8 s; 12.0 s = 0.71 ×; 1.0 ×; true",
		"big, unchanged, from a cache of builds; raw's first install: 8.00 s; 2.00 s = 0.25 ×; 0.4 ×; true",
		"big, peak memory of all situations; –; 260 MB; 250 MB; false",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	r.Shapes = []Shape{{Name: "layers", Measurements: []Measurement{{Situation: install, Client: "raw", Seconds: 1}, {Situation: unchanged, Client: "sluice"},
		{Situation: install, Client: "sluice", Gates: &Latency{Gates: 4, P50: 0.01, P99: 0.1004}}}}}
	if b := r.budgets()[0]; b.work != "layers, first install, gate latency p99 (4 gates)" || b.found != "100 ms" || b.limit != "100 ms" || b.kept {
		t.Errorf("%+v", b)
	}
	r.Scale = 0.5
	if got := r.budgets(); got != nil {
		t.Errorf("budgets at half the size: %v", got)
	}
}

func TestMarkdown(t *testing.T) {
	got := full(Measurement{Seconds: 2.5, RatioRaw: 0.5, CPUSeconds: 1, PeakBytes: 100e6, Requests: counts{"list": 7, "get": 1234}, Gates: &Latency{Gates: 19, P50: 0.003, P99: 0.012}}).markdown()
	for _, want := range []string{
		"2026-01-02, linux/amd64, Some CPU, 2 cores, 7 GiB of memory, at most 3 % busy with other work.\n",
		"\nsluice v1, Kubernetes v1.37.0.\n",
		"\nMedians of 3 rounds.\n",
		"\nNot measured: the kubectl loop, because.\n",
		"\n| **wide**: 100 × 20 objects | –             | kustomize's own build | 0.80 s |",
		"\n|                            | first install | raw                   | 8.00 s | 1.00  |        |             |                 | 2,000    | apply 2,000 ",
		"\n|                            |               | sluice                | 12.0 s | 1.50  | 5.00 s | 110 MB      |                 | 2,007    | list 7, apply 2,000 ",
		"\n|                            | unchanged     | sluice                | 2.50 s | 0.50  | 1.00 s | 100 MB      | 3 / 12 ms       | 1,241    | get 1,234, list 7 ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

func TestParseProcessorTime(t *testing.T) {
	got, err := parseProcessorTime("cpu  10 1 5 100 7 2 3 4 50 60")
	if want := (processorTime{idle: 107, all: 132}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v: guests are in the first two already", got, err, want)
	}
	for _, line := range []string{"", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3", "cpu 1 2 3 4 5 6 7 x"} {
		if _, err := parseProcessorTime(line); err == nil {
			t.Errorf("%q is taken for the processors' time", line)
		}
	}
}

// A shape that was measured more often than the rest says so.
func TestTimesOfAShape(t *testing.T) {
	s := Shape{Name: "chain", What: "20 × 6 objects", Times: 9}
	for rounds, want := range map[int]string{3: "**chain**: 20 × 6 objects; medians of 9", 9: "**chain**: 20 × 6 objects"} {
		if got := s.lines(rounds)[0][0]; got != want {
			t.Errorf("%d rounds: %q, want %q", rounds, got, want)
		}
	}
}
