package build

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/flux"
)

// bomb is a manifest of so many levels of nine aliases each.
func bomb(levels int) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: default}\nx0: &x0 [lol, lol]\n")
	for i := 1; i <= levels; i++ {
		fmt.Fprintf(&b, "x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d, ", i-1), 9), ", "))
	}
	return b.String()
}

func TestAliases(t *testing.T) {
	for name, tc := range map[string]struct {
		content string
		refused bool
	}{
		"none":             {content: "a: 1\nb: '* & text'\n"},
		"ordinary":         {content: "a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n"},
		"three levels":     {content: bomb(3)},
		"eight levels":     {content: bomb(8), refused: true},
		"second document":  {content: "a: 1\n---\n" + bomb(8), refused: true},
		"anchor in itself": {content: "a: &a [*a]\n", refused: true},
		"does not parse":   {content: "a: &a {\nb: *a"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Weigh([]byte(tc.content)); (err != nil) != tc.refused {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestBuildRefusesAliasBomb(t *testing.T) {
	tree := fstest.MapFS{"apps/bomb.yaml": {Data: []byte(bomb(8))}}
	k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "apps"}}
	k.Spec.Path = "apps"
	_, err := Build(t.Context(), tree, k, Options{})
	if err == nil || !strings.Contains(err.Error(), "apps/bomb.yaml") || !strings.Contains(err.Error(), "aliases expand") {
		t.Errorf("error %v", err)
	}
}

// TestGeneratorFilesHoldNoValues: kustomize takes a dashboard, a CSV file or a page
// as one string, however many commas and colons it has.
func TestGeneratorFilesHoldNoValues(t *testing.T) {
	text := fmt.Sprintf("[%s1]", strings.Repeat("1,", 200_000)) // 400,000 values by the estimate
	tree := fstest.MapFS{
		"apps/f.json": {Data: []byte(text)}, "apps/r.json": {Data: []byte(text)},
		"apps/kustomization.yaml": {Data: []byte("resources: [r.json]\nconfigMapGenerator: [{name: c, files: [a.json=f.json, r.json]}]\n")},
	}
	k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "apps"}}
	b := newBuilder(tree, k, Options{})
	b.inspect("apps/kustomization.yaml", mount+"/apps/kustomization.yaml", tree["apps/kustomization.yaml"].Data)
	for range 100 {
		if _, err := b.tree.original("apps/f.json"); err != nil {
			t.Fatal(err)
		}
	}
	if b.tree.meter.values != 0 || b.tree.meter.bytes != 100*len(text) {
		t.Errorf("counted %+v", b.tree.meter)
	}
	if _, err := b.tree.original("apps/r.json"); err != nil || b.tree.meter.values < 200_000 {
		t.Errorf("a resource counts %+v, error %v", b.tree.meter, err)
	}
}

func TestSizesOfSecrets(t *testing.T) {
	lines := strings.Repeat(strings.Repeat("QUJD", 19)+"\n", 18_390) // 1,048,230 bytes and their line breaks
	for name, tc := range map[string]struct {
		object  map[string]any
		refused bool
	}{
		"line breaks":   {object: map[string]any{"data": map[string]any{"a": lines}}},
		"beyond":        {object: map[string]any{"data": map[string]any{"a": lines + lines}}, refused: true},
		"stringData":    {object: map[string]any{"data": map[string]any{"a": lines}, "stringData": map[string]any{"a": "x"}}},
		"both, one key": {object: map[string]any{"data": map[string]any{"a": lines}, "stringData": map[string]any{"a": strings.Repeat("x", 1<<20)}}},
		"two keys":      {object: map[string]any{"data": map[string]any{"a": lines}, "stringData": map[string]any{"b": strings.Repeat("x", 1<<20)}}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			tc.object["apiVersion"], tc.object["kind"] = "v1", "Secret"
			var o flux.Object
			o.Unstructured = &unstructured.Unstructured{Object: tc.object}
			if err := Sizes(&flux.Kustomization{}, []flux.Object{o}); (err != nil) != tc.refused {
				t.Errorf("error %v", err)
			}
		})
	}
}
