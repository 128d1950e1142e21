//go:build unix

package kubetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// resetTimeout bounds the emptying of a cluster. Most of it is spent waiting for the namespace controller.
const resetTimeout = time.Minute

// resetInterval is the time between two looks at what is being deleted.
const resetInterval = 100 * time.Millisecond

// looks is how many of these looks there are before everything is looked at again: a controller may have made something anew.
const looks = 10

// lists is how many lists are asked for at once.
const lists = 4

// state is what a cluster holds at one time.
type state struct {
	objects    map[objectKey]object
	served     []string // every resource, and every document of the OpenAPI
	kubeconfig []byte
}

type objectKey struct {
	resource        schema.GroupVersionResource
	namespace, name string
}

func (k objectKey) String() string {
	return strings.TrimPrefix(k.resource.Group+"/"+k.resource.Resource+" "+k.namespace+"/"+k.name, "/")
}

type object struct {
	uid types.UID
	// content is a hash of all that a test could have changed and no controller does.
	content    [sha256.Size]byte
	finalizers bool
}

// cleaner looks at a cluster and empties it.
type cleaner struct {
	cluster   *Cluster
	discovery *discovery.DiscoveryClient
	client    dynamic.Interface
}

func newCleaner(c *Cluster) (*cleaner, error) {
	config := c.Config()
	config.WarningHandler = rest.NoWarnings{} // of kinds that are deprecated: all are listed
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return &cleaner{cluster: c, discovery: d, client: client}, nil
}

// look reads the whole cluster.
func (c *cleaner) look(ctx context.Context) (*state, error) {
	resources, served, err := c.resources(ctx)
	if err != nil {
		return nil, err
	}
	documents, err := c.discovery.OpenAPIV3WithContext(ctx).PathsWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the OpenAPI: %w", err)
	}
	s := &state{served: append(served, slices.Sorted(maps.Keys(documents))...)}
	if s.objects, err = c.list(ctx, resources); err != nil {
		return nil, err
	}
	s.kubeconfig, err = os.ReadFile(c.cluster.Kubeconfig())
	return s, err
}

// resources are those that can be listed and deleted, in one version each, and the names of all that are served. What an aggregated
// server that is gone would have served is left out.
func (c *cleaner) resources(ctx context.Context) (listable []schema.GroupVersionResource, served []string, err error) {
	found, err := discovery.ServerPreferredResources(c.discovery)
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, nil, fmt.Errorf("ask which resources are served: %w", err)
	}
	for _, list := range found {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, nil, err
		}
		for _, r := range list.APIResources {
			served = append(served, list.GroupVersion+" "+r.Name)
			// Events tell what has happened and nothing of what is.
			if slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "delete") && r.Name != "events" {
				listable = append(listable, gv.WithResource(r.Name))
			}
		}
	}
	slices.Sort(served)
	return listable, served, nil
}

