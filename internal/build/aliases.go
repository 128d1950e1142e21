package build

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// maxNodes is how many values a YAML file may hold once its aliases are
// expanded. Kustomize expands them before anything can stop it: nine lines of
// aliases of aliases would fill the memory. The largest manifests there are
// have some 100,000.
const maxNodes = 1_000_000

// checkAliases refuses a file whose aliases expand to too much. A file that
// does not parse is left to the parser that reads it.
func checkAliases(content []byte) error {
	if !bytes.ContainsRune(content, '&') || !bytes.ContainsRune(content, '*') {
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var doc yaml.Node
		if decoder.Decode(&doc) != nil {
			return nil // the end, or a fault that the file's own parser tells
		}
		if expanded(&doc, map[*yaml.Node]int{}) >= maxNodes {
			return fmt.Errorf("its YAML aliases expand to more than %d values", maxNodes)
		}
	}
}

// expanded counts the values below a node, each alias as what it stands for, up
// to maxNodes. An anchor that contains itself has no end.
func expanded(n *yaml.Node, known map[*yaml.Node]int) int {
	if count, ok := known[n]; ok {
		return count
	}
	known[n] = maxNodes // while it is being counted
	count := 1
	if n.Kind == yaml.AliasNode {
		count = expanded(n.Alias, known)
	}
	for _, child := range n.Content {
		if count = min(count+expanded(child, known), maxNodes); count == maxNodes {
			break
		}
	}
	known[n] = count
	return count
}
