package diagram

import (
	"fmt"
	"strings"

	"github.com/sluicerun/sluice/internal/report"
)

// classes are the colours of the states, readable on a light and on a dark
// page alike, since each sets its own background.
var classes = []struct {
	name, style string
	states      []report.State
}{
	{"good", "fill:#dafbe1,stroke:#1a7f37,color:#0b3d1a", []report.State{report.Ready, report.Planned, report.Valid, report.Destroyed}},
	{"bad", "fill:#ffebe9,stroke:#cf222e,color:#6e0b14,stroke-width:2px", []report.State{report.Failed, report.Unhealthy}},
	{"blocked", "fill:#eaeef2,stroke:#6e7781,color:#32383f,stroke-dasharray:4 3", []report.State{report.NotRun, report.Cancelled}},
	{"out", "fill:#ffffff,stroke:#afb8c1,color:#57606a", []report.State{report.Suspended, report.Excluded, report.Pending}},
	{"active", "fill:#fff8c5,stroke:#9a6700,color:#4d3800", []report.State{report.Running, report.Waiting, report.Retrying}},
}

func class(s report.State) string {
	for _, c := range classes {
		for _, state := range c.states {
			if state == s {
				return c.name
			}
		}
	}
	return "out"
}

// Mermaid is the graph in Mermaid's language. A dotted arrow leads from a parent
// to what its build holds, a full one from a dependency to its dependent. Labels
// say how each ended if states are wanted.
func Mermaid(g report.Graph, states bool) string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	number := map[string]int{}
	used := map[string]bool{}
	node := func(id, name string, state report.State, known bool) {
		number[id] = len(number)
		label, mark := name, "out"
		if known {
			mark = class(state)
			if states && state != report.Pending {
				label += " · " + state.Verdict()
			}
		}
		used[mark] = true
		fmt.Fprintf(&b, "  n%d[\"%s\"]:::%s\n", number[id], labelText(label), mark)
	}
	for _, n := range g.Nodes {
		node(n.ID, n.Name, n.State, true)
	}
	for _, e := range g.Edges {
		for _, id := range []string{e.From, e.To} {
			if _, ok := number[id]; !ok {
				node(id, id, "", false) // named, but not part of the run
			}
		}
	}
	for _, e := range g.Edges {
		arrow := "-->"
		if e.Kind == "parent" {
			arrow = "-.->"
		}
		fmt.Fprintf(&b, "  n%d %s n%d\n", number[e.From], arrow, number[e.To])
	}
	for _, c := range classes {
		if used[c.name] {
			fmt.Fprintf(&b, "  classDef %s %s\n", c.name, c.style)
		}
	}
	return b.String()
}

// labelText escapes a label for Mermaid: whatever is not plain becomes a
// character code.
func labelText(s string) string {
	var b strings.Builder
	for _, r := range report.Cut(report.Clean(s), 120) {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" ./-·_", r)
		if plain {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "#%d;", r)
		}
	}
	return b.String()
}
