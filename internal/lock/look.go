package lock

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Sighting is a lock as somebody sees it who does not want it.
type Sighting struct {
	// Lease is "Lease/namespace/name".
	Lease  string
	Holder Holder
	// Since is when the holder took it, by the holder's clock; zero if the Lease does not say.
	Since time.Time
	// Expires is when it frees itself if it is not renewed, by this machine's clock. Expired says that this has happened: the next
	// run takes it at once.
	Expires time.Time
	Expired bool
}

// Look says who holds a lock; nil if nobody does. It needs get on the Lease. The server's clock is asked by a dry run of a create;
// where the account may not do that, this machine's clock decides whether the lock has expired.
func Look(ctx context.Context, c Client, namespace, name string) (*Sighting, error) {
	s := &session{Options: Options{Namespace: namespace, Name: name}, client: c, started: time.Now()}
	var live coordinationv1.Lease
	err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &live)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the lock %s: %w", s.subject(), err)
	}
	if s.free(&live) {
		return nil, nil
	}
	seen := &Sighting{Lease: s.subject(), Holder: holderOf(&live)}
	if at := live.Spec.AcquireTime; at != nil {
		seen.Since = at.Time
	}
	if seen.Expires, err = s.expiry(ctx, &live); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		seen.Expires = lastWritten(&live).Add(lifetime(&live))
	}
	seen.Expired = !time.Now().Before(seen.Expires)
	return seen, nil
}
