package report

import (
	"fmt"
	"strings"
)

// TreeLines is the graph as text: each Kustomization below its parent, with
// what it depends on and how it ended. It is for graphs that are too big for
// a picture.
func TreeLines(s *Summary) []string {
	children := map[string][]GraphNode{}
	known := map[string]bool{}
	for _, n := range s.Graph.Nodes {
		known[n.ID] = true
	}
	parent := map[string]string{}
	after := map[string][]string{}
	for _, e := range s.Graph.Edges {
		if e.Kind == "parent" && known[e.From] {
			parent[e.To] = e.From
		} else if e.Kind != "parent" {
			after[e.To] = append(after[e.To], s.Name(e.From))
		}
	}
	for _, n := range s.Graph.Nodes {
		children[parent[n.ID]] = append(children[parent[n.ID]], n)
	}
	var lines []string
	printed := map[string]bool{}
	var walk func(n GraphNode, depth int)
	walk = func(n GraphNode, depth int) {
		if printed[n.ID] {
			return
		}
		printed[n.ID] = true
		line := fmt.Sprintf("%s%s: %s", strings.Repeat("  ", depth), n.Name, n.State.Verdict())
		if deps := after[n.ID]; len(deps) > 0 {
			line += " (after " + strings.Join(deps, ", ") + ")"
		}
		lines = append(lines, line)
		for _, c := range children[n.ID] {
			walk(c, depth+1)
		}
	}
	for _, n := range children[""] {
		walk(n, 0)
	}
	// What is in a cycle of parents hangs below nothing; it is told all the same.
	for _, n := range s.Graph.Nodes {
		walk(n, 0)
	}
	return lines
}
