package prune

import (
	"fmt"
	"strings"

	"github.com/sluicerun/sluice/internal/flux"
)

// Guards are the limits that Check holds deletions against.
type Guards struct {
	// AllowEmpty lets a Kustomization whose build is empty lose all its objects; MaxPrunePercent does not apply to it then.
	AllowEmpty bool
	// MaxPrunePercent is how many percent of a Kustomization's inventory may be deleted at once, if it holds more than
	// MinObjects objects. 100 sets no limit.
	MaxPrunePercent int
	MinObjects      int
	// AllowDelete lists kinds, in any case, of GuardedKinds that no guard protects.
	AllowDelete []string
}

// GuardedKinds are the kinds that AllowDelete can name, sorted.
var GuardedKinds = []string{"CustomResourceDefinition", "Namespace", "PersistentVolume", "PersistentVolumeClaim"}

// DefaultGuards returns the guards that hold unless the user says otherwise.
func DefaultGuards() Guards { return Guards{MaxPrunePercent: 50, MinObjects: 10} }

func (g Guards) allows(kind string) bool {
	for _, k := range g.AllowDelete {
		if strings.EqualFold(strings.TrimSpace(k), kind) {
			return true
		}
	}
	return false
}

// Guard names what refused a deletion.
type Guard string

// The guards.
const (
	// EmptyBuild: the build of a Kustomization with objects in the cluster is empty.
	EmptyBuild Guard = "empty-build"
	// MaxPrune: more is to be deleted than --max-prune allows.
	MaxPrune Guard = "max-prune"
	// NamespaceInUse: a Namespace holds objects that this run does not delete.
	NamespaceInUse Guard = "namespace"
	// DefinitionInUse: a CustomResourceDefinition has objects that this run does not delete.
	DefinitionInUse Guard = "definition"
	// Volume: a PersistentVolume or PersistentVolumeClaim is to be deleted.
	Volume Guard = "volume"
)

// Refusal is a deletion that a guard does not let pass. It is an error.
type Refusal struct {
	Guard Guard
	// Node is the Kustomization whose objects were to be deleted.
	Node flux.ID
	// Objects are those the guard protects, sorted: what would be lost.
	Objects []flux.Ref
	// Text says what is wrong. It names some of the objects.
	Text string
	// Override is the flag that lets it pass; empty if none does.
	Override string
}

func (r *Refusal) Error() string { return r.Text }

// Hint says what to do.
func (r *Refusal) Hint() string {
	if r.Override == "" {
		return "keep it in Git, or remove with it what it holds"
	}
	return "if this is meant, run again with " + r.Override
}

// someOf names the first few objects and counts the rest.
func someOf(refs []flux.Ref) string {
	const most = 5
	var names []string
	for i, r := range refs {
		if i == most {
			return strings.Join(names, ", ") + fmt.Sprintf(" and %d more", len(refs)-most)
		}
		names = append(names, r.String())
	}
	return strings.Join(names, ", ")
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
