//go:build unix

package kubetest

import (
	"bytes"
	"regexp"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestStagesAreYAML(t *testing.T) {
	stages, err := renderStages()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, document := range bytes.Split(stages, []byte("\n---\n")) {
		var stage struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if err := yaml.Unmarshal(document, &stage); err != nil {
			t.Errorf("%v in\n%s", err, document)
		}
		if stage.Kind == "" {
			continue // comments only
		}
		if stage.Kind != "Stage" || names[stage.Metadata.Name] {
			t.Errorf("kind %q, name %q: want a Stage with a name of its own", stage.Kind, stage.Metadata.Name)
		}
		names[stage.Metadata.Name] = true
	}
	if len(names) < 15 {
		t.Errorf("only %d stages: %v", len(names), names)
	}
}

func TestImageExpressions(t *testing.T) {
	for image, want := range map[string]string{
		"nginx":                                   "run",
		"nginx:1.27":                              "run",
		"ghcr.io/your-org/grade-api:v1.5.2":       "run",
		"localhost:5000/a/b_c/d__e.f-g:x":         "run",
		"example.com/a@sha256:" + hex64:           "run",
		"example.com/a:v1@sha256:" + hex64:        "run",
		"example.com/missing-link:v1":             "run",
		"example.com/a:missing-link":              "run",
		"ghcr.io/your-org/grade-api:missing":      "image-pull",
		"ghcr.io/grade-api:v1.5.3-missing":        "image-pull",
		"ghcr.io/grade-api:does-not-exist":        "image-pull",
		"example.com/missing/web:v1":              "image-pull",
		"example.com/missing":                     "image-pull",
		"example.com/web:missing@sha256:" + hex64: "image-pull",
		"":                      "invalid-image",
		"example.com/Web:v1":    "invalid-image",
		"example.com/web::v1":   "invalid-image",
		"example.com/web:v1:v2": "invalid-image",
		"example.com//web":      "invalid-image",
		"${IMAGE}":              "invalid-image",
		"example.com/web: v1":   "invalid-image",
		"-web":                  "invalid-image",
	} {
		got := "run"
		if !regexp.MustCompile(validImage).MatchString(image) {
			got = "invalid-image"
		} else if regexp.MustCompile(missingImage).MatchString(image) {
			got = "image-pull"
		}
		if got != want {
			t.Errorf("%q: %s, want %s", image, got, want)
		}
	}
}

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
