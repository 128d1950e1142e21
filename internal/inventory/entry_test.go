package inventory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/object"
	"github.com/fluxcd/pkg/ssa"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
)

func TestEntryOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		ref  flux.Ref
		want string
	}{
		{"S5.1 core", flux.Ref{Version: "v1", Kind: "Service", Namespace: "default", Name: "podinfo"}, "default_podinfo__Service"},
		{"S5.1 cluster-scoped", flux.Ref{Version: "v1", Kind: "Namespace", Name: "podinfo"}, "_podinfo__Namespace"},
		{"S5.1 group", flux.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "apps", Name: "web"}, "apps_web_apps_Deployment"},
		{"S5.1 cluster-scoped with group", flux.Ref{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRole", Name: "view"},
			"_view_rbac.authorization.k8s.io_ClusterRole"},
		{"S5.2 colon", flux.Ref{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding", Namespace: "a", Name: "system:x:y"},
			"a_system__x__y_rbac.authorization.k8s.io_RoleBinding"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := EntryOf(tt.ref)
			if e.ID != tt.want || e.Version != tt.ref.Version {
				t.Errorf("EntryOf(%v) = %v, want id %q", tt.ref, e, tt.want)
			}
			back, err := e.Ref()
			if err != nil || back != tt.ref {
				t.Errorf("Ref() = %v, %v, want %v", back, err, tt.ref)
			}
		})
	}
}

// Ids, what is read back from them, and the order of deletion are those of Flux's own code, for names and kinds of any form that the
// server takes (S5.1, S5.2, S5.7).
func TestEntriesAreThoseOfUpstream(t *testing.T) {
	kinds := []schema.GroupVersionKind{
		{Version: "v1", Kind: "Namespace"}, {Version: "v1", Kind: "ConfigMap"}, {Version: "v1", Kind: "Secret"}, {Version: "v1", Kind: "Service"},
		{Group: "apps", Version: "v1", Kind: "Deployment"}, {Group: "batch", Version: "v1", Kind: "Job"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "Role"}, {Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRole"}, {Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRoleBinding"},
		{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}, {Group: "example.com", Version: "v1beta2", Kind: "Widget"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingWebhookConfiguration"}, {Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Kind: "Kustomization"},
	}
	r := rand.New(rand.NewPCG(3, 4))
	pick := func(alphabet string) string {
		text := ""
		for range 1 + r.IntN(6) {
			text += string(alphabet[r.IntN(len(alphabet))])
		}
		return "x" + text + "x"
	}
	for range 2000 {
		var objects []*unstructured.Unstructured
		var entries []Entry
		for range 1 + r.IntN(12) {
			o := &unstructured.Unstructured{}
			o.SetGroupVersionKind(kinds[r.IntN(len(kinds))])
			alphabet := "ab.-"
			if o.GroupVersionKind().Group == "rbac.authorization.k8s.io" {
				alphabet = "ab.-:"
			}
			o.SetName(pick(alphabet))
			if r.IntN(3) > 0 {
				o.SetNamespace(pick("ab-"))
			}
			entry := EntryOf(flux.RefOf(o))
			// This is how kustomize-controller makes an entry of a change set's.
			upstream := object.UnstructuredToObjMetadata(o)
			if want := (Entry{ID: upstream.String(), Version: o.GroupVersionKind().Version}); entry != want {
				t.Fatalf("got %v, want %v", entry, want)
			}
			parsed, err := object.ParseObjMetadata(entry.ID)
			ref, refErr := entry.Ref()
			if err != nil || refErr != nil || ref != flux.RefOf(o) || ref.Name != parsed.Name || ref.Namespace != parsed.Namespace {
				t.Fatalf("%q: read back as %v (%v), upstream as %v (%v)", entry.ID, ref, refErr, parsed, err)
			}
			if !Keys(entries)[entry.Key()] {
				objects, entries = append(objects, o), append(entries, entry)
			}
		}
		sorted, err := SortForDeletion(entries)
		if err != nil {
			t.Fatal(err)
		}
		// And this how it sorts for deletion.
		sort.Sort(sort.Reverse(ssa.SortableUnstructureds(objects)))
		for i, o := range objects {
			if want := EntryOf(flux.RefOf(o)); sorted[i] != want {
				t.Fatalf("position %d: got %v, want %v", i, sorted[i], want)
			}
		}
	}
}

func TestEntryRefRefusesWhatIsNoID(t *testing.T) {
	for _, id := range []string{"", "a", "a_b", "a_b_c", "ns__group_Kind", "ns_name_group_"} {
		_, err := Entry{ID: id, Version: "v1"}.Ref()
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", id)) {
			t.Errorf("Ref() of %q: error %v, want one that quotes it", id, err)
		}
	}
}

