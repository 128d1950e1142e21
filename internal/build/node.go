package build

import (
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/yaml"
)

// The fields of a document, as kustomize finds them: by way of JSON, so that
// aliases stand for what they name, merge keys for what they merge, and the case
// of a field's letters does not matter.

// real is what a node stands for.
func real(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias // never an alias itself
	}
	return n
}

// child returns a field of a mapping, nil if there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	if all := fields(n, key, 0); len(all) > 0 {
		return all[0]
	}
	return nil
}

// maxMerges is how deep merge keys may lie within each other.
const maxMerges = 20

// fields returns all that could be meant by a field of a mapping: what has that
// very name, then other spellings, then what is merged.
func fields(n *yaml.Node, key string, depth int) []*yaml.Node {
	n = real(n)
	if n == nil || n.Kind != yaml.MappingNode || depth > maxMerges {
		return nil
	}
	var exact, others, merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i].Value, real(n.Content[i+1])
		switch {
		case name == key:
			exact = append(exact, value)
		case strings.EqualFold(name, key):
			others = append(others, value)
		case name == "<<" && value.Kind == yaml.SequenceNode:
			for _, one := range value.Content {
				merged = append(merged, fields(one, key, depth+1)...)
			}
		case name == "<<":
			merged = append(merged, fields(value, key, depth+1)...)
		}
	}
	return slices.Concat(exact, others, merged)
}

// entries returns the items of a list that is a field of a mapping, or of all that
// could be meant by it.
func entries(n *yaml.Node, key string) []*yaml.Node {
	var all []*yaml.Node
	for _, list := range fields(n, key, 0) {
		all = append(all, items(list)...)
	}
	return all
}

func scalar(n *yaml.Node, key string) string {
	if c := child(n, key); c != nil && c.Kind == yaml.ScalarNode {
		return c.Value
	}
	return ""
}

// items returns the items of a list; none if it is no list.
func items(n *yaml.Node) []*yaml.Node {
	n = real(n)
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	all := make([]*yaml.Node, len(n.Content))
	for i, item := range n.Content {
		all[i] = real(item)
	}
	return all
}
