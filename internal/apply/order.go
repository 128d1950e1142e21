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

// opening are the kinds that begin a wave: what sorts from one of them up to
// the next is applied at the same time. Between waves the order matters: a
// binding is refused to who is no administrator while its role is missing, a
// token of an account that does not exist is deleted, a quota or a limit counts
// for what comes after it, Pods wait long for a ConfigMap that comes too late,
// and webhooks would judge what belongs to their own servers. Inside a wave no
// object needs another.
var opening = []int{ranks["ClusterRoleBinding"], ranks["RoleBinding"], ranks["Deployment"], 0, ranks["MutatingWebhookConfiguration"]}

// waveOf is the number of a kind's wave.
func waveOf(kind string) int {
	n, _ := slices.BinarySearch(opening, ranks[kind]+1) // how many have opened by then
	return n
}

// waves yields the steps, which are sorted, by the waves of their kinds.
func waves(steps []*step) func(yield func([]*step) bool) {
	return func(yield func([]*step) bool) {
		for start := 0; start < len(steps); {
			end := start + 1
			for end < len(steps) && waveOf(steps[end].object.GetKind()) == waveOf(steps[start].object.GetKind()) {
				end++
			}
			if !yield(steps[start:end]) {
				return
			}
			start = end
		}
	}
}
