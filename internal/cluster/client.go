package cluster

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/retry"
)

// requestRetry bridges the restart of an API server or the fail-over of a
// load balancer: eight attempts over about 12 seconds.
var requestRetry = retry.Policy{Attempts: 8, Base: 200 * time.Millisecond, Max: 3 * time.Second, Factor: 2}

// requestTimeout is a little more than the minute that the API server itself
// allows for a request, so it only ends those that a broken network holds.
const requestTimeout = 70 * time.Second

// retryingClient repeats requests whose failure is transient. Reads and
// server-side applies mean the same however often they are sent, so any
// transient failure but a conflict will do; a conflict needs a new read, which
// is the caller's to make. Other writes are repeated only when the server
// cannot have seen them.
type retryingClient struct {
	client.WithWatch
	policy retry.Policy
	// mapper is told of the first write.
	mapper *mapper
}

// writes tells the mapper of a write, unless it is a dry run.
func (c *retryingClient) writes(dryRun []string) {
	if len(dryRun) == 0 {
		c.mapper.wrote.Store(true)
	}
}

func (c *retryingClient) do(ctx context.Context, may func(error) bool, request func(context.Context) error) error {
	return retry.Do(ctx, c.policy, func(ctx context.Context, _ int) error {
		err := request(ctx)
		switch {
		case err == nil:
			return nil
		case !may(err):
			if late := (*silenceError)(nil); errors.As(err, &late) {
				err = late // without the request's address
			}
			return retry.Permanent(err)
		}
		if seconds, asked := apierrors.SuggestsClientDelay(err); asked && seconds > 0 {
			return retry.After(err, time.Duration(seconds)*time.Second)
		}
		return err
	})
}

// repeatable is for what may be carried out twice. A server that was busy has
// been asked again for minutes by then (see limited).
func repeatable(err error) bool {
	return Transient(err) && !apierrors.IsConflict(err) && !apierrors.IsTooManyRequests(err)
}

func (c *retryingClient) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	return c.do(ctx, repeatable, func(ctx context.Context) error { return c.WithWatch.Get(ctx, key, obj, opts...) })
}

func (c *retryingClient) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.do(ctx, repeatable, func(ctx context.Context) error { return c.WithWatch.List(ctx, list, opts...) })
}

func (c *retryingClient) Watch(ctx context.Context, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
	var w watch.Interface
	err := c.do(ctx, repeatable, func(ctx context.Context) error {
		var err error
		w, err = c.WithWatch.Watch(ctx, list, opts...)
		return err
	})
	return w, err
}

func (c *retryingClient) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	c.writes((&client.PatchOptions{}).ApplyOptions(opts).DryRun)
	may := notSent
	if patch.Type() == types.ApplyPatchType {
		may = repeatable
	}
	return c.do(ctx, may, func(ctx context.Context) error { return c.WithWatch.Patch(ctx, obj, patch, opts...) })
}

func (c *retryingClient) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	c.writes((&client.CreateOptions{}).ApplyOptions(opts).DryRun)
	return c.do(ctx, notSent, func(ctx context.Context) error { return c.WithWatch.Create(ctx, obj, opts...) })
}

func (c *retryingClient) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	c.writes((&client.UpdateOptions{}).ApplyOptions(opts).DryRun)
	return c.do(ctx, notSent, func(ctx context.Context) error { return c.WithWatch.Update(ctx, obj, opts...) })
}

func (c *retryingClient) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	c.writes((&client.DeleteOptions{}).ApplyOptions(opts).DryRun)
	return c.do(ctx, notSent, func(ctx context.Context) error { return c.WithWatch.Delete(ctx, obj, opts...) })
}
