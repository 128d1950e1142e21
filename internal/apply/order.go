package apply

import (
	"cmp"
	"slices"

	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
)

// stage is a group of objects that is complete, and for definitions and
// classes ready, before the next begins (S4.10).
type stage struct {
	name    string
	wait    bool
	objects []flux.Object
}

// stages divides objects; empty stages are left out.
func stages(objects []flux.Object, custom map[schema.GroupKind]struct{}) []stage {
	all := []stage{{name: "definitions", wait: true}, {name: "classes", wait: true}, {name: "custom kinds"}, {name: "resources"}}
	for _, o := range objects {
		i := 3
		switch {
		case utils.IsClusterDefinition(o.Unstructured):
			i = 0
		case utils.IsClassDefinition(o.Unstructured):
			i = 1
		case utils.IsCustomStage(o.Unstructured, custom):
			i = 2
		}
		all[i].objects = append(all[i].objects, o)
	}
	return slices.DeleteFunc(all, func(s stage) bool { return len(s.objects) == 0 })
}

// ranks gives each kind of ssa's order its place; kinds that are not listed
// are between the first and the last, at 0 (S4.17). ssa builds this table anew
// for each comparison, which at two thousand objects takes as long as applying
// a few hundred of them.
var ranks = func() map[string]int {
	m := map[string]int{}
	for i, kind := range ssa.ReconcileOrder.First {
		m[kind] = i - len(ssa.ReconcileOrder.First)
	}
	for i, kind := range ssa.ReconcileOrder.Last {
		m[kind] = i + 1
	}
	return m
}()

// sorted returns the objects in the order of S4.17.
func sorted(objects []flux.Object) []flux.Object {
	out := slices.Clone(objects)
	slices.SortStableFunc(out, func(a, b flux.Object) int {
		ra, rb := a.Ref(), b.Ref()
		return cmp.Or(
			cmp.Compare(ranks[ra.Kind], ranks[rb.Kind]),
			cmp.Compare(ra.Group, rb.Group),
			cmp.Compare(ra.Kind, rb.Kind),
			cmp.Compare(ra.Namespace, rb.Namespace),
			cmp.Compare(ra.Name, rb.Name),
		)
	})
	return out
}