// random returns up to 12 entries of a small universe, so that sets overlap, with repeated ids and different versions.
func random(r *rand.Rand) []Entry {
	var entries []Entry
	for range r.IntN(12) {
		entries = append(entries, Entry{ID: fmt.Sprintf("ns_o%d__ConfigMap", r.IntN(10)), Version: fmt.Sprintf("v%d", r.IntN(2))})
	}
	return entries
}

func TestSetProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		a, b := random(r), random(r)
		aBefore, bBefore := slices.Clone(a), slices.Clone(b)
		diff, union, both := Diff(a, b), Union(a, b), Intersect(a, b)
		inA, inB := Keys(a), Keys(b)
		for id := range Keys(append(slices.Clone(a), b...)) {
			// S5.5: the version plays no part.
			if got, want := Keys(diff)[id], inA[id] && !inB[id]; got != want {
				t.Fatalf("Diff(%v, %v) = %v: %s in it is %t", a, b, diff, id, got)
			}
			if !Keys(union)[id] {
				t.Fatalf("Union(%v, %v) = %v loses %s", a, b, union, id)
			}
			if got, want := Keys(both)[id], inA[id] && inB[id]; got != want {
				t.Fatalf("Intersect(%v, %v) = %v: %s in it is %t", a, b, both, id, got)
			}
		}
		for _, set := range [][]Entry{diff, union, both} {
			if len(set) != len(Keys(set)) {
				t.Fatalf("of %v and %v: %v has an id twice", a, b, set)
			}
		}
		if len(union) != len(Keys(append(slices.Clone(a), b...))) {
			t.Fatalf("Union(%v, %v) = %v holds more than both", a, b, union)
		}
		// S5.3: the order is that of the change set, and stays when the union is made again.
		if unique := Diff(b, nil); !slices.Equal(union[:len(unique)], unique) {
			t.Fatalf("Union(%v, %v) = %v does not begin with the new entries", a, b, union)
		}
		if again := Union(union, b); !slices.Equal(again, union) {
			t.Fatalf("Union is not stable: %v, then %v", union, again)
		}
		// What was saved before apply, narrowed by what is stale, is what is wanted.
		if narrowed := Diff(union, Diff(a, b)); !slices.Equal(narrowed, Diff(b, nil)) {
			t.Fatalf("(%v ∪ %v) without the stale = %v", a, b, narrowed)
		}
		if !slices.Equal(a, aBefore) || !slices.Equal(b, bBefore) {
			t.Fatal("an argument was changed")
		}
	}
}

func TestS5_7_SortForDeletion(t *testing.T) {
	refs := []flux.Ref{
		{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition", Name: "x"},
		{Version: "v1", Kind: "Namespace", Name: "a"},
		{Version: "v1", Kind: "ConfigMap", Namespace: "a", Name: "b"},
		{Version: "v1", Kind: "ConfigMap", Namespace: "a", Name: "a"},
		{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "a", Name: "a"},
		{Group: "example.com", Version: "v1", Kind: "Widget", Namespace: "a", Name: "a"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingWebhookConfiguration", Name: "w"},
	}
	sorted, err := SortForDeletion(Entries(refs))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range sorted {
		ref, err := e.Ref()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ref.String())
	}
	want := []string{"ValidatingWebhookConfiguration/w", "Widget/a/a", "Deployment/a/a", "ConfigMap/a/b", "ConfigMap/a/a", "Namespace/a",
		"CustomResourceDefinition/x"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func FuzzEntryRef(f *testing.F) {
	f.Add("default_podinfo__Service")
	f.Add("_system__node_rbac.authorization.k8s.io_ClusterRole")
	for _, seed := range []string{"___", "", "ns_a_b_c_d", "../.._a__B", "ns_..__ConfigMap", "ns_a%2f__X", "_a:b_rbac.authorization.k8s.io_Role", "ns_a\n__X", "\xff_\xfe__Z"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		ref, err := Entry{ID: id}.Ref()
		if err != nil {
			if ref != (flux.Ref{}) || !strings.Contains(err.Error(), strconv.Quote(id)) {
				t.Errorf("%q: %v, %v", id, ref, err)
			}
			return
		}
		// What came from a parsed entry parses to the same object again.
		again, err := EntryOf(ref).Ref()
		if err != nil || again != ref {
			// Only names that no kind allows: "__" outside of RBAC comes back as ":".
			if !strings.ContainsAny(ref.Name, ":_") && !strings.Contains(ref.Namespace+ref.Kind+ref.Group, "_") {
				t.Errorf("%q: %v, then %v (%v)", id, ref, again, err)
			}
		}
	})
}
