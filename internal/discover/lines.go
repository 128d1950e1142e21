package discover

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sluicerun/sluice/internal/flux"
)

// Line returns the first line of the document in the file that declares the
// object, counted from 1; 0 if it is not found. The object's name may have
// been changed by the build: then the only document of its kind is taken.
func Line(tree fs.FS, file string, ref flux.Ref) int {
	if n := document(tree, file, ref); n != nil {
		return n.Line
	}
	return 0
}

// fieldLine returns the line of a field of the object, or of the nearest field
// around it that is there.
func fieldLine(tree fs.FS, file string, ref flux.Ref, field string) int {
	n := document(tree, file, ref)
	if n == nil {
		return 0
	}
	line := n.Line
	for _, step := range steps(field) {
		key, value := lookUp(n, step)
		if value == nil {
			break
		}
		line, n = key.Line, value
	}
	return line
}

var index = regexp.MustCompile(`^(.*)\[(\d+)\]$`)

// steps splits "spec.patches[0].patch" at the dots and the brackets. A key
// with dots in it is cut too; then the line of the map is as near as it gets.
func steps(field string) []string {
	var out []string
	for part := range strings.SplitSeq(field, ".") {
		if m := index.FindStringSubmatch(part); m != nil {
			out = append(out, m[1], m[2])
			continue
		}
		out = append(out, part)
	}
	return out
}

// lookUp returns the node that a step leads to, and the node whose line stands
// for it.
func lookUp(n *yaml.Node, step string) (at, value *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i], n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i < len(n.Content) {
			return n.Content[i], n.Content[i]
		}
	}
	return nil, nil
}

// document finds the document that declares an object.
func document(tree fs.FS, file string, ref flux.Ref) *yaml.Node {
	if tree == nil || file == "" {
		return nil
	}
	data, err := fs.ReadFile(tree, file)
	if err != nil {
		return nil // the file is not there: so is the line
	}
	docs, _ := documents(data) // what parses before an error may be enough
	var sameKind []*yaml.Node
	for _, d := range docs {
		group, _, _ := strings.Cut(scalar(d, "apiVersion"), "/")
		if scalar(d, "kind") != ref.Kind || ref.Group != "" && group != ref.Group {
			continue
		}
		_, metadata := lookUp(d, "metadata")
		if metadata == nil {
			continue
		}
		namespace := scalar(metadata, "namespace")
		if scalar(metadata, "name") == ref.Name && (namespace == ref.Namespace || namespace == "" || ref.Namespace == "") {
			return d
		}
		sameKind = append(sameKind, d)
	}
	if len(sameKind) == 1 {
		return sameKind[0]
	}
	return nil
}

// documents parses a YAML stream; lists of objects are taken apart.
func documents(data []byte) (docs []*yaml.Node, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		if err := decoder.Decode(&n); errors.Is(err, io.EOF) {
			return docs, nil
		} else if err != nil {
			return docs, err
		}
		if n.Kind != yaml.DocumentNode || len(n.Content) == 0 || n.Content[0].Kind != yaml.MappingNode {
			continue
		}
		d := n.Content[0]
		if _, items := lookUp(d, "items"); items != nil && items.Kind == yaml.SequenceNode && strings.HasSuffix(scalar(d, "kind"), "List") {
			for _, item := range items.Content {
				if item.Kind == yaml.MappingNode {
					docs = append(docs, item)
				}
			}
			continue
		}
		docs = append(docs, d)
	}
}

func scalar(n *yaml.Node, key string) string {
	if n.Kind != yaml.MappingNode {
		return ""
	}
	_, value := lookUp(n, key)
	if value == nil || value.Kind != yaml.ScalarNode {
		return ""
	}
	return value.Value
}
