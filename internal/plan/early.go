package plan

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	ssaerrors "github.com/fluxcd/pkg/ssa/errors"
	"github.com/fluxcd/pkg/ssa/utils"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/definition"
)

// Objects whose namespace or kind comes with the run cannot be dry-run where
// they belong before something has been written. On an empty cluster that is
// nearly all of them, so what can be known of them is found out in other ways,
// once all else is judged:
//
//   - by the CustomResourceDefinition of the run, see package definition;
//   - by the few rules there are for kinds of which the server checks little
//     more than names ([plainFault]), at no request;
//   - by a dry run in another namespace, see [standIn].
//
// Each of these may only refuse what the server would refuse at its turn. What
// it lets pass is planned as [Create], since where the namespace or the kind is
// missing there can be no object; its real dry run is still to come, at its
// turn and before anything of its stage is written (S4.18). What none of them
// can look at stays [Later].
//
// That second dry run is what a first installation pays for being refused as a
// whole: one more request for each object that is neither a custom resource nor
// plain, about half of what repositories hold. To drop the one at its turn
// instead would be cheaper, but admission, quotas and rights in the real
// namespace would then be met by writes, some of which would have succeeded.

// foresee judges what has to wait, as far as that can be done now, and what the
// run's own definitions will say of the rest.
func (r *run) foresee(ctx context.Context) {
	f := &foresight{run: r, standIn: &standIn{owner: r.options.Owner.Field, coming: r.supply.mutators}}
	r.each(ctx, len(r.items), func(i int) {
		it := r.items[i]
		if !it.marked() {
			f.look(ctx, it)
		}
		if it.waits() {
			r.done.step(r.options.Progress, len(r.items))
		}
	})
}

// marked reports whether a marker may keep the object from being applied,
// whatever it holds.
func (it *item) marked() bool {
	o := it.node.Rules.SSA
	return utils.AnyInMetadata(it.object.Unstructured, o.ExclusionSelector) || utils.AnyInMetadata(it.object.Unstructured, o.IfNotPresentSelector)
}

// foresight is what foresee works with.
type foresight struct {
	*run
	standIn    *standIn
	namespaces places
}

func (f *foresight) look(ctx context.Context, it *item) {
	if it.err != nil || it.change.Action == "" || it.change.Action == Skipped {
		return
	}
	says := f.supply.definition(it)
	switch {
	case says == nil && (it.absent || it.homeless) && !f.supply.changesKind(it):
		f.elsewhere(ctx, it)
	case says == nil:
		// The server has said all there is, or nothing can be said.
	case it.otherwise:
		// If it exists, values that it has already may be tolerated, and
		// what its manifest leaves out may be there.
		f.misfit(it, says.CheckFields(it.object.Unstructured))
	case it.waits():
		misfit, sure := f.check(ctx, it, says)
		f.misfit(it, misfit)
		if misfit == nil && sure {
			it.foreseen()
		}
		if it.err == nil && says.Namespaced && !it.absent {
			f.placed(ctx, it)
		}
	case it.change.Action == Recreate, it.live != nil && it.live.Err == nil && it.live.Object == nil:
		// What the server said is by the definition that it has now.
		misfit, _ := f.check(ctx, it, says)
		f.misfit(it, misfit)
	default:
		f.misfit(it, says.CheckFields(it.object.Unstructured))
	}
}

// check judges an object as a new one. It is not sure of one that may be changed
// before the server looks at its values.
func (f *foresight) check(ctx context.Context, it *item, says *definition.Definition) (misfit error, sure bool) {
	misfit = says.Check(it.object.Unstructured)
	if misfit == nil || !f.mutated(ctx, it, says) {
		return misfit, true
	}
	return says.CheckFields(it.object.Unstructured), false
}

// mutated reports whether something may change objects of a definition on their
// way in: fill in what is required, or correct a value. A server looks at the
// values only after that, but at the fields before it.
func (f *foresight) mutated(ctx context.Context, it *item, says *definition.Definition) bool {
	if f.supply.registrar {
		return true
	}
	plural := strings.TrimSuffix(says.Name, "."+says.Kind.Group)
	return f.standIn.mutated(ctx, it.client, it.node.Access+"\x00"+it.node.User, it.gvk.GroupVersion().WithResource(plural))
}

func (f *foresight) misfit(it *item, misfit error) {
	if misfit == nil {
		return
	}
	hint := ""
	if e := (*definition.Misfit)(nil); errors.As(misfit, &e) {
		hint = e.Hint()
	}
	it.refuse(fmt.Errorf("%s %w", it.object.Ref(), misfit), hint)
}

// placed looks whether the namespace of a custom resource will be there. Of
// others the server says so.
func (f *foresight) placed(ctx context.Context, it *item) {
	name := it.object.GetNamespace()
	if f.supply.declared[name] || !f.namespaces.missing(ctx, it) {
		return
	}
	if reason, ok := f.supply.excuseNamespace(it, name); ok {
		it.change.Reason += "; " + reason
		return
	}
	err := apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, name)
	it.refuse(ssaerrors.NewDryRunErr(err, it.object.Unstructured), "")
}

// places are namespaces that were asked for, each once. It is safe for
// concurrent use.
type places struct{ known sync.Map }

// missing reports whether the namespace of an item does not exist; not if that
// cannot be told.
func (p *places) missing(ctx context.Context, it *item) bool {
	name := it.object.GetNamespace()
	ask, _ := p.known.LoadOrStore(it.node.Access+"\x00"+it.node.User+"\x00"+name, sync.OnceValue(func() bool {
		namespace := &unstructured.Unstructured{}
		namespace.SetGroupVersionKind(namespaceGVK)
		return apierrors.IsNotFound(it.client.Get(ctx, client.ObjectKey{Name: name}, namespace))
	}))
	return ask.(func() bool)()
}

// elsewhere judges an object in a namespace that does not exist yet.
func (f *foresight) elsewhere(ctx context.Context, it *item) {
	if fault, plain := plainFault(it.object.Unstructured); plain {
		if fault == nil {
			it.foreseen()
			return
		}
		it.refuse(ssaerrors.NewDryRunErr(fault, it.object.Unstructured), "")
		return
	}
	if f.outages.spoils(it) {
		return
	}
	switch accepted, err := f.standIn.ask(ctx, it); {
	case err != nil:
		it.fail(ssaerrors.NewDryRunErr(err, it.object.Unstructured), "")
		f.giveUp(it)
	case accepted:
		it.foreseen()
	}
}

// foreseen plans an object that was found to be good as one to be created,
// unless something that the run starts may create it first.
func (it *item) foreseen() {
	if it.homeless {
		return
	}
	it.set(Create, it.change.Reason)
	it.change.Merged = nil
	it.change.Images = imageChanges(nil, it.object.Unstructured)
}

// refuse fails an object that is invalid, whoever found that.
func (it *item) refuse(err error, hint string) {
	it.err = &ObjectError{Node: it.node.ID, Ref: it.object.Ref(), File: it.object.File, Class: Invalid, Err: err, hint: hint}
}
