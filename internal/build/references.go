package build

import (
	"strings"

	"sigs.k8s.io/kustomize/kyaml/yaml"
)

// references calls visit for every file or folder that a kustomization file
// names, with the field it stands in; folders says that the field may name a
// folder. A node may be nil or no scalar.
func references(doc *yaml.Node, visit func(field string, n *yaml.Node, folders bool)) {
	for _, field := range []string{"resources", "bases", "components"} {
		for _, n := range entries(doc, field) {
			visit(field, n, true)
		}
	}
	for _, field := range []string{"crds", "configurations"} {
		for _, n := range entries(doc, field) {
			visit(field, n, false)
		}
	}
	for _, n := range entries(doc, "patchesStrategicMerge") {
		if !inline(n) {
			visit("patchesStrategicMerge", n, false)
		}
	}
	for _, field := range []string{"patches", "patchesJson6902", "replacements"} {
		for _, n := range entries(doc, field) {
			for _, at := range fields(n, "path", 0) {
				visit(field, at, false)
			}
		}
	}
	for _, field := range []string{"configMapGenerator", "secretGenerator"} {
		for _, g := range entries(doc, field) {
			sources(g, func(n *yaml.Node) { visit(field, n, false) })
		}
	}
	for _, n := range fields(doc, "openapi", 0) {
		for _, at := range fields(n, "path", 0) {
			visit("openapi", at, false)
		}
	}
}

// sources calls visit for every file that a generator of ConfigMaps or Secrets
// reads.
func sources(generator *yaml.Node, visit func(n *yaml.Node)) {
	for _, n := range fields(generator, "env", 0) {
		visit(n)
	}
	for _, list := range []string{"files", "envs"} {
		for _, n := range entries(generator, list) {
			entry := *n
			if _, name, ok := strings.Cut(n.Value, "="); ok && list == "files" {
				entry.Value = name
			}
			visit(&entry)
		}
	}
}

// inline reports whether an entry is YAML itself, and not the name of a file
// that holds it.
func inline(n *yaml.Node) bool {
	return strings.Contains(n.Value, "\n") || strings.HasPrefix(strings.TrimSpace(n.Value), "{")
}
