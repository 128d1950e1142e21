package run

import (
	"fmt"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
)

// Kustomizations can make Kustomizations without end, since a variable that a child
// sets can be made of the one that its parent sets: N: ${N}x, in a name such as
// apps-${N}, is another Kustomization each time. Flux would go on for ever.
const (
	// maxNodes is how many Kustomizations a run has.
	maxNodes = 5_000
	// maxGenerations is how many of them hold each other.
	maxGenerations = 50
)

// overgrown refuses a child that is one too many; nil if it is not. It is told
// once for the whole run.
func (r *run) overgrown(parent *node, k *flux.Kustomization) *event.Failure {
	const hint = "look for a Kustomization whose path leads to its own manifest and whose name holds a variable"
	what := ""
	switch {
	case r.nodes.len() >= maxNodes:
		what = fmt.Sprintf("%s is the %dth Kustomization of this run, one more than there may be", k.ID, maxNodes+1)
	case r.generation(parent) >= maxGenerations:
		what = fmt.Sprintf("%s lies in %s, and more than %d Kustomizations lie in each other", k.ID, parent.ID, maxGenerations)
	default:
		return nil
	}
	return &event.Failure{Phase: "discover", Reason: "TooManyKustomizations", Node: parent.ID.String(), File: k.File, Line: k.Line, Text: what, Hint: hint}
}

// generation is how many Kustomizations a node lies in, with itself.
func (r *run) generation(n *node) int {
	count := 0
	for at := n; at != nil; count++ {
		if at.Parent.IsZero() {
			return count + 1
		}
		at = r.nodes.get(at.Parent)
	}
	return count
}

// ownManifest says whether a manifest in a node's build is the one that the node
// was read from: the entry folder holds that of its own Kustomization, and any
// other may. Another manifest of its name is another Kustomization.
func ownManifest(n *node, k *flux.Kustomization) bool {
	return k.ID == n.ID && k.File == n.File && k.Line == n.Line
}
