package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// connect returns a client of the test cluster that acts as user, or as an administrator if user is empty.
func connect(t *testing.T, user string) client.WithWatch {
	t.Helper()
	config := kubetest.Shared(t).Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: user}
	c, err := client.NewWithWatch(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// requests counts the requests of a client by verb.
type requests struct {
	client.WithWatch
	mu    sync.Mutex
	verbs []string
}

func (r *requests) note(verb string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verbs = append(r.verbs, verb)
}

func (r *requests) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	r.note("get")
	return r.WithWatch.Get(ctx, key, o, opts...)
}

func (r *requests) List(ctx context.Context, l client.ObjectList, opts ...client.ListOption) error {
	r.note("list")
	return r.WithWatch.List(ctx, l, opts...)
}

func (r *requests) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	r.note("create")
	return r.WithWatch.Create(ctx, o, opts...)
}

func (r *requests) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	r.note("update")
	return r.WithWatch.Update(ctx, o, opts...)
}

// stores runs a test against both kinds of store.
func stores(t *testing.T, test func(t *testing.T, open func() Store)) {
	t.Run("memory", func(t *testing.T) {
		shared := &MemoryStore{}
		test(t, func() Store { return shared })
	})
	t.Run("cluster", func(t *testing.T) {
		c := connect(t, "")
		namespace := kubetest.Namespace(t, kubetest.Shared(t))
		test(t, func() Store { return NewClusterStore(c, namespace) })
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStoreKeepsWhatIsSaved(t *testing.T) {
	stores(t, func(t *testing.T, open func() Store) {
		ctx := t.Context()
		s := open()
		state, err := s.Load(ctx, rootID)
		must(t, err)
		if state.Root != nil || len(state.Records) > 0 || len(state.Foreign) > 0 {
			t.Fatalf("a new store holds %+v", state)
		}
		small, large := sample(3), sample(2000)
		large.ID.Name = "large"
		root := &Root{ID: rootID, Path: "clusters/production", Nodes: []flux.ID{small.ID, large.ID}}
		must(t, s.Save(ctx, small))
		must(t, s.Save(ctx, large))
		must(t, s.SaveRoot(ctx, root))
		// The same values go on from what was saved.
		small.Entries = append(small.Entries, Entry{ID: "a_b__ConfigMap", Version: "v1"})
		must(t, s.Save(ctx, small))
		root.Begin(Run{Commit: "abc"})
		must(t, s.SaveRoot(ctx, root))

		before, err := open().Versions(ctx, rootID)
		must(t, err)
		if len(before) != 3 {
			t.Errorf("the root has the versions %v", before)
		}
		if none, err := open().Versions(ctx, appsID); len(none) > 0 || err != nil {
			t.Errorf("a root that was never saved has the versions %v, %v", none, err)
		}
		state, err = open().Load(ctx, rootID)
		must(t, err)
		if !state.Versions.Same(before) {
			t.Errorf("the versions are %v, and of what was loaded %v", before, state.Versions)
		}
		if got := state.Records[small.ID]; got == nil || !slices.Equal(got.Entries, small.Entries) || !got.Stored() {
			t.Errorf("small: got %+v", got)
		}
		if got := state.Records[large.ID]; got == nil || !slices.Equal(got.Entries, large.Entries) {
			t.Errorf("large: got %+v", got)
		}
		if state.Root == nil || state.Root.Started.Commit != "abc" || len(state.Root.Nodes) != 2 {
			t.Errorf("root: got %+v", state.Root)
		}
		if got := state.Sorted(); len(got) != 2 || got[0].ID.Name != "apps" || got[1].ID.Name != "large" {
			t.Errorf("sorted: got %v", got)
		}
		must(t, state.CheckOrigin("./clusters/production/"))
		var origin *OriginError
		if err := state.CheckOrigin("clusters/staging"); !errors.As(err, &origin) ||
			err.Error() != `root "flux-system/flux-system" was last run from the folder "clusters/production", not from "clusters/staging"` {
			t.Errorf("got %v", err)
		}

		must(t, s.Delete(ctx, small))
		must(t, s.Delete(ctx, small))
		must(t, s.DeleteRoot(ctx, root))
		state, err = s.Load(ctx, rootID)
		must(t, err)
		if state.Root != nil || len(state.Records) != 1 || len(state.Versions) != 1 || state.Versions.Same(before) {
			t.Errorf("after deletion: got %+v", state)
		}
		// What is written again is not the same as before.
		large.Digest = "sha256:again"
		must(t, s.Save(ctx, large))
		after, err := s.Versions(ctx, rootID)
		must(t, err)
		if len(after) != 1 || after.Same(state.Versions) {
			t.Errorf("written again: %v, after %v", after, state.Versions)
		}
	})
}

func TestTwoWritersCannotOverwriteEachOther(t *testing.T) {
	stores(t, func(t *testing.T, open func() Store) {
		ctx := t.Context()
		must(t, open().Save(ctx, sample(1)))
		load := func() *Record {
			state, err := open().Load(ctx, rootID)
			must(t, err)
			return state.Records[appsID]
		}
		one, two, three := load(), load(), load()
		one.Digest = "sha256:one"
		must(t, open().Save(ctx, one))
		two.Digest = "sha256:two"
		var conflict *ConflictError
		if err := open().Save(ctx, two); !errors.As(err, &conflict) || conflict.Hint() == "" {
			t.Fatalf("the second writer got %v", err)
		}
		if err := open().Delete(ctx, three); !errors.As(err, &conflict) {
			t.Fatalf("deletion got %v", err)
		}
		fresh := sample(1)
		if err := open().Save(ctx, fresh); !errors.As(err, &conflict) {
			t.Fatalf("a writer that thinks it is the first got %v", err)
		}
		if got := load(); got.Digest != "sha256:one" {
			t.Errorf("the first writer's content became %q", got.Digest)
		}
		must(t, open().Delete(ctx, one))
		if err := open().Save(ctx, two); !errors.As(err, &conflict) {
			t.Fatalf("a write after the deletion got %v", err)
		}
	})
}

func TestKustomizationOfAnotherRoot(t *testing.T) {
	stores(t, func(t *testing.T, open func() Store) {
		ctx := t.Context()
		other := flux.ID{Namespace: "flux-system", Name: "other"}
		theirs := sample(1)
		theirs.Root = other
		must(t, open().Save(ctx, theirs))
		must(t, open().SaveRoot(ctx, &Root{ID: other}))
		state, err := open().Load(ctx, rootID)
		must(t, err)
		if state.Root != nil || len(state.Records) > 0 || state.Foreign[appsID] != other {
			t.Fatalf("got %+v", state)
		}
		owned := state.Owned([]flux.ID{rootID, appsID})
		if len(owned) != 1 || owned[0].Error() != `Kustomization "flux-system/apps" belongs to root "flux-system/other"` {
			t.Errorf("got %v", owned)
		}
		var typed *OwnedError
		if err := open().Save(ctx, sample(1)); !errors.As(err, &typed) || typed.Root != other {
			t.Errorf("a write got %v", err)
		}
	})
}

func TestLoadIsOneListAndWritesNothing(t *testing.T) {
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	c := &requests{WithWatch: connect(t, "")}
	s := NewClusterStore(c, namespace)
	for i := range 5 {
		r := sample(1)
		r.ID.Name = fmt.Sprint("k", i)
		must(t, s.Save(t.Context(), r))
	}
	c.verbs = nil
	state, err := s.Load(t.Context(), rootID)
	must(t, err)
	if len(state.Records) != 5 || !slices.Equal(c.verbs, []string{"list"}) {
		t.Errorf("%d records with %v", len(state.Records), c.verbs)
	}
}

func TestFirstWriteCreatesTheNamespace(t *testing.T) {
	c := &requests{WithWatch: connect(t, "")}
	namespace := kubetest.Namespace(t, kubetest.Shared(t)) + "-state"
	s := NewClusterStore(c, namespace)
	_, err := s.Load(t.Context(), rootID)
	must(t, err)
	if err := c.WithWatch.Get(t.Context(), client.ObjectKey{Name: namespace}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
		t.Fatalf("after a load: %v", err)
	}
	c.verbs = nil
	r := sample(1)
	must(t, s.Save(t.Context(), r))
	t.Cleanup(func() {
		must(t, c.WithWatch.Delete(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
	})
	if want := []string{"create", "create", "create"}; !slices.Equal(c.verbs, want) {
		t.Errorf("requests %v, want %v", c.verbs, want)
	}
	must(t, s.Save(t.Context(), r))
	must(t, s.EnsureNamespace(t.Context()))
}

// lossy carries out writes and loses the answers.
type lossy struct{ client.WithWatch }

var errLost = errors.New("connection reset by peer")

func (l lossy) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	if err := l.WithWatch.Create(ctx, o, opts...); err != nil {
		return err
	}
	return errLost
}

func (l lossy) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	if err := l.WithWatch.Update(ctx, o, opts...); err != nil {
		return err
	}
	return errLost
}

func TestWriteWhoseAnswerWasLostCanBeRepeated(t *testing.T) {
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	bad, good := NewClusterStore(lossy{c}, namespace), NewClusterStore(c, namespace)
	r := sample(2)
	for range 2 {
		if err := bad.Save(t.Context(), r); !errors.Is(err, errLost) {
			t.Fatalf("got %v", err)
		}
		must(t, good.Save(t.Context(), r))
		r.Digest = "sha256:other"
	}
	must(t, good.Save(t.Context(), r))
}

func TestMissingPermissionsAreNamed(t *testing.T) {
	admin := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "reader"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}}}}
	must(t, admin.Create(t.Context(), role))
	must(t, admin.Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "reader"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "reader"}}}))

	check := func(err error, verb, resource, where string) {
		t.Helper()
		var access *AccessError
		if !errors.As(err, &access) {
			t.Fatalf("got %v, want an AccessError", err)
		}
		if access.Verb != verb || access.Resource.Resource != resource || access.Namespace != where {
			t.Errorf("got %+v", access)
		}
		if want := fmt.Sprintf("not allowed to %s %s", verb, resource); !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q", err, want)
		}
		if !strings.Contains(access.Hint(), fmt.Sprintf("grant the verb %q on the resource %q", verb, resource)) {
			t.Errorf("got hint %q", access.Hint())
		}
	}
	_, err := NewClusterStore(connect(t, "nobody"), namespace).Load(t.Context(), rootID)
	check(err, "list", "configmaps", namespace)

	// The authorizer learns of the new Role in its own time; its cache is not ours to wait for but by asking.
	reader := NewClusterStore(connect(t, "reader"), namespace)
	for {
		if _, err := reader.Load(t.Context(), rootID); err == nil {
			break
		} else if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	check(reader.Save(t.Context(), sample(1)), "create", "configmaps", namespace)
	check(NewClusterStore(connect(t, "nobody"), namespace).EnsureNamespace(t.Context()), "create", "namespaces", "")
	// What is missing is not always what the request itself asks for.
	check(Access(apierrors.NewForbidden(schema.GroupResource{Resource: "serviceaccounts"}, "deployer", errors.New(
		`User "ci" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "apps"`)), "x", "get", configMaps, "other"),
		"impersonate", "serviceaccounts", "apps")
	// Nor is every answer with this code about permissions.
	var access *AccessError
	if err := Access(apierrors.NewForbidden(configMaps, "x", errors.New("exceeded quota: cannot have more")), "save x", "create", configMaps, "a"); errors.As(err, &access) {
		t.Errorf("got %v", err)
	}
}

