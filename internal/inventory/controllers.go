package inventory

import (
	"context"
	"fmt"
	"sort"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
)

var (
	deployments = schema.GroupResource{Group: "apps", Resource: "deployments"}
	leases      = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
)

const (
	// controllerNamespace is where Flux installs its controllers by default, controllerLease the Lease there that the one at work
	// holds.
	controllerNamespace = "flux-system"
	controllerLease     = "kustomize-controller-leader-election"
	// clockSkew is how far the clocks of the controller and of this machine may be apart.
	clockSkew = 30 * time.Second
)

// ControllerError says that a controller in the cluster reconciles the same Kustomizations. Both would act (S16.6).
type ControllerError struct {
	// Controllers are the Deployments or the Lease, Kustomizations what they reconcile, both sorted.
	Controllers    []string
	Kustomizations []flux.ID
}

func (e *ControllerError) Error() string {
	return fmt.Sprintf("%s is reconciling %s", join(e.Controllers), join(idStrings(e.Kustomizations)))
}

// Hint is the command to run.
func (e *ControllerError) Hint() string {
	first := e.Kustomizations[0]
	hint := fmt.Sprintf("suspend it first: flux suspend kustomization %s --namespace %s", first.Name, first.Namespace)
	if len(e.Kustomizations) > 1 {
		hint += "; and the others likewise (flux suspend kustomization --all --namespace …)"
	}
	return hint
}

func join(texts []string) string {
	const most = 5
	out := ""
	for i, t := range texts {
		switch {
		case i == most:
			return out + fmt.Sprintf(" and %d more", len(texts)-most)
		case i > 0:
			out += ", "
		}
		out += t
	}
	return out
}

// Reconciling returns a *ControllerError if a controller reconciles any of the Kustomizations asked for, or any that left Git: the object
// exists, is neither suspended nor being deleted, and a kustomize-controller runs. Else nil.
func (f *Facts) Reconciling() error {
	ids := f.active()
	if len(f.Controllers) == 0 || len(ids) == 0 {
		return nil
	}
	return &ControllerError{Controllers: f.Controllers, Kustomizations: ids}
}

// active returns, sorted, the Kustomizations that a controller would reconcile.
func (f *Facts) active() []flux.ID {
	var ids []flux.ID
	for _, all := range []map[flux.ID]Live{f.Live, f.Left} {
		for id, live := range all {
			if !live.Suspended && !live.Deleting {
				ids = append(ids, id)
			}
		}
	}
	sortIDs(ids)
	return ids
}

// controllers lists the Deployments of a kustomize-controller that are not scaled to nothing: one that is not ready at this moment will
// act in the next. If there is none, a controller that runs otherwise, or elsewhere, is known by its Lease.
func controllers(ctx context.Context, c Reader) ([]string, error) {
	found, err := controllerDeployments(ctx, c)
	if err != nil || len(found) > 0 {
		return found, err
	}
	lease := &coordinationv1.Lease{}
	err = c.Get(ctx, client.ObjectKey{Namespace: controllerNamespace, Name: controllerLease}, lease)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, Access(err, "find out whether Flux's kustomize-controller runs", "get", leases, controllerNamespace)
	}
	if !held(lease, time.Now()) {
		return nil, nil
	}
	return []string{"Lease/" + controllerNamespace + "/" + controllerLease}, nil
}

// held reports whether somebody renews a Lease. A controller that ends gives it back; one that was killed lets it expire.
func held(l *coordinationv1.Lease, now time.Time) bool {
	if l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == "" || l.Spec.RenewTime == nil || l.Spec.LeaseDurationSeconds == nil {
		return false
	}
	expires := l.Spec.RenewTime.Add(time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second)
	return now.Before(expires.Add(clockSkew))
}

// controllerDeployments looks for both labels that Flux's own manifests carry: the first is the Deployment's selector, the second is
// kept by installations that rename the Deployment, as sharding does.
func controllerDeployments(ctx context.Context, c Reader) ([]string, error) {
	const doing = "find out whether Flux's kustomize-controller runs"
	found := map[string]bool{}
	for _, selector := range []client.MatchingLabels{
		{"app": "kustomize-controller"},
		{"app.kubernetes.io/component": "kustomize-controller"},
	} {
		var list appsv1.DeploymentList
		err := c.List(ctx, &list, selector)
		namespace := ""
		if forbidden(err) {
			namespace = controllerNamespace
			err = c.List(ctx, &list, selector, client.InNamespace(namespace))
		}
		if err != nil {
			return nil, Access(err, doing, "list", deployments, namespace)
		}
		for i := range list.Items {
			d := &list.Items[i]
			if d.Spec.Replicas == nil || *d.Spec.Replicas > 0 || d.Status.Replicas > 0 {
				found["Deployment/"+d.Namespace+"/"+d.Name] = true
			}
		}
	}
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	sort.Strings(names)
	return names, nil
}
