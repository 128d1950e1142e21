//go:build ignore

// The definitions beside this file are those of Flux's own releases, without
// their descriptions, so that tests meet the schema that a cluster with Flux
// has. The schemas in internal/discover/published are those that sluice checks
// Kustomizations with: of each version of the API the last that was published.
// To make them anew, after a change of the versions below or in go.mod:
//
//	go run testdata/crds/generate.go
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// The modules are fetched into the module cache and are no requirement of
// sluice. kustomize-controller's version is that of its API module in go.mod.
var modules = []string{
	"github.com/fluxcd/kustomize-controller@v1.9.6",
	"github.com/fluxcd/source-controller@v1.9.6",
}

// schemas say which release is the last that served a version of Kustomization.
var schemas = []struct{ version, module string }{
	{"v1", "github.com/fluxcd/kustomize-controller@v1.9.6"},
	{"v1beta2", "github.com/fluxcd/kustomize-controller@v1.7.3"},
	{"v1beta1", "github.com/fluxcd/kustomize-controller@v1.6.0"},
}

func main() {
	log.SetFlags(0)
	for _, module := range modules {
		if err := generate(module, filepath.Join("testdata", "crds")); err != nil {
			log.Fatalf("%s: %v", module, err)
		}
	}
	for _, s := range schemas {
		if err := schema(s.module, s.version, filepath.Join("internal", "discover", "published", s.version+".json")); err != nil {
			log.Fatalf("%s of %s: %v", s.version, s.module, err)
		}
	}
}

// definitions fetches a module and returns its definitions, with their files.
func definitions(module string) (map[string]map[string]any, error) {
	out, err := exec.Command("go", "mod", "download", "-json", module).Output()
	if err != nil {
		return nil, fmt.Errorf("download: %w", err)
	}
	var downloaded struct{ Dir string }
	if err := json.Unmarshal(out, &downloaded); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(downloaded.Dir, "config", "crd", "bases", "*.yaml"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no definitions found (%v)", err)
	}
	found := map[string]map[string]any{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var definition map[string]any
		if err := yaml.Unmarshal(text, &definition); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		stripped(definition)
		found[filepath.Base(file)] = definition
	}
	return found, nil
}

func generate(module, to string) error {
	all, err := definitions(module)
	if err != nil {
		return err
	}
	for name, definition := range all {
		text, err := yaml.Marshal(definition)
		if err != nil {
			return err
		}
		head := fmt.Sprintf("# From %s (Apache License 2.0), without descriptions. Made by generate.go.\n", module)
		if err := os.WriteFile(filepath.Join(to, name), append([]byte(head), text...), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// schema writes the schema of one version of Kustomization.
func schema(module, version, to string) error {
	all, err := definitions(module)
	if err != nil {
		return err
	}
	spec, _ := all["kustomize.toolkit.fluxcd.io_kustomizations.yaml"]["spec"].(map[string]any)
	versions, _ := spec["versions"].([]any)
	for _, each := range versions {
		if each, _ := each.(map[string]any); each["name"] == version {
			text, err := json.MarshalIndent(map[string]any{"from": module, "schema": each["schema"].(map[string]any)["openAPIV3Schema"]}, "", " ")
			if err != nil {
				return err
			}
			return os.WriteFile(to, append(text, '\n'), 0o644)
		}
	}
	return fmt.Errorf("there is no such version")
}

// stripped leaves out descriptions. A field of that name has a schema, which is
// no text, and stays.
func stripped(value any) any {
	switch value := value.(type) {
	case map[string]any:
		if _, text := value["description"].(string); text {
			delete(value, "description")
		}
		for key := range value {
			value[key] = stripped(value[key])
		}
	case []any:
		for i := range value {
			value[i] = stripped(value[i])
		}
	}
	return value
}
