package retry

import (
	"context"
	"time"
)

// Outlive returns a context that ends a little after ctx does: for a request that must not be torn, since its effect would be
// unknown, or for what is the answer to ctx's end. Its cause is then that of ctx. The function frees what it holds; call it.
func Outlive(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, func() { cancel(context.Cause(ctx)) })
		context.AfterFunc(longer, func() { timer.Stop() })
	})
	return longer, func() { stop(); cancel(nil) }
}
