package plan

import (
	"context"
	"errors"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
)

// established is a wait between stages that is enough for definitions.
func (b *bench) established(ctx context.Context, refs []flux.Ref) error {
	for _, ref := range refs {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(ref.GVK().GroupVersion().WithKind(ref.Kind + "List"))
		w, err := b.admin().Watch(ctx, list, client.MatchingFields{"metadata.name": ref.Name})
		if err != nil {
			return err
		}
		for ok := false; !ok; {
			select {
			case e, open := <-w.ResultChan():
				if !open {
					return errors.New("the watch ended")
				}
				u, _ := e.Object.(*unstructured.Unstructured)
				conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
				ok = slices.ContainsFunc(conditions, func(v any) bool {
					m := v.(map[string]any)
					return m["type"] == "Established" && m["status"] == "True"
				})
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		w.Stop()
	}
	return nil
}

// withoutTimes are the managed fields without when they were written.
func withoutTimes(o *unstructured.Unstructured) []metav1.ManagedFieldsEntry {
	entries := o.GetManagedFields()
	for i := range entries {
		entries[i].Time = nil
	}
	return entries
}
