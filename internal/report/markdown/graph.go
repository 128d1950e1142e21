package markdown

import (
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/report/diagram"
)

// Beyond these a Mermaid picture is unreadable, or its library shows an error
// in its place (50 000 characters, 500 edges), and the graph is text.
const (
	maxPictureNodes = 60
	maxPictureEdges = 400
)

// graph is the dependency graph as a picture, or as text if it is too big for
// one.
func graph(s *report.Summary) string {
	if len(s.Graph.Nodes) > maxPictureNodes || len(s.Graph.Edges) > maxPictureEdges {
		return block(report.TreeLines(s))
	}
	return "```mermaid\n" + diagram.Mermaid(s.Graph, true) + "```\n"
}
