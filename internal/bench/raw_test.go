//go:build unix

package bench

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/kustomize/api/krusty"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/discover"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// render builds every Kustomization of a generated repository and returns the
// objects of each as sluice applies them, owner labels included.
func render(tb testing.TB, tree fs.FS) [][]flux.Object {
	tb.Helper()
	var all [][]flux.Object
	for _, k := range kustomizations(tb, tree) {
		built, err := build.Build(tb.Context(), tree, k, build.Options{})
		if err != nil {
			tb.Fatal(err)
		}
		objects, err := build.Label(k, built.Objects)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, objects)
	}
	return all
}

// kustomizations are those of a generated repository.
func kustomizations(tb testing.TB, tree fs.FS) []*flux.Kustomization {
	tb.Helper()
	root := discover.DefaultRoot(Entry, namespace)
	built, err := build.Build(tb.Context(), tree, root, build.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	found, err := discover.Split(root.ID, tree, built.Objects)
	if err != nil {
		tb.Fatal(err)
	}
	return found.Kustomizations
}

// kustomizeAlone builds the folder of a Kustomization with nothing but the
// kustomize library, from files in memory, and returns the time it took and
// the objects with their owner labels. It saves a second build of the same
// folder, when one takes long.
func kustomizeAlone(tb testing.TB, tree fs.FS, k *flux.Kustomization) (time.Duration, []flux.Object) {
	tb.Helper()
	memory := filesys.MakeFsInMemory()
	err := fs.WalkDir(tree, k.Path(), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		return memory.WriteFile(path.Join("/", name), data)
	})
	if err != nil {
		tb.Fatal(err)
	}
	began := time.Now()
	built, err := krusty.MakeKustomizer(&krusty.Options{
		Reorder:          krusty.ReorderOptionNone,
		LoadRestrictions: kustypes.LoadRestrictionsNone,
		PluginConfig:     kustypes.DisabledPluginConfig(),
	}).Run(memory, path.Join("/", k.Path()))
	took := time.Since(began)
	if err != nil {
		tb.Fatal(err)
	}
	var objects []flux.Object
	for _, r := range built.Resources() {
		data, err := r.MarshalJSON()
		if err != nil {
			tb.Fatal(err)
		}
		o := flux.Object{Unstructured: &unstructured.Unstructured{}}
		if err := o.UnmarshalJSON(data); err != nil {
			tb.Fatal(err)
		}
		objects = append(objects, o)
	}
	labelled, err := build.Label(k, objects)
	if err != nil {
		tb.Fatal(err)
	}
	return took, labelled
}

// atOnce is how many requests the raw client has in flight.
const atOnce = 32

// raw is the client to compare with: it sends one server-side apply per
// object, and nothing else. It looks nothing up, compares nothing and repeats
// nothing.
type raw struct{ client dynamic.Interface }

func newRaw(tb testing.TB, c *kubetest.Cluster) raw {
	tb.Helper()
	client, err := dynamic.NewForConfig(c.Config())
	if err != nil {
		tb.Fatal(err)
	}
	return raw{client}
}

// resource is where objects like o are served. All generated kinds have the
// plural that is guessed.
func (r raw) resource(o *unstructured.Unstructured) dynamic.ResourceInterface {
	plural, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
	if o.GetNamespace() == "" {
		return r.client.Resource(plural)
	}
	return r.client.Resource(plural).Namespace(o.GetNamespace())
}

// apply applies all Namespaces, then everything else.
func (r raw) apply(ctx context.Context, objects []flux.Object) error {
	for _, first := range []bool{true, false} {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(atOnce)
		for _, o := range objects {
			if (o.GetKind() == "Namespace") != first {
				continue
			}
			group.Go(func() error {
				_, err := r.resource(o.Unstructured).Apply(ctx, o.GetName(), o.Unstructured,
					metav1.ApplyOptions{FieldManager: flux.FieldManager, Force: true})
				if err != nil {
					return fmt.Errorf("raw: apply %s: %w", o.Ref(), err)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// rollOut applies the objects and then watches the first Deployment of them
// until its roll-out is complete.
func (r raw) rollOut(ctx context.Context, objects []flux.Object) error {
	if err := r.apply(ctx, objects); err != nil {
		return err
	}
	for _, o := range objects {
		if o.GetKind() == "Deployment" {
			return r.await(ctx, o.Unstructured)
		}
	}
	return fmt.Errorf("raw: no Deployment among %d objects", len(objects))
}

func (r raw) await(ctx context.Context, o *unstructured.Unstructured) error {
	events, err := r.resource(o).Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", o.GetName()).String()})
	if err != nil {
		return fmt.Errorf("raw: watch Deployment %s: %w", o.GetName(), err)
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		live, ok := event.Object.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("raw: watch Deployment %s: unexpected %T", o.GetName(), event.Object)
		}
		var d appsv1.Deployment
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(live.Object, &d); err != nil {
			return err
		}
		if rolledOut(&d) {
			return nil
		}
	}
	return fmt.Errorf("raw: the watch of Deployment %s ended before its roll-out", o.GetName())
}

// rolledOut is what kubectl rollout status waits for.
func rolledOut(d *appsv1.Deployment) bool {
	want := *d.Spec.Replicas
	s := d.Status
	return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want
}

// flatten puts the objects of all Kustomizations into one list.
func flatten(all [][]flux.Object) []flux.Object {
	var list []flux.Object
	for _, objects := range all {
		list = append(list, objects...)
	}
	return list
}

// tail is the end of a log, for a failure.
func tail(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}
