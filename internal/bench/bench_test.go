//go:build unix

package bench

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// Each benchmark's loop is over rounds: -benchtime 5x measures everything five
// times and reports medians. In a round, sluice and the raw client work one
// after the other, each on a cluster that has just been started.

// hundred is the state of BenchmarkHundred, whose parts follow on each other:
// what is installed first is what does not change later.
type hundred struct {
	repository *Repository
	objects    []flux.Object
	cluster    *kubetest.Cluster // holds the repository's commit; nil before the first installation
	stop       func()
	raw        time.Duration // of the last round of the raw client
}

// BenchmarkHundred is 100 Kustomizations of 20 objects, none depending on
// another.
func BenchmarkHundred(b *testing.B) {
	h := &hundred{repository: generate(b, Options{Kustomizations: 100, Objects: 20})}
	h.objects = flatten(render(b, os.DirFS(h.repository.Dir)))

	b.Run("install", func(inner *testing.B) {
		r := row{work: "100 × 20, first install", compared: "raw", budget: 2, objects: len(h.objects)}
		for inner.Loop() {
			r.add(h.install(b))
		}
		fresh, stop := startCluster(inner)
		r.requests = count(inner, fresh, func(kubeconfig string) { run(inner, h.repository, kubeconfig) })
		stop()
		r.report(inner)
	})
	h.later(b, "unchanged", "100 × 20, nothing changed", 0.4, h.repository.CommitNothing)
	h.later(b, "image", "100 × 20, one image changed", 0, h.repository.CommitImage)
}

// install installs everything twice on fresh clusters: with the raw client and
// with sluice. The second cluster is kept for what comes next. b is the
// benchmark that the clusters may live as long as.
func (h *hundred) install(b *testing.B) (time.Duration, measurement) {
	b.Helper()
	h.raw = applyRaw(b, h.objects)
	if h.stop != nil {
		h.stop()
	}
	h.cluster, h.stop = startCluster(b)
	return h.raw, run(b, h.repository, h.cluster.Kubeconfig())
}

// later measures runs of further commits on the cluster where all is
// installed. They are compared with the raw client's installation.
func (h *hundred) later(b *testing.B, part, work string, budget float64, commit func() error) {
	b.Run(part, func(inner *testing.B) {
		if h.cluster == nil {
			h.install(b) // only this part was asked for
		}
		next := func() *Repository {
			if err := commit(); err != nil {
				inner.Fatal(err)
			}
			return h.repository
		}
		r := row{work: work, compared: "raw install", budget: budget, objects: len(h.objects)}
		for inner.Loop() {
			r.add(h.raw, run(inner, next(), h.cluster.Kubeconfig()))
		}
		r.requests = count(inner, h.cluster, func(kubeconfig string) { run(inner, next(), kubeconfig) })
		r.report(inner)
	})
}

// BenchmarkChain is 20 Kustomizations, each of which waits for the Deployment
// of the one before. The raw client rolls out one Deployment after the other,
// with a watch on each.
func BenchmarkChain(b *testing.B) {
	repository := generate(b, Options{Kustomizations: 20, Objects: 6, Chain: true, Replicas: 1})
	links := render(b, os.DirFS(repository.Dir))
	r := row{work: "chain of 20 Deployments", compared: "roll-outs", budget: 1.2, objects: len(flatten(links))}
	for b.Loop() {
		c, stop := startCluster(b)
		client := newRaw(b, c)
		began := time.Now()
		for _, objects := range links {
			if err := client.rollOut(b.Context(), objects); err != nil {
				b.Fatal(err)
			}
		}
		rollOuts := time.Since(began)
		stop()
		c, stop = startCluster(b)
		r.add(rollOuts, run(b, repository, c.Kubeconfig()))
		stop()
	}
	r.report(b)
}

// BenchmarkLarge is one Kustomization of 2,000 objects. It is compared with
// the kustomize library's own build, whose time grows with the square, and
// twice the raw client.
func BenchmarkLarge(b *testing.B) {
	repository := generate(b, Options{Kustomizations: 1, Objects: 2000})
	tree := os.DirFS(repository.Dir)
	k := kustomizations(b, tree)[0]
	r := row{work: "1 × 2,000, first install", compared: "kustomize + 2 × raw", budget: 1}
	var builds, raws []time.Duration
	for b.Loop() {
		built, objects := kustomizeAlone(b, tree, k)
		raw := applyRaw(b, objects)
		c, stop := startCluster(b)
		r.add(built+2*raw, run(b, repository, c.Kubeconfig()))
		stop()
		builds, raws = append(builds, built), append(raws, raw)
	}
	r.report(b)
	b.ReportMetric(median(builds).Seconds(), "kustomize-s")
	b.ReportMetric(median(raws).Seconds(), "raw-s")
	b.ReportMetric(median(r.base).Seconds(), "compared-s")
}

// BenchmarkStart is the time from the start of the process to its end when
// there is nothing to do, and the size of the binary.
func BenchmarkStart(b *testing.B) {
	start(b, "", "version") // the file is in the system's cache from here on
	var took []time.Duration
	var peak []int64
	for b.Loop() {
		for range 10 {
			m := start(b, "", "version")
			took, peak = append(took, m.Wall), append(peak, m.Peak)
		}
	}
	info, err := os.Stat(prepare(b).sluice)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(median(took).Microseconds())/1000, "start-ms")
	b.ReportMetric(megabytes(median(peak)), "peak-MB")
	b.ReportMetric(megabytes(info.Size()), "binary-MB")
	results.add([]string{"sluice version", "–", fmt.Sprintf("%.0f ms", float64(median(took).Microseconds())/1000), "–", "50 ms", "–", fmt.Sprintf("%.0f MB", megabytes(median(peak))), "–"})
	results.add([]string{"size of the binary", "–", fmt.Sprintf("%.1f MB", megabytes(info.Size())), "–", "90 MB", "–", "–", "–"})
}

// generate makes a repository that is gone after the benchmark.
func generate(tb testing.TB, o Options) *Repository {
	tb.Helper()
	r, err := New(tb.TempDir(), o)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// applyRaw is the time that the raw client takes for the objects on a fresh
// cluster.
func applyRaw(b *testing.B, objects []flux.Object) time.Duration {
	b.Helper()
	c, stop := startCluster(b)
	defer stop()
	client := newRaw(b, c)
	began := time.Now()
	if err := client.apply(b.Context(), objects); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}
