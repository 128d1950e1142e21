// Package rehearse plays the server-side apply of one object without writing.
//
// The apply functions of fluxcd/pkg/ssa read the live object, send a dry run,
// and, when those two differ, write. A [Client] stands between them and the
// server: it writes down both answers, and in place of a write it returns
// [ErrWrite]. Which of the three happened, end without a write, a failing dry
// run, or an attempt to write, is the object's classification, decided by the
// very code that will apply it. Played again from the answers written down, the
// same functions go on to the write and ask the server nothing a second time.
//
// A Client is for one object and one goroutine.
package rehearse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ErrWrite is returned in place of a write.
var ErrWrite = errors.New("a rehearsal does not write")

// Answer is what a server said to one request. Exactly one field is set, but
// for a live object that does not exist, where both are nil.
type Answer struct {
	Object *unstructured.Unstructured
	Err    error
}

// Client is a client for the apply of one object.
type Client struct {
	client.WithWatch

	// Live and DryRun are the last answers to Get and to a dry-run apply,
	// nil if there was none. Written is the answer to the last write.
	Live, DryRun, Written *Answer
	// Cleaned is set once a write has been tried that only cleans up
	// metadata (S4.24).
	Cleaned bool
	// Migrated is set once a write has been tried that moves the managed
	// fields to another version of the kind, which comes before the dry run.
	Migrated bool
	// Firm makes the write of a [Perform] fail with a conflict if the object is
	// not as Live says: an existing one must be of the same version, and one that
	// was missing must not have values of others. It may be set before use.
	Firm bool

	perform     bool
	givenLive   *Answer
	givenDryRun *Answer
}

// New returns a client that asks real and refuses to write. An answer that is
// not nil is given, once, in place of asking.
func New(real client.WithWatch, live, dryRun *Answer) *Client {
	return &Client{WithWatch: real, givenLive: live, givenDryRun: dryRun}
}

// Perform returns a client that does write. An answer that is not nil is
// given, once, in place of asking.
func Perform(real client.WithWatch, live, dryRun *Answer) *Client {
	return &Client{WithWatch: real, givenLive: live, givenDryRun: dryRun, perform: true}
}

// Exists reports whether the last Get found the object.
func (c *Client) Exists() bool { return c.Live != nil && c.Live.Object != nil }

// Get reads the live object.
func (c *Client) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	into, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("a rehearsal reads unstructured objects, not %T", obj)
	}
	answer := c.givenLive
	c.givenLive = nil
	if answer == nil {
		answer = Ask(ctx, c.WithWatch, into, key, opts...)
	}
	c.Live = answer
	return answer.Fill(into, key)
}

// Stale reports whether the object changed between the reading and the dry run,
// so that a difference of the two says nothing: a controller may just have
// written to it. A dry run itself does not move the version.
func (c *Client) Stale() bool {
	return c.Exists() && c.DryRun != nil && c.DryRun.Object != nil &&
		c.DryRun.Object.GetResourceVersion() != c.Live.Object.GetResourceVersion()
}

// Appeared reports whether the dry run found an object that the reading did not.
func (c *Client) Appeared() bool {
	return c.Live != nil && c.Live.Err == nil && c.Live.Object == nil &&
		c.DryRun != nil && c.DryRun.Object != nil && c.DryRun.Object.GetResourceVersion() != ""
}

// Again is how often a stale rehearsal is repeated. An object that changes all
// the time is then applied as if it had drifted, which does no harm.
const Again = 3

// Ask reads a live object from the server. A missing one is an answer with
// both fields nil.
func Ask(ctx context.Context, c client.Client, like *unstructured.Unstructured, key client.ObjectKey, opts ...client.GetOption) *Answer {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(like.GroupVersionKind())
	err := c.Get(ctx, key, live, opts...)
	switch {
	case err == nil:
		return &Answer{Object: live}
	case apierrors.IsNotFound(err):
		return &Answer{}
	}
	return &Answer{Err: err}
}

// Fill puts a live object into into, or returns the error that the server
// would give; a missing object is its usual "not found".
func (a *Answer) Fill(into *unstructured.Unstructured, key client.ObjectKey) error {
	switch {
	case a.Err != nil:
		return a.Err
	case a.Object == nil:
		gvk := into.GroupVersionKind()
		plural, _ := meta.UnsafeGuessKindToResource(gvk)
		return apierrors.NewNotFound(schema.GroupResource{Group: gvk.Group, Resource: plural.Resource}, key.Name)
	}
	into.Object = a.Object.DeepCopy().Object
	return nil
}

// Patch answers a dry run and performs or refuses a write.
func (c *Client) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	into, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("a rehearsal applies unstructured objects, not %T", obj)
	}
	// ssa.Apply goes on when the live object cannot be read, and would then
	// miss the markers on it (S4.25). What could not be read is not written.
	if c.Live != nil && c.Live.Err != nil {
		return c.Live.Err
	}
	if IsDryRunApply(patch, opts) {
		return c.dryRun(ctx, into, patch, opts)
	}
	if patch.Type() == types.JSONPatchType {
		if c.DryRun == nil {
			c.Migrated = true
			// A dry run that was made before it need not hold after it.
			c.givenDryRun = nil
			if !c.perform {
				// Not refused: the dry run that follows may tell all the
				// same what the apply would do, and after a migration there
				// is always a write.
				return nil
			}
		} else {
			c.Cleaned = true
		}
	}
	if !c.perform {
		return ErrWrite
	}
	if patch.Type() == types.JSONPatchType {
		locked, err := lock(patch, into)
		if err != nil {
			return err
		}
		patch = locked
	} else if c.Firm {
		opts = c.firm(into, opts)
	}
	err := c.WithWatch.Patch(ctx, into, patch, opts...)
	c.Written = &Answer{Err: err}
	if err == nil {
		c.Written.Object = into.DeepCopy()
	}
	return err
}

