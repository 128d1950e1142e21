package plan

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/plan/proof"
)

// worthASchema is how many doubtful objects of a group version make its schema
// cheaper than as many dry runs: the index and the document are two requests,
// and large ones.
const worthASchema = 3

// schemasAtOnce is how many schemas are held in memory while they are read.
const schemasAtOnce = 2

// prove plans an item as Unchanged whose live object shows that by itself, and
// notes whether the schema of its kind may.
func (r *run) prove(it *item) {
	if it.live == nil || it.live.Object == nil {
		return
	}
	switch proof.Literal(it.object.Unstructured, it.live.Object, r.rules(it)) {
	case proof.Unchanged:
		it.proven()
	case proof.Doubtful:
		it.doubtful = true
	}
}

// settleDoubts plans those doubtful items as Unchanged of which the server's
// schema shows it. Whatever fails here only means that more is asked.
func (r *run) settleDoubts(ctx context.Context, items []*item) {
	byVersion := map[schema.GroupVersion][]*item{}
	for _, it := range items {
		// The object's kind by then is not what the server describes now.
		if !it.settled() && it.doubtful && !r.supply.changesKind(it) {
			gv := it.gvk.GroupVersion()
			byVersion[gv] = append(byVersion[gv], it)
		}
	}
	maps.DeleteFunc(byVersion, func(_ schema.GroupVersion, items []*item) bool { return len(items) < worthASchema })
	if r.options.Schemas == nil || len(byVersion) == 0 {
		return
	}
	versions := slices.SortedFunc(maps.Keys(byVersion), func(a, b schema.GroupVersion) int { return cmp.Compare(a.String(), b.String()) })
	r.eachOf(ctx, schemasAtOnce, len(versions), func(i int) { r.proveBySchema(ctx, versions[i], byVersion[versions[i]]) })
}

func (r *run) proveBySchema(ctx context.Context, gv schema.GroupVersion, items []*item) {
	kinds := map[string]bool{}
	for _, it := range items {
		kinds[it.gvk.Kind] = true
	}
	types, err := r.options.Schemas(ctx, gv, slices.Sorted(maps.Keys(kinds)))
	if err != nil {
		return // dry runs are as good, and whatever is wrong will show there
	}
	for _, it := range items {
		if proof.BySchema(it.object.Unstructured, it.live.Object, r.rules(it), types) {
			it.proven()
		}
	}
}

func (r *run) rules(it *item) proof.Rules {
	return proof.Rules{SSA: it.node.Rules.SSA, Manager: r.options.Owner.Field}
}

// proven plans an item that a dry run would show as it is.
func (it *item) proven() {
	it.dryRun = it.live
	it.set(Unchanged, "")
	it.letGo()
}
