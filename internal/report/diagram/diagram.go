// Package diagram draws the dependency graph of a Summary: as a tree of text, for
// Mermaid, for Graphviz, or as JSON.
package diagram

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluicerun/sluice/internal/report"
)

// formats are the forms of a graph by name.
var formats = map[string]func(*report.Summary) (string, error){
	"text":    func(s *report.Summary) (string, error) { return Text(s), nil },
	"mermaid": func(s *report.Summary) (string, error) { return Mermaid(s.Graph, false), nil },
	"dot":     func(s *report.Summary) (string, error) { return Dot(s.Graph), nil },
	"json":    JSON,
}

// Formats are the names that Write knows, sorted.
func Formats() []string {
	var names []string
	for name := range formats {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Write writes the graph in a format; nothing if there are no Kustomizations. The
// error is the writer's, or says that there is no such format.
func Write(w io.Writer, s *report.Summary, format string) error {
	render, ok := formats[format]
	if !ok {
		return fmt.Errorf("no format %q", format)
	}
	if len(s.Graph.Nodes) == 0 {
		return nil
	}
	text, err := render(s)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, text)
	return err
}

// JSON is the graph as report.json has it.
func JSON(s *report.Summary) (string, error) {
	text, err := json.MarshalIndent(s.Graph, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write the graph as JSON: %w", err)
	}
	return string(text) + "\n", nil
}

// Dot is the graph in Graphviz' language, with arrows as Mermaid has them.
func Dot(g report.Graph) string {
	var b strings.Builder
	b.WriteString("digraph kustomizations {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n")
	for _, n := range g.Nodes {
		fmt.Fprintf(&b, "  %s [label=%s];\n", quote(n.ID), quote(n.Name))
	}
	for _, e := range g.Edges {
		style := ""
		if e.Kind == "parent" {
			style = " [style=dotted]"
		}
		fmt.Fprintf(&b, "  %s -> %s%s;\n", quote(e.From), quote(e.To), style)
	}
	b.WriteString("}\n")
	return b.String()
}

// quote is a quoted string of Graphviz, in which only the quote and, before it,
// the backslash mean something.
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(report.Clean(text)) + `"`
}

// Text is the graph as a tree: each Kustomization below the one whose build holds
// it, with its folder and what it depends on.
func Text(s *report.Summary) string {
	known := map[string]bool{}
	for _, n := range s.Graph.Nodes {
		known[n.ID] = true
	}
	parent, after := map[string]string{}, map[string][]string{}
	for _, e := range s.Graph.Edges {
		switch {
		case e.Kind == "parent" && known[e.From]:
			parent[e.To] = e.From
		case e.Kind != "parent":
			after[e.To] = append(after[e.To], s.Name(e.From))
		}
	}
	t := &tree{children: map[string][]report.GraphNode{}, drawn: map[string]bool{}}
	for _, n := range s.Graph.Nodes {
		t.children[parent[n.ID]] = append(t.children[parent[n.ID]], n)
	}
	for _, n := range t.children[""] {
		t.draw(n, "", "")
	}
	// What is in a cycle of parents hangs below nothing; it is told all the same.
	for _, n := range s.Graph.Nodes {
		t.draw(n, "", "")
	}
	var rows [][]string
	var widths [2]int
	for i, n := range t.order {
		row := []string{t.lines[i], "", note(s, n, after[n.ID])}
		if r := s.Row(n.ID); r != nil {
			row[1] = r.Path
		}
		for c := range widths {
			widths[c] = max(widths[c], utf8.RuneCountInString(row[c]))
		}
		rows = append(rows, row)
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for c, cell := range row {
			line += cell
			if c < len(widths) {
				line += strings.Repeat(" ", widths[c]-utf8.RuneCountInString(cell)+2)
			}
		}
		b.WriteString(report.Clean(strings.TrimRight(line, " ")) + "\n")
	}
	return b.String()
}

// note is what there is to say of a Kustomization beside its place.
func note(s *report.Summary, n report.GraphNode, after []string) string {
	var parts []string
	if len(after) > 0 {
		parts = append(parts, "after "+strings.Join(after, ", "))
	}
	switch r := s.Row(n.ID); {
	case n.State == report.Suspended:
		parts = append(parts, "suspended")
	case n.State == report.Excluded:
		parts = append(parts, "left out")
	case r != nil && r.Deferred != "":
		parts = append(parts, r.Deferred)
	}
	return strings.Join(parts, "; ")
}

// tree draws the first column.
type tree struct {
	children map[string][]report.GraphNode
	drawn    map[string]bool
	lines    []string
	order    []report.GraphNode
}

// draw adds a node and all below it. lead stands before the node's name, below
// before the lines of its children.
func (t *tree) draw(n report.GraphNode, lead, below string) {
	if t.drawn[n.ID] {
		return
	}
	t.drawn[n.ID] = true
	t.lines = append(t.lines, lead+n.Name)
	t.order = append(t.order, n)
	children := t.children[n.ID]
	for i, child := range children {
		if i == len(children)-1 {
			t.draw(child, below+"└── ", below+"    ")
		} else {
			t.draw(child, below+"├── ", below+"│   ")
		}
	}
}
