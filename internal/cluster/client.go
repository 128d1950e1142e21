package cluster

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/retry"
)

// requestRetry bridges the restart of an API server or the fail-over of a load
// balancer: 14 attempts over half a minute, not in step with those of others.
var requestRetry = retry.Policy{Attempts: 14, Base: 200 * time.Millisecond, Max: 3 * time.Second, Factor: 2, Jitter: 0.25}

// unwellAttempts are those of them for a server that answers with errors of its
// own: some 12 seconds. It may be about this one request only.
const unwellAttempts = 8

// requestTimeout is a little more than the minute that the API server itself
// allows for a request, so it only ends those that a broken network holds.
const requestTimeout = 70 * time.Second

// retryingClient repeats requests by the classes of package faults. Reads,
// server-side applies and writes that hold for one version or UID of an object
// only mean the same however often they are sent, so any failure that may pass
// will do; a conflict needs a new read, which is the caller's to make. Other
// writes are repeated only when the server cannot have seen them.
//
// So a create that finds its object there, and a delete that does not, may be the
// second of two that this client sent.
type retryingClient struct {
	client.WithWatch
	policy retry.Policy
	// mapper is told of the first write.
	mapper *mapper
	on     *limits
}

// writes tells the mapper of a write, unless it is a dry run.
func (c *retryingClient) writes(dryRun []string) {
	if len(dryRun) == 0 {
		c.mapper.wrote.Store(true)
	}
}

// do sends a request, and again as long as its failures may pass; twice says
// whether it may be carried out twice.
func (c *retryingClient) do(ctx context.Context, twice bool, request func(context.Context) error) error {
	err := retry.Do(ctx, c.policy, func(ctx context.Context, attempt int) error {
		if attempt > 1 {
			c.on.again.Add(1)
		}
		err := request(ctx)
		class := faults.Of(err)
		name, isWebhook := faults.Webhook(err)
		switch {
		case err == nil:
			return nil
		case asWithdrawn(err) != nil:
			return retry.Permanent(asWithdrawn(err)) // without the request's address
		case class == faults.Silent:
			late := (*faults.SilenceError)(nil)
			errors.As(err, &late)
			return retry.Permanent(late) // without the request's address
		case !repeats(class, twice), isWebhook && c.on.down.has(name):
			return retry.Permanent(err)
		}
		if seconds, asked := apierrors.SuggestsClientDelay(err); asked && seconds > 0 {
			err = retry.After(err, time.Duration(seconds)*time.Second)
		}
		if class == faults.Unwell {
			return retry.AtMost(err, unwellAttempts)
		}
		return err
	})
	if name, isWebhook := faults.Webhook(err); isWebhook {
		c.on.down.note(name)
	}
	return err
}

// repeats reports whether a request is sent again after a failure of a class. A
// server that was busy has been asked again for minutes by then (see limited).
func repeats(class faults.Class, twice bool) bool {
	switch class {
	case faults.NoWay:
		return true
	case faults.Lost, faults.Unwell:
		return twice
	}
	return false
}

// webhooks are the admission webhooks that did not answer a moment ago, though
// they were given time. What else they are asked about fails at once: a
// Kustomization may have thousands of objects that they judge. It is safe for
// concurrent use.
type webhooks struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// webhookMemory is shorter than the pause before a Kustomization is tried again,
// unless that is very short.
const webhookMemory = 3 * time.Second

func (w *webhooks) has(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.last[name]
	return ok && time.Since(at) < webhookMemory
}

func (w *webhooks) note(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		w.last = map[string]time.Time{}
	}
	w.last[name] = time.Now()
}

func (c *retryingClient) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	return c.do(ctx, true, func(ctx context.Context) error { return c.WithWatch.Get(ctx, key, obj, opts...) })
}

func (c *retryingClient) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.do(ctx, true, func(ctx context.Context) error { return c.WithWatch.List(ctx, list, opts...) })
}

func (c *retryingClient) Watch(ctx context.Context, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
	var w watch.Interface
	err := c.do(ctx, true, func(ctx context.Context) error {
		var err error
		w, err = c.WithWatch.Watch(ctx, list, opts...)
		return err
	})
	return w, err
}

func (c *retryingClient) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	dryRun := (&client.PatchOptions{}).ApplyOptions(opts).DryRun
	c.writes(dryRun)
	twice := patch.Type() == types.ApplyPatchType || len(dryRun) > 0 || isConditional(obj, patch)
	return c.do(ctx, twice, func(ctx context.Context) error { return c.WithWatch.Patch(ctx, obj, patch, opts...) })
}

// isConditional reports whether a patch holds for one version of the object only.
func isConditional(obj client.Object, patch client.Patch) bool {
	if patch.Type() != types.JSONPatchType {
		return false
	}
	data, err := patch.Data(obj)
	return err == nil && bytes.Contains(data, []byte(`"/metadata/resourceVersion"`))
}

func (c *retryingClient) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	dryRun := (&client.CreateOptions{}).ApplyOptions(opts).DryRun
	c.writes(dryRun)
	// The server lets one object of a name be made; it gives a name itself
	// to one that has none.
	twice := obj.GetName() != "" || len(dryRun) > 0
	return c.do(ctx, twice, func(ctx context.Context) error { return c.WithWatch.Create(ctx, obj, opts...) })
}

func (c *retryingClient) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	dryRun := (&client.UpdateOptions{}).ApplyOptions(opts).DryRun
	c.writes(dryRun)
	twice := obj.GetResourceVersion() != "" || len(dryRun) > 0
	return c.do(ctx, twice, func(ctx context.Context) error { return c.WithWatch.Update(ctx, obj, opts...) })
}

func (c *retryingClient) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	options := (&client.DeleteOptions{}).ApplyOptions(opts)
	c.writes(options.DryRun)
	twice := options.Preconditions != nil || len(options.DryRun) > 0
	return c.do(ctx, twice, func(ctx context.Context) error { return c.WithWatch.Delete(ctx, obj, opts...) })
}
