package health

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
)

// object is what is known of a target.
type object struct {
	target Target
	group  *group
	status Status
	// answered is set once the cluster has said something of the object.
	answered bool
	// last is kept for objects that are not Current and whose status depends on more than themselves: their pods, or time.
	last  *unstructured.Unstructured
	since time.Time
	pods  map[string]podState
	// trouble is the last that the pods had: a Job that fails deletes its pods first.
	trouble string
	// stopPods ends the watch of the pods; nil while there is none.
	stopPods func()
}

// group is what one set can answer: objects of one kind in one namespace, all with the owner labels of one Kustomization, or
// none with any.
type group struct {
	kind      schema.GroupKind
	namespace string
	owner     flux.ID
	// whole is set if some object has an expression, which may read anything.
	whole   bool
	objects map[string]*object
}

// groupsOf groups targets, without objects.
func groupsOf(targets []Target) []*group {
	var groups []*group
	for _, t := range targets {
		if g := find(groups, t); g != nil {
			g.whole = g.whole || t.reads()
			continue
		}
		groups = append(groups, &group{kind: t.Ref.GVK().GroupKind(), namespace: t.Ref.Namespace, owner: t.Owner, whole: t.reads(), objects: map[string]*object{}})
	}
	return groups
}

// find returns the group of a target, nil if there is none.
func find(groups []*group, t Target) *group {
	i := slices.IndexFunc(groups, func(g *group) bool {
		return g.kind == t.Ref.GVK().GroupKind() && g.namespace == t.Ref.Namespace && g.owner == t.Owner
	})
	if i < 0 {
		return nil
	}
	return groups[i]
}