// firm puts what was read into an apply as its condition. The server keeps
// neither version nor UID of a patch as a field that somebody owns. For a missing
// object it knows no such condition; an apply without force comes closest, since
// nothing can be in its way then.
func (c *Client) firm(into *unstructured.Unstructured, opts []client.PatchOption) []client.PatchOption {
	if c.Live == nil {
		return opts
	}
	seen := c.Live.Object
	if c.Written != nil && c.Written.Object != nil {
		seen = c.Written.Object // cleaned up or migrated since then
	}
	if seen != nil {
		into.SetUID(seen.GetUID())
		into.SetResourceVersion(seen.GetResourceVersion())
		return opts
	}
	mild := &client.PatchOptions{}
	mild.ApplyOptions(opts)
	mild.Force = nil
	return []client.PatchOption{mild}
}

func (c *Client) dryRun(ctx context.Context, into *unstructured.Unstructured, patch client.Patch, opts []client.PatchOption) error {
	answer := c.givenDryRun
	c.givenDryRun = nil
	if answer == nil {
		answer = AskDryRun(ctx, c.WithWatch, into.DeepCopy(), patch, opts...)
	}
	c.DryRun = answer
	if answer.Err != nil {
		return answer.Err
	}
	into.Object = answer.Object.DeepCopy().Object
	return nil
}

// AskDryRun sends a dry-run apply of obj, which is overwritten.
func AskDryRun(ctx context.Context, c client.Client, obj *unstructured.Unstructured, patch client.Patch, opts ...client.PatchOption) *Answer {
	if err := c.Patch(ctx, obj, patch, opts...); err != nil {
		return &Answer{Err: err}
	}
	return &Answer{Object: obj}
}

type quiet struct{}

// Quiet returns a context for requests whose warnings nobody wants: they are
// about an object in a place that is not its own.
func Quiet(ctx context.Context) context.Context { return context.WithValue(ctx, quiet{}, true) }

// IsQuiet reports whether the context is from [Quiet].
func IsQuiet(ctx context.Context) bool { return ctx.Value(quiet{}) != nil }

// IsDryRunApply reports whether a patch is a server-side apply that changes
// nothing.
func IsDryRunApply(patch client.Patch, opts []client.PatchOption) bool {
	options := &client.PatchOptions{}
	options.ApplyOptions(opts)
	return patch.Type() == types.ApplyPatchType && len(options.DryRun) > 0
}

// lock makes a JSON patch fail with a conflict if the object has changed since
// it was read. The clean-up of S4.24 replaces the whole list of managed fields;
// made from an older reading it would take away what others have come to own
// since then.
func lock(patch client.Patch, obj *unstructured.Unstructured) (client.Patch, error) {
	data, err := patch.Data(obj)
	if err != nil {
		return nil, err
	}
	var operations []json.RawMessage
	if err := json.Unmarshal(data, &operations); err != nil {
		return nil, fmt.Errorf("cannot read a JSON patch: %w", err)
	}
	version, err := json.Marshal(map[string]string{"op": "add", "path": "/metadata/resourceVersion", "value": obj.GetResourceVersion()})
	if err != nil {
		return nil, err
	}
	data, err = json.Marshal(append(operations, version))
	if err != nil {
		return nil, err
	}
	return client.RawPatch(types.JSONPatchType, data), nil
}

// Create, Update, Delete, DeleteAllOf and Apply are no part of an apply with
// ssa; a rehearsal refuses them all the same.

// Create refuses in a rehearsal.
func (c *Client) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	if !c.perform {
		return ErrWrite
	}
	return c.WithWatch.Create(ctx, obj, opts...)
}

// Update refuses in a rehearsal.
func (c *Client) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	if !c.perform {
		return ErrWrite
	}
	return c.WithWatch.Update(ctx, obj, opts...)
}

// Delete refuses in a rehearsal.
func (c *Client) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	if !c.perform {
		return ErrWrite
	}
	return c.WithWatch.Delete(ctx, obj, opts...)
}

// DeleteAllOf refuses in a rehearsal.
func (c *Client) DeleteAllOf(ctx context.Context, obj client.Object, opts ...client.DeleteAllOfOption) error {
	if !c.perform {
		return ErrWrite
	}
	return c.WithWatch.DeleteAllOf(ctx, obj, opts...)
}

// Apply refuses in a rehearsal.
func (c *Client) Apply(ctx context.Context, obj runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	if !c.perform {
		return ErrWrite
	}
	return c.WithWatch.Apply(ctx, obj, opts...)
}

// UnplacedHint is the remedy for an [IsUnplaced].
const UnplacedHint = "the path is in spec.ignore and not in the manifest: put the field into the manifest, or take the path out of spec.ignore"

// IsUnplaced reports whether ssa could not put the live value of an ignored
// field into what it would apply, because the manifest lacks the field (S4.34).
// The error names the path but not the object.
func IsUnplaced(err error) bool {
	return strings.Contains(err.Error(), "replace operation does not apply: doc is missing")
}

// IsUnknownResource reports whether the server does not serve the kind: the
// mapper does not find it, or the request's URL leads nowhere, which is what a
// definition looks like that was applied a moment ago.
func IsUnknownResource(err error) bool {
	return meta.IsNoMatchError(err) ||
		(apierrors.IsNotFound(err) && strings.Contains(err.Error(), "the server could not find the requested resource"))
}
