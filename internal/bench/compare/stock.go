//go:build unix

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/ssa"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	runtimeclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// stock is Flux's library as Flux uses it, without the controllers around it:
// one call of ApplyAllStaged for all Kustomizations of a step. Controllers
// would make one call for each Kustomization, and poll what they wait for;
// here the Deployments are watched.
type stock struct {
	workers int // ResourceManager.SetConcurrency; Flux's default is 4
}

func (s stock) name() string { return fmt.Sprintf("ssa-%d", s.workers) }

func (stock) counting() counting { return inside }

func (s stock) deploy(ctx context.Context, _ *history, st state, c *kubetest.Cluster, _ *counter) (spent, error) {
	config, recorder := counted(c)
	// The library sorts and changes what it is given.
	steps := make([][]*unstructured.Unstructured, len(st.steps))
	for i, step := range st.steps {
		for _, k := range step {
			for _, o := range k.Objects {
				steps[i] = append(steps[i], o.DeepCopy())
			}
		}
	}
	began := time.Now()
	manager, err := s.manager(config)
	if err != nil {
		return spent{}, err
	}
	watches, err := newObjects(config)
	if err != nil {
		return spent{}, err
	}
	for i, step := range steps {
		if _, err := manager.ApplyAllStaged(ctx, step, ssa.DefaultApplyOptions()); err != nil {
			return spent{}, err
		}
		if err := watches.awaitAll(ctx, st.steps[i]); err != nil {
			return spent{}, err
		}
	}
	return spent{wall: time.Since(began), requests: proxy.Count(recorder.Take())}, nil
}

func (s stock) manager(config *rest.Config) (*ssa.ResourceManager, error) {
	http, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	mapper, err := apiutil.NewDynamicRESTMapper(config, http)
	if err != nil {
		return nil, err
	}
	client, err := runtimeclient.New(config, runtimeclient.Options{HTTPClient: http, Mapper: mapper})
	if err != nil {
		return nil, err
	}
	poller := polling.NewStatusPoller(client, mapper, polling.Options{})
	manager := ssa.NewResourceManager(client, poller, ssa.Owner{Field: flux.FieldManager, Group: flux.Group})
	manager.SetConcurrency(s.workers)
	return manager, nil
}
