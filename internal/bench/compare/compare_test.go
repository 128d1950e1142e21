//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/cli"
)

// asSluice makes this test binary behave as sluice does.
const asSluice = "SLUICE_COMPARE_AS_SLUICE"

func TestMain(m *testing.M) {
	if os.Getenv(asSluice) != "" {
		ctx, stop := cli.Signals(context.Background())
		code := cli.Main(ctx, os.Args, cli.System{Getenv: os.Getenv, Stdout: os.Stdout, Stderr: os.Stderr})
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// The whole comparison at a small size: all clients do the work, in all
// situations, and what they send is counted.
func TestComparison(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var progress bytes.Buffer
	report, err := measure(t.Context(), config{scale: 0.1, rounds: 1, shapes: []string{"chain"}, clients: []string{"sluice", "ssa-4", "kubectl"}, program: self, env: []string{asSluice + "=1"}}, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	if len(report.Shapes) != 1 || report.Shapes[0].Objects != 12 || report.Shapes[0].BuildSeconds <= 0 {
		t.Fatalf("shapes %+v, want the chain with 12 objects and the time that kustomize took", report.Shapes)
	}
	chain := report.Shapes[0]
	_, noKubectl := exec.LookPath("kubectl")
	if noKubectl != nil != (len(report.Missing) == 1) {
		t.Errorf("kubectl on the PATH: %v; missing: %q", noKubectl, report.Missing)
	}
	// What the clients must send for 2 Kustomizations of 6 objects, each with
	// a Deployment to wait for, 3 of them in the end.
	for _, in := range []struct {
		situation situation
		objects   int
		apply     int // of those who look first
		waits     int
	}{{install, 12, 12, 2}, {unchanged, 12, 0, 2}, {changed, 12, 1, 2}, {added, 18, 6, 3}} {
		for _, client := range []struct {
			name string
			want counts
		}{
			{"raw", counts{"apply": in.objects, "watch": in.waits}},
			{"sluice", counts{"apply": in.apply}},
			{"ssa-4", counts{"apply": in.apply, "dry-run": in.objects, "get": in.objects, "watch": in.waits}},
			{"kubectl", counts{"apply": in.objects}},
		} {
			m, ok := chain.find(client.name, in.situation)
			if client.name == "kubectl" && (noKubectl != nil || in.situation == changed || in.situation == added) {
				if ok {
					t.Errorf("%s, %s: measured", client.name, in.situation)
				}
				continue
			}
			if !ok || m.Seconds <= 0 || m.RatioRaw <= 0 {
				t.Errorf("%s, %s: %+v, want a time and a ratio", client.name, in.situation, m)
			}
			for verb, n := range client.want {
				if m.Requests[verb] != n {
					t.Errorf("%s, %s: %s; want %s %d", client.name, in.situation, m.Requests, verb, n)
				}
			}
			if opens := client.name == "sluice" && in.situation == install; opens != (m.Gates != nil) || opens && (m.Gates.Gates != 1 || m.Gates.P99 <= 0) {
				t.Errorf("%s, %s: gates %+v", client.name, in.situation, m.Gates)
			}
			if isSluice := client.name == "sluice"; isSluice != (m.CPUSeconds > 0) || isSluice != (m.PeakBytes > 10e6) {
				t.Errorf("%s, %s: processor time %g s, peak %d bytes", client.name, in.situation, m.CPUSeconds, m.PeakBytes)
			}
		}
	}
	if report.Start.Seconds <= 0 || report.Start.PeakBytes <= 0 || report.Start.BinaryBytes <= 0 || !strings.HasPrefix(report.Versions[0], "sluice ") {
		t.Errorf("start %+v, versions %q", report.Start, report.Versions)
	}
}

// What was measured before a failure is not lost, and told as not all.
func TestComparisonThatFails(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	c := config{scale: 0.1, rounds: 1, shapes: []string{"chain"}, clients: []string{"sluice"}, program: self,
		env: []string{asSluice + "=1"}, args: []string{"--no-such-flag"}, json: filepath.Join(t.TempDir(), "report.json")}
	report, err := measure(t.Context(), c, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "chain: sluice: first install: ") || !strings.Contains(err.Error(), "exit code 64") {
		t.Fatalf("error %v, want one of sluice", err)
	}
	var out bytes.Buffer
	if err := c.write(report, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "\nEnded before all was measured: chain: sluice: first install: ") {
		t.Errorf("the report is\n%s", out.String())
	}
	if r, err := readReports([]string{c.json}); err != nil || r.Failed == "" || r.Start.Seconds <= 0 {
		t.Errorf("the file holds %+v (%v)", r, err)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUnknownShapesAndSizes(t *testing.T) {
	for args, want := range map[string]string{
		"--shapes wide,tall": `"tall"`,
		"--shapes ,":         "are not known",
		"--scale 2":          "scale 2",
		"--rounds 0":         "rounds 0",
		"more":               `"more"`,
		"publish page":       "usage",
	} {
		var out, progress bytes.Buffer
		err := command(t.Context(), strings.Fields(args), &out, &progress)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %s", args, err, want)
		}
	}
}

// Shapes are as the design has them.
func TestShapes(t *testing.T) {
	want := map[string]string{
		"chain":  "20 × 6 objects, each waiting for the one before",
		"layers": "100 × 6 objects in 5 layers, each waiting for the one before",
		"wide":   "100 × 20 objects",
		"big":    "1 × 2000 objects",
		"huge":   "1000 × 20 objects",
	}
	for _, s := range shapes(1) {
		if want[s.name] != s.what {
			t.Errorf("%s is %q, want %q", s.name, s.what, want[s.name])
		}
	}
	for _, s := range shapes(0.001) {
		if h, err := newHistory(t.TempDir(), s.options); err != nil || len(h.states) != 4 {
			t.Errorf("%s at the smallest size: %v", s.name, err)
		}
	}
}

func TestReportsOfParts(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, r Report) string {
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	part := func(shape string) Report {
		return Report{Date: "2026-01-02", Scale: 1, Rounds: 1, Versions: []string{"sluice v1"}, Machine: Machine{System: "linux/amd64", Cores: 2, Busy: 0.01},
			Shapes: []Shape{{Name: shape, Measurements: []Measurement{{Situation: install, Client: "raw", Seconds: 1, RatioRaw: 1, Requests: counts{"apply": 2000}}}}}}
	}
	wide, huge, other, small, loaded, failed := part("wide"), part("huge"), part("big"), part("big"), part("big"), part("big")
	failed.Failed = "raw: no answer"
	other.Versions = []string{"sluice v2"}
	small.Scale = 0.5
	loaded.Machine.Busy = 0.5
	a, b := write("a", wide), write("b", huge)

	page := filepath.Join(dir, "page.md")
	before := "# Page\n\n" + resultsBegin + "old\n" + resultsEnd + "\nend\n"
	read := func() string {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if err := os.WriteFile(page, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	for files, want := range map[[2]string]string{
		{a, a}:                   `both have measured "wide"`,
		{a, write("c", other)}:   "other versions",
		{a, write("d", loaded)}:  "other work took 50 %",
		{a, write("f", failed)}:  "ended early: raw: no answer",
		{write("e", small)}:      "0.5 of full size",
		{filepath.Join(dir, "")}: "is a directory",
	} {
		args := []string{"publish", page, files[0]}
		if files[1] != "" {
			args = append(args, files[1])
		}
		err := command(t.Context(), args, nil, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", files, err, want)
		}
	}
	if got := read(); got != before {
		t.Errorf("a refused publication has changed the page to\n%s", got)
	}
	for range 2 {
		if err := command(t.Context(), []string{"publish", page, a, b}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	got := read()
	if !strings.HasPrefix(got, "# Page\n\n"+resultsBegin) || !strings.HasSuffix(got, resultsEnd+"\nend\n") || strings.Contains(got, "old\n") ||
		strings.Count(got, "| **wide**") != 1 || strings.Count(got, "| **huge**") != 1 {
		t.Errorf("the page is\n%s", got)
	}
	if err := os.WriteFile(page, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := command(t.Context(), []string{"publish", page, a}, nil, nil); err == nil || !strings.Contains(err.Error(), "no place for results") {
		t.Errorf("error %v", err)
	}
}
