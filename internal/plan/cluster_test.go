package plan

import (
	"context"
	"errors"
	"slices"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/apply"
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

// ignore is a spec with ignored paths.
func ignore(paths ...string) kustomizev1.KustomizationSpec {
	return kustomizev1.KustomizationSpec{Ignore: []kustomizev1.IgnoreRule{{Paths: paths}}}
}

// applyStaged applies a planned node and waits for its definitions.
func (b *bench) applyStaged(p *Plan, n Node) {
	b.t.Helper()
	if _, err := apply.Apply(b.t.Context(), p.Client(n.ID, b.admin()), n.Objects, apply.Options{StageWait: b.established}); err != nil {
		b.t.Fatal(err)
	}
}
