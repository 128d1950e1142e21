package internal_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The definitions of Flux's kinds that tests install are those of the release
// whose API sluice is built with, all of them from the generator beside them.
func TestCustomResourceDefinitionsOfFlux(t *testing.T) {
	files, err := filepath.Glob("../testdata/crds/*.yaml")
	if err != nil || len(files) < 7 {
		t.Fatalf("found %q: %v", files, err)
	}
	generator := read(t, "../testdata/crds/generate.go")
	requirements := read(t, "../go.mod")
	head := regexp.MustCompile(`^# From (github\.com/fluxcd/(?:kustomize|source)-controller)@(v\S+) `)
	for _, file := range files {
		text := read(t, file)
		from := head.FindStringSubmatch(text)
		switch {
		case from == nil:
			t.Errorf("%s does not say where it is from", file)
			continue
		case !strings.Contains(generator, `"`+from[1]+"@"+from[2]+`"`):
			t.Errorf("%s is of %s, which the generator does not name", file, from[2])
		}
		if api := from[1] + "/api "; strings.Contains(requirements, api) && !strings.Contains(requirements, api+from[2]+"\n") {
			t.Errorf("%s is of %s, and go.mod has another version of %s; run go run testdata/crds/generate.go", file, from[2], api)
		}
		if regexp.MustCompile(`(?m)^\s*description: \S`).MatchString(text) {
			t.Errorf("%s has descriptions", file)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
