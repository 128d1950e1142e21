package plan

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// A group that discovery lists and whose server then does not answer spoils its
// own kinds, with a hint, and is not asked about for each of its objects. What
// else is wrong is told all the same, and the rest is planned.
func TestGroupThatDoesNotAnswer(t *testing.T) {
	p := newProver(t)
	var asked atomic.Int32
	o := p.options()
	o.Concurrency = 1
	o.Client = func(n *Node) (client.WithWatch, error) {
		c, err := p.client(n.User)
		if err != nil {
			return nil, err
		}
		down := func(gvk schema.GroupVersionKind) error {
			if gvk.Group != p.group {
				return nil
			}
			asked.Add(1)
			return apierrors.NewGenericServerResponse(http.StatusServiceUnavailable, "get", schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, "", "down", 0, true)
		}
		return interceptor.NewClient(c, interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				if err := down(o.GetObjectKind().GroupVersionKind()); err != nil {
					return err
				}
				return c.Get(ctx, key, o, opts...)
			},
			List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
				if err := down(l.GetObjectKind().GroupVersionKind()); err != nil {
					return err
				}
				return c.List(ctx, l, opts...)
			},
			Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
				if err := down(o.GetObjectKind().GroupVersionKind()); err != nil {
					return err
				}
				return c.Patch(ctx, o, patch, opts...)
			},
		}), nil
	}
	_, err := Make(t.Context(), o, []Node{p.node("apps", several("ConfigMap", "data: {a: b}", 3)+
		"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: wrong}\ndata: {a: [1]}\n"+
		"---\napiVersion: "+p.group+"/v1\nkind: Route\nmetadata: {name: a}\n"+
		"---\napiVersion: "+p.group+"/v1\nkind: Route\nmetadata: {name: b}\n"+
		"---\napiVersion: "+p.group+"/v1\nkind: Route\nmetadata: {name: c}\n")})
	var failed Errors
	if !errors.As(err, &failed) {
		t.Fatalf("got %v", err)
	}
	var names []string
	for _, e := range failed {
		names = append(names, e.Ref.Kind+"/"+e.Ref.Name)
		if e.Ref.Kind == "Route" && (!strings.Contains(e.Error(), "unable to handle the request") || !strings.Contains(e.Hint(), "APIService v1."+p.group)) {
			t.Errorf("%v (%s)", e, e.Hint())
		}
	}
	slices.Sort(names)
	if want := []string{"ConfigMap/wrong", "Route/a", "Route/b", "Route/c"}; !slices.Equal(names, want) {
		t.Errorf("failed %q, want %q", names, want)
	}
	if n := asked.Load(); n > 2 {
		t.Errorf("asked %d times", n)
	}
}
