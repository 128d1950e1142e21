package build

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"go.yaml.in/yaml/v3"

	"github.com/sluicerun/sluice/internal/flux"
)

// documentsToWeigh are all ways to write values and levels, some on little space.
var documentsToWeigh = []string{
	"", "a", "a: b\n", "a:\n  b:\n    c: d\n", "a:\n- b\n- c: d\n  e:\n  - f\n", "- - - a\n", "-\n  -\n    - a\n", "? a\n? b\n", "? - a\n: - b\n",
	"[a,b,[c,{d,e}]]", "{a,b: c,d}", `{"a":1,"b":[],"c":{}}`, "[[[[]]]]", "{a: {b: {c: [d]}}}", "a: |\n  text, with: all, [of: {it\n", "'a, b'",
	"---\na: 1\n---\nb: 2\n---\n", "--- a\n--- b\n", "---\n---\n---\n", "a: &x [1, 2]\nb: *x\nc: {<<: {d: 1}}\n", "!!map {a: b}\n", "# c: d\na: b # e: f\n",
	"-\ta\n-\tb\n", "- ? a\n- ? b\n", "a:\n- - b\n  - c\n", "- a: 1\n  b: 2\n- - - c\n", "\"a\":b\n", "%YAML 1.1\n---\na: b\n", "[a]: b\n", "{[a]: b}\n", "?\n?\n", "-\n-\n-",
}

// estimateHolds checks that no document is more than it was estimated to be: what
// passes the estimate is not parsed before kustomize does it.
func estimateHolds(t *testing.T, text string) {
	t.Helper()
	values, levels := 0, 0
	for doc := range documentsOf([]byte(text)) {
		e := estimated(doc)
		values += e.values
		levels = max(levels, e.nesting)
	}
	decoder := yaml.NewDecoder(strings.NewReader(text))
	count, deepest := 0, 0
	for {
		var doc yaml.Node
		if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return
		}
		count += written(&doc) - 1 // but for the document itself
		if strings.ContainsRune(text, '*') {
			continue // weighed exactly
		}
		deepest = max(deepest, nesting(&doc))
	}
	if count > values || deepest > levels {
		t.Errorf("%q has %d values on %d levels, estimated are %d on %d", text, count, deepest, values, levels)
	}
}

func TestEstimateHolds(t *testing.T) {
	for _, text := range documentsToWeigh {
		estimateHolds(t, text)
	}
}

func FuzzEstimateHolds(f *testing.F) {
	for _, text := range documentsToWeigh {
		f.Add(text)
	}
	f.Fuzz(estimateHolds)
}

// TestBuildEndsBeforeTheMemoryDoes: kustomize lets a replacement repeat what it
// has replaced; twenty lines of that make megabytes of one letter, and a few more
// would make gigabytes. What was given up goes on, so here it ends soon.
func TestBuildEndsBeforeTheMemoryDoes(t *testing.T) {
	was := maxMemory
	runtime.GC()
	maxMemory = memory() + 16<<20
	t.Cleanup(func() { maxMemory = was })
	var file strings.Builder
	file.WriteString("resources: [c.yaml]\nreplacements:\n")
	for range 19 {
		file.WriteString("- source: {kind: ConfigMap, fieldPath: data.x}\n  targets:\n  - select: {kind: ConfigMap}\n    fieldPaths: [data.x]\n    options: {delimiter: ',', index: -1}\n")
	}
	tree := fstest.MapFS{"apps/kustomization.yaml": {Data: []byte(file.String())},
		"apps/c.yaml": {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {x: " + strings.Repeat("x", 16) + "}\n")}}
	k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "apps"}, File: "entry/apps.yaml", Line: 1}
	k.Spec.Path = "apps"
	_, err := Build(t.Context(), tree, k, Options{})
	if err == nil || !strings.Contains(err.Error(), "entry/apps.yaml:1: build stopped: building needs more memory") {
		t.Errorf("error %.200s", fmt.Sprint(err))
	}
}
