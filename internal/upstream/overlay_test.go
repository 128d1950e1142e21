package upstream

import (
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// everything is a spec that changes every object in every way there is.
const everything = `
targetNamespace: everywhere
namePrefix: p-
nameSuffix: -s
buildMetadata: [originAnnotations, transformerAnnotations]
images:
- {name: nginx, newTag: other}
commonMetadata:
  labels: {common: label}
  annotations: {common: annotation}
patches:
- target: {kind: ConfigMap}
  patch: |
    - {op: add, path: /metadata/labels, value: {patched: with JSON}}
- target: {kind: Deployment}
  patch: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: any}
    spec: {replicas: 7}
postBuild:
  substituteStrategy: Always
  substitute: {a: "1"}
`

// TestBuildWithEverything: every repository of the corpus with a spec on top
// that changes everything. Lists come after those of the case.
func TestBuildWithEverything(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(corpus, "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			dir, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			text, comment := unpack(t, file, filepath.Join(dir, "tree"))
			if strings.Contains(comment, unlike) {
				return
			}
			var k struct {
				Spec map[string]any `json:"spec"`
			}
			if err := yaml.Unmarshal(text, &k); err != nil {
				t.Fatal(err)
			}
			if k.Spec == nil {
				k.Spec = map[string]any{}
			}
			var more map[string]any
			if err := yaml.Unmarshal([]byte(everything), &more); err != nil {
				t.Fatal(err)
			}
			for field, value := range more {
				if before, ok := k.Spec[field].([]any); ok && field != "buildMetadata" {
					value = append(before, value.([]any)...)
				}
				k.Spec[field] = value
			}
			if text, err = yaml.Marshal(k); err != nil {
				t.Fatal(err)
			}
			tree := filepath.Join(dir, "tree")
			if different := difference(sluice(tree, text, true), controller(tree, text, true)); different != "" {
				t.Error(different)
			}
		})
	}
}
