package substitute_test

import (
	"testing"
	"testing/fstest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/substitute"
)

// FuzzApply: whatever stands in a manifest and in a variable, there is an error
// or a valid object, never a panic.
func FuzzApply(f *testing.F) {
	for _, seed := range [][2]string{
		{"${v}", "1"}, {"a ${v:1:-1}", "x"}, {"${v}", "a: b"}, {"${v", ""}, {"{{ }}", "}"}, {"${x:=${v}}", "[1"}, {"${v}\n- ${v}", "- a"},
		{"${v//x/${v//x/${v}}}", "xxxxxxxx"}, {"${a:-${a:-${a:-${v}}}}", "[&a [1], *a]"}, {"${v##*a*a*}", "aaaaaaaaab"}, {"${v}", "[[[[[[[["},
	} {
		f.Add(seed[0], seed[1], true)
		f.Add(seed[0], seed[1], false)
	}
	f.Fuzz(func(t *testing.T, text, value string, strict bool) {
		o := thing(t, "x")
		if err := unstructured.SetNestedField(o.Object, text, "spec", "f"); err != nil {
			t.Fatal(err)
		}
		if err := unstructured.SetNestedField(o.Object, map[string]any{"a": text}, "metadata", "labels"); err != nil {
			t.Fatal(err)
		}
		opts := substitute.Options{Strict: strict, Tree: fstest.MapFS{"app/a.yaml": {Data: []byte(text)}}}
		out, _, err := apply(t, kustomization(map[string]string{"v": value}), nil, opts, o)
		if err != nil {
			if len(flux.Problems(err)) == 0 {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		for _, o := range out {
			if _, err := o.MarshalJSON(); err != nil {
				t.Errorf("not an object: %v", err)
			}
		}
	})
}
