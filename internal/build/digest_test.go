package build_test

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/flux"
)

// TestS0_14Digest: it is the SHA-256 of the stream that kustomize would print,
// in the order of the build. That Flux has the same for whole builds, the tests
// of internal/upstream show.
func TestS0_14Digest(t *testing.T) {
	object := func(content map[string]any) flux.Object {
		return flux.Object{Unstructured: &unstructured.Unstructured{Object: content}, File: "not part of it"}
	}
	a := object(map[string]any{"kind": "A", "apiVersion": "v1", "metadata": map[string]any{"name": "a"}, "data": map[string]any{"text": "true", "lines": "1\n2\n", "none": nil}})
	b := object(map[string]any{"kind": "B", "apiVersion": "v1", "spec": map[string]any{"whole": int64(3), "as": 3.0, "half": 0.5, "list": []any{"x"}, "no": []any{}}})
	const textA = "apiVersion: v1\ndata:\n  lines: |\n    1\n    2\n  none: null\n  text: \"true\"\nkind: A\nmetadata:\n  name: a\n"
	const textB = "apiVersion: v1\nkind: B\nspec:\n  as: 3\n  half: 0.5\n  list:\n  - x\n  \"no\": []\n  whole: 3\n"
	for _, test := range []struct {
		objects []flux.Object
		stream  string
	}{
		{nil, ""},
		{[]flux.Object{a}, textA},
		{[]flux.Object{a, b}, textA + "---\n" + textB},
		{[]flux.Object{b, a}, textB + "---\n" + textA},
	} {
		got, err := build.Digest(test.objects)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(test.stream))); got != want {
			t.Errorf("%s for %d objects, want %s of\n%s", got, len(test.objects), want, test.stream)
		}
	}
}