func (c *cleaner) list(ctx context.Context, resources []schema.GroupVersionResource) (map[objectKey]object, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lists)
	found := make([]map[objectKey]object, len(resources))
	for i, r := range resources {
		found[i] = map[objectKey]object{}
		group.Go(func() error {
			all, err := c.client.Resource(r).List(ctx, metav1.ListOptions{})
			if apierrors.IsNotFound(err) {
				return nil // its definition has gone since
			}
			if err != nil {
				return fmt.Errorf("list %s: %w", r.GroupResource(), err)
			}
			for _, o := range all.Items {
				if r.Resource == "leases" && strings.HasPrefix(o.GetNamespace(), "kube-") {
					continue // the control plane's own, which come and go
				}
				content, err := contentOf(r, &o)
				if err != nil {
					return err
				}
				found[i][objectKey{r, o.GetNamespace(), o.GetName()}] = object{o.GetUID(), content, len(o.GetFinalizers()) > 0}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	all := map[objectKey]object{}
	for _, m := range found {
		maps.Copy(all, m)
	}
	return all, nil
}

// contentOf leaves out what controllers write at times of their own: in leases and nodes, that is all.
func contentOf(r schema.GroupVersionResource, o *unstructured.Unstructured) (sum [sha256.Size]byte, err error) {
	if r.Resource == "leases" || r.Resource == "nodes" {
		return sum, nil
	}
	rest := o.DeepCopy()
	for _, field := range []string{"resourceVersion", "generation", "managedFields"} {
		unstructured.RemoveNestedField(rest.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(rest.Object, "status")
	text, err := json.Marshal(rest.Object)
	if err != nil {
		return sum, fmt.Errorf("encode %s: %w", o.GetName(), err)
	}
	return sha256.Sum256(text), nil
}

// firstDay is what is in a new cluster, once its controllers have made what they make in every namespace.
func (c *cleaner) firstDay(ctx context.Context) (*state, error) {
	tick := time.NewTicker(resetInterval)
	defer tick.Stop()
	var before *state
	for {
		now, err := c.look(ctx)
		if err != nil {
			return nil, err
		}
		if before != nil && now.settled() && maps.Equal(now.objects, before.objects) && slices.Equal(now.served, before.served) {
			return now, nil
		}
		before = now
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// settled says whether every namespace has what the controllers put there.
func (s *state) settled() bool {
	namespaces, made := 0, 0
	for k := range s.objects {
		switch {
		case k.resource.Resource == "namespaces":
			namespaces++
		case k.resource.Resource == "serviceaccounts" && k.name == "default", k.resource.Resource == "configmaps" && k.name == "kube-root-ca.crt":
			made++
		}
	}
	return namespaces > 0 && made == 2*namespaces
}

// reset deletes all that is not in the state and waits until nothing of it is left. It fails if the cluster cannot be brought back
// to that state: something in it was changed or deleted, or does not go in time.
func (c *cleaner) reset(ctx context.Context, first *state) error {
	ctx, cancel := context.WithTimeoutCause(ctx, resetTimeout, fmt.Errorf("not empty after %s", resetTimeout))
	defer cancel()
	tick := time.NewTicker(resetInterval)
	defer tick.Stop()
	for {
		now, err := c.look(ctx)
		if err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		extra := now.beyond(first)
		if len(extra) == 0 {
			if err := now.damage(first); err != nil {
				return err
			}
			if slices.Equal(now.served, first.served) {
				return nil
			}
		}
		if err := c.remove(ctx, extra, now); err != nil {
			return err
		}
		// To look at everything costs much; for a while only what is to go matters.
		left := extra
		for range looks {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w: %v are left", context.Cause(ctx), left)
			case <-tick.C:
			}
			if len(left) == 0 {
				break
			}
			if left, err = c.left(ctx, left); err != nil {
				return err
			}
		}
	}
}

// left are those objects that still exist.
func (c *cleaner) left(ctx context.Context, keys []objectKey) ([]objectKey, error) {
	resources := map[schema.GroupVersionResource]bool{}
	for _, k := range keys {
		resources[k.resource] = true
	}
	now, err := c.list(ctx, slices.Collect(maps.Keys(resources)))
	if err != nil {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	return slices.DeleteFunc(slices.Clone(keys), func(k objectKey) bool { _, ok := now[k]; return !ok }), nil
}

// beyond are the objects that are not in the other state, those first that could stand in the way of deleting the rest.
func (s *state) beyond(other *state) []objectKey {
	var extra []objectKey
	for k := range s.objects {
		if _, ok := other.objects[k]; !ok {
			extra = append(extra, k)
		}
	}
	slices.SortFunc(extra, func(a, b objectKey) int {
		if d := turn(a) - turn(b); d != 0 {
			return d
		}
		return strings.Compare(a.String(), b.String())
	})
	return extra
}

// turn says when an object goes.
func turn(k objectKey) int {
	switch k.resource.Group {
	case "admissionregistration.k8s.io", "apiregistration.k8s.io":
		return 0
	case "apiextensions.k8s.io":
		return 2
	}
	if k.resource.Resource == "namespaces" {
		return 2
	}
	return 1
}

// damage says what of the first state is not there any more, or not as it was.
func (s *state) damage(first *state) error {
	for k, o := range first.objects {
		if now, ok := s.objects[k]; !ok || now.uid != o.uid || now.content != o.content {
			return fmt.Errorf("%s was changed or deleted", k)
		}
	}
	if !bytes.Equal(s.kubeconfig, first.kubeconfig) {
		return errors.New("the kubeconfig was changed")
	}
	return nil
}

// remove asks for the deletion of objects. Nobody serves their finalizers any more, so they go too, but for the API server's own.
func (c *cleaner) remove(ctx context.Context, keys []objectKey, now *state) error {
	background, at := metav1.DeletePropagationBackground, int64(0)
	for _, k := range keys {
		if k.resource.Resource == "ipaddresses" {
			continue // goes with its Service
		}
		client := c.client.Resource(k.resource).Namespace(k.namespace)
		if now.objects[k].finalizers && turn(k) != 2 {
			_, err := client.Patch(ctx, k.name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("take the finalizers off %s: %w", k, err)
			}
		}
		err := client.Delete(ctx, k.name, metav1.DeleteOptions{PropagationPolicy: &background, GracePeriodSeconds: &at})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete %s: %w", k, err)
		}
	}
	return nil
}
