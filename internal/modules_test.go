package internal_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/version"
)

// TestUpstreamModuleKeepsStep: internal/upstream, a module of its own, asks for
// no older version of anything than the product does. Go would refuse to run its
// tests, and only there.
func TestUpstreamModuleKeepsStep(t *testing.T) {
	product, upstream := requirements(t, "../go.mod"), requirements(t, "upstream/go.mod")
	if len(product) == 0 || len(upstream) == 0 {
		t.Fatalf("%d and %d requirements were found", len(product), len(upstream))
	}
	for _, name := range slices.Sorted(maps.Keys(product)) {
		want := product[name]
		got, asked := upstream[name]
		if !asked {
			continue
		}
		w, err := version.ParseSemantic(want)
		if err != nil {
			t.Fatal(err)
		}
		g, err := version.ParseSemantic(got)
		if err != nil {
			t.Fatal(err)
		}
		if g.LessThan(w) {
			t.Errorf("internal/upstream/go.mod asks for %s %s, the product for %s: run go mod tidy in internal/upstream", name, got, want)
		}
	}
}

// requirements returns the versions that a go.mod asks for.
func requirements(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\s+([^\s/]+\.[^\s]+) (v[^\s]+)`).FindAllStringSubmatch(string(text), -1) {
		versions[m[1]] = m[2]
	}
	return versions
}
