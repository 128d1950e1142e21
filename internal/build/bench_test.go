package build_test

import (
	"context"
	"fmt"
	"testing"
	"testing/fstest"

	"github.com/sluicerun/sluice/internal/build"
)

// BenchmarkHundred builds a hundred Kustomizations of twenty objects each, the
// size that the budgets of the design are for.
func BenchmarkHundred(b *testing.B) {
	tree := fstest.MapFS{}
	for i := range 100 {
		for j := range 20 {
			tree[fmt.Sprintf("apps/%d/%d.yaml", i, j)] = &fstest.MapFile{Data: fmt.Appendf(nil,
				"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c-%d\n  namespace: app-%d\ndata:\n  a: b\n  c: d\n", j, i)}
		}
	}
	for b.Loop() {
		for i := range 100 {
			k, err := loose(fmt.Sprintf("spec: {path: apps/%d}", i))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := build.Build(context.Background(), tree, k, build.Options{}); err != nil {
				b.Fatal(err)
			}
		}
	}
}