func TestRecordsThatCannotBeRead(t *testing.T) {
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	s := NewClusterStore(c, namespace)
	for i := range 3 {
		r := sample(1)
		r.ID.Name = fmt.Sprint("k", i)
		must(t, s.Save(t.Context(), r))
	}
	for name, data := range map[string]string{"k0": "{", "k2": `{"schemaVersion": 4}`} {
		var cm corev1.ConfigMap
		must(t, c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "sluice.flux-system." + name}, &cm))
		cm.Data[recordKey] = data
		must(t, c.Update(t.Context(), &cm))
	}
	_, err := s.Load(t.Context(), rootID)
	var newer *NewerError
	var damaged *DamagedError
	if !errors.As(err, &newer) || !errors.As(err, &damaged) {
		t.Fatalf("got %v", err)
	}
	text := err.Error()
	if first, second := strings.Index(text, "sluice.flux-system.k0"), strings.Index(text, "sluice.flux-system.k2"); first < 0 || second < first {
		t.Errorf("got %q", text)
	}
	// Another root's records may be of a later version.
	state, err := s.Load(t.Context(), flux.ID{Namespace: "flux-system", Name: "other"})
	must(t, err)
	if len(state.Foreign) != 3 {
		t.Errorf("got %v", state.Foreign)
	}
}
