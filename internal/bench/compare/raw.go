//go:build unix

package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/sluicerun/sluice/internal/bench"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// atOnce is how many requests the raw client has in flight.
const atOnce = 32

// raw is the client to compare with: it sends one server-side apply per
// object, and nothing else but a watch for each Deployment that is waited for.
// It looks nothing up, compares nothing and repeats nothing.
type raw struct{}

func (raw) name() string { return "raw" }

func (raw) counting() counting { return inside }

func (raw) deploy(ctx context.Context, _ *history, s state, c *kubetest.Cluster, _ *counter) (spent, error) {
	config, recorder := counted(c)
	began := time.Now()
	objects, err := newObjects(config)
	if err != nil {
		return spent{}, err
	}
	for _, step := range s.steps {
		if err := objects.applyAll(ctx, step); err != nil {
			return spent{}, err
		}
		if err := objects.awaitAll(ctx, step); err != nil {
			return spent{}, err
		}
	}
	return spent{wall: time.Since(began), requests: proxy.Count(recorder.Take())}, nil
}

// counted is a configuration whose requests are counted.
func counted(c *kubetest.Cluster) (*rest.Config, *proxy.Recorder) {
	config, recorder := c.Config(), &proxy.Recorder{}
	config.Wrap(recorder.Wrap)
	return config, recorder
}

// objects applies and watches objects.
type objects struct{ client dynamic.Interface }

func newObjects(config *rest.Config) (objects, error) {
	client, err := dynamic.NewForConfig(config)
	return objects{client}, err
}

// resource is where objects like o are served. All generated kinds have the
// plural that is guessed.
func (a objects) resource(o *unstructured.Unstructured) dynamic.ResourceInterface {
	plural, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
	if o.GetNamespace() == "" {
		return a.client.Resource(plural)
	}
	return a.client.Resource(plural).Namespace(o.GetNamespace())
}

// applyAll applies all Namespaces, then everything else.
func (a objects) applyAll(ctx context.Context, step []bench.Kustomization) error {
	for _, first := range []bool{true, false} {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(atOnce)
		for _, k := range step {
			for _, o := range k.Objects {
				if (o.GetKind() == "Namespace") != first {
					continue
				}
				group.Go(func() error {
					_, err := a.resource(o).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: flux.FieldManager, Force: true})
					if err != nil {
						return fmt.Errorf("apply %s: %w", flux.RefOf(o), err)
					}
					return nil
				})
			}
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// awaitAll watches what the step waits for until all of it is rolled out.
func (a objects) awaitAll(ctx context.Context, step []bench.Kustomization) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, k := range step {
		if k.WaitsFor != nil {
			group.Go(func() error { return a.await(ctx, k.WaitsFor) })
		}
	}
	return group.Wait()
}

func (a objects) await(ctx context.Context, o *unstructured.Unstructured) error {
	events, err := a.resource(o).Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", o.GetName()).String()})
	if err != nil {
		return fmt.Errorf("watch %s: %w", flux.RefOf(o), err)
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		live, ok := event.Object.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("watch %s: unexpected %T", flux.RefOf(o), event.Object)
		}
		var d appsv1.Deployment
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(live.Object, &d); err != nil {
			return fmt.Errorf("watch %s: %w", flux.RefOf(o), err)
		}
		if rolledOut(&d) {
			return nil
		}
	}
	return fmt.Errorf("the watch of %s ended before its roll-out", flux.RefOf(o))
}

// rolledOut is what kubectl rollout status waits for.
func rolledOut(d *appsv1.Deployment) bool {
	want := *d.Spec.Replicas
	s := d.Status
	return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want
}
