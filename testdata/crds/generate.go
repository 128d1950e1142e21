//go:build ignore

// The definitions beside this file are those of Flux's own releases, without
// their descriptions, so that tests meet the schema that a cluster with Flux
// has. To make them anew, after a change of the versions below or in go.mod:
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

func main() {
	log.SetFlags(0)
	for _, module := range modules {
		if err := generate(module, filepath.Join("testdata", "crds")); err != nil {
			log.Fatalf("%s: %v", module, err)
		}
	}
}

func generate(module, to string) error {
	out, err := exec.Command("go", "mod", "download", "-json", module).Output()
	if err != nil {
		return fmt.Errorf("download: %w", err)
	}
	var downloaded struct{ Dir string }
	if err := json.Unmarshal(out, &downloaded); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(downloaded.Dir, "config", "crd", "bases", "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no definitions found (%v)", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var definition any
		if err := yaml.Unmarshal(text, &definition); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		text, err = yaml.Marshal(stripped(definition))
		if err != nil {
			return err
		}
		head := fmt.Sprintf("# From %s (Apache License 2.0), without descriptions. Made by generate.go.\n", module)
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), append([]byte(head), text...), 0o644); err != nil {
			return err
		}
	}
	return nil
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
