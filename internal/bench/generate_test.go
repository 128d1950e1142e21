package bench

import (
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/discover"
	"github.com/sluicerun/sluice/internal/flux"
)

// The commits must not move: numbers of different days are compared. Whoever
// changes what is generated changes the hashes here and measures anew.
func TestGeneratedCommitsAreFixed(t *testing.T) {
	for want, o := range map[string]Options{
		"ecaeb99f92a29c0bde072925697118da92668494": {Kustomizations: 2, Objects: 20, Layers: 2, Replicas: 1},
		"ac7922735504214f547eabb68bcfbd8564ee1ece": {Kustomizations: 4, Objects: 3, Layers: 2},
	} {
		for range 2 {
			if got := generate(t, o).Head(); got != want {
				t.Errorf("%+v: commit %s, want %s", o, got, want)
			}
		}
	}
}

func TestGeneratedObjects(t *testing.T) {
	r := generate(t, Options{Kustomizations: 3, Objects: 20})
	steps := steps(t, r)
	if len(steps) != 1 || len(steps[0]) != 3 {
		t.Fatalf("%d steps, want 1 of 3 Kustomizations", len(steps))
	}
	for i, k := range steps[0] {
		if k.Name != name(i) || len(k.Objects) != 20 || k.WaitsFor != nil {
			t.Errorf("%s: %d objects, waits for %v; want %s, 20 objects, nothing to wait for", k.Name, len(k.Objects), k.WaitsFor, name(i))
		}
		kinds := map[string]int{}
		for _, o := range k.Objects {
			kinds[o.GetKind()]++
			if o.GetKind() == "Namespace" && o.GetName() != name(i) || o.GetKind() != "Namespace" && o.GetNamespace() != name(i) {
				t.Errorf("%s holds %s", name(i), flux.RefOf(o))
			}
		}
		want := map[string]int{"Namespace": 1, "Deployment": 3, "ConfigMap": 7, "ServiceAccount": 3, "Service": 2, "Role": 2, "RoleBinding": 2}
		if !reflect.DeepEqual(kinds, want) {
			t.Errorf("%s: %v, want %v", name(i), kinds, want)
		}
	}
}

// What other clients get must be what sluice builds from the commit, owner
// labels included, and in an order that dependsOn allows.
func TestStepsAreWhatSluiceBuilds(t *testing.T) {
	r := generate(t, Options{Kustomizations: 5, Objects: 24, Layers: 3, Replicas: 1})
	for _, commit := range []func() error{r.CommitNothing, r.CommitImage, r.CommitKustomization} {
		if err := commit(); err != nil {
			t.Fatal(err)
		}
		tree := os.DirFS(r.Dir)
		built := map[string]*flux.Kustomization{}
		for _, k := range kustomizations(t, tree) {
			built[k.ID.Name] = k
		}
		before := map[string]bool{}
		for _, step := range steps(t, r) {
			for _, k := range step {
				of := built[k.Name]
				if of == nil {
					t.Fatalf("sluice does not find %s", k.Name)
				}
				delete(built, k.Name)
				if got, want := k.Objects, render(t, tree, of); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %v, want %v", k.Name, got, want)
				}
				for _, d := range of.Spec.DependsOn {
					if !before[d.Name] {
						t.Errorf("%s is not after %s", k.Name, d.Name)
					}
				}
				if len(of.Spec.HealthChecks) != 1 || of.Spec.HealthChecks[0].Name != k.WaitsFor.GetName() || of.Spec.HealthChecks[0].Namespace != k.WaitsFor.GetNamespace() {
					t.Errorf("%s: waits for %s, its Kustomization for %v", k.Name, flux.RefOf(k.WaitsFor), of.Spec.HealthChecks)
				}
			}
			for _, k := range step {
				before[k.Name] = true
			}
		}
		if len(built) > 0 {
			t.Errorf("not in the steps: %v", built)
		}
	}
}

func TestLayers(t *testing.T) {
	for _, test := range []struct {
		options Options
		want    []int // Kustomizations by step, after one was added
	}{
		{Options{Kustomizations: 3, Objects: 2}, []int{4}},
		{Options{Kustomizations: 3, Objects: 2, Layers: 3}, []int{1, 1, 1, 1}},
		{Options{Kustomizations: 4, Objects: 2, Layers: 2}, []int{2, 2, 1}},
		{Options{Kustomizations: 1, Objects: 2, Layers: 1}, []int{1, 1}},
	} {
		r := generate(t, test.options)
		if err := r.CommitKustomization(); err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, step := range steps(t, r) {
			got = append(got, len(step))
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%+v: steps of %v Kustomizations, want %v", test.options, got, test.want)
		}
	}
}

func TestFurtherCommits(t *testing.T) {
	r := generate(t, Options{Kustomizations: 2, Objects: 40})
	before := contents(t, r)
	differ := func(what string, want ...string) {
		t.Helper()
		var got []string
		now := contents(t, r)
		for _, step := range steps(t, r) {
			for _, k := range step {
				for _, o := range k.Objects {
					if ref := flux.RefOf(o).String(); !reflect.DeepEqual(now[ref], before[ref]) {
						got = append(got, ref)
					}
				}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s changes %q, want %q", what, got, want)
		}
		before = now
	}
	if err := r.CommitNothing(); err != nil {
		t.Fatal(err)
	}
	differ("CommitNothing")
	first := r.Head()
	for range 2 {
		if err := r.CommitImage(); err != nil {
			t.Fatal(err)
		}
		differ("CommitImage", "Deployment/app-0000/deployment-0001")
	}
	if err := r.CommitKustomization(); err != nil {
		t.Fatal(err)
	}
	now := steps(t, r)[0]
	if got := now[len(now)-1]; got.Name != "app-0002" || len(got.Objects) != maxAdded || len(now) != 3 {
		t.Errorf("CommitKustomization: %d Kustomizations, the last is %s with %d objects; want 3, app-0002 with %d", len(now), got.Name, len(got.Objects), maxAdded)
	}
	// The checkout follows.
	added := "apps/app-0002/kustomization.yaml"
	if _, err := fs.Stat(os.DirFS(r.Dir), added); err != nil {
		t.Error(err)
	}
	if err := r.At(first); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Stat(os.DirFS(r.Dir), added); err == nil {
		t.Errorf("%s is still there at an earlier commit", added)
	}
}

func TestFolders(t *testing.T) {
	r := generate(t, Options{Kustomizations: 2, Objects: 3})
	for i, files := range r.Folders() {
		for file, content := range files {
			if got, err := os.ReadFile(r.Dir + "/" + folder(i) + file); err != nil || string(got) != content {
				t.Errorf("%s%s is %q in the checkout (%v), want %q", folder(i), file, got, err, content)
			}
		}
		if len(files) != 4 {
			t.Errorf("%s: %d files, want 3 objects and the list of them", folder(i), len(files))
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	err := Generate(t.TempDir(), Options{Objects: 1, Replicas: -1, Layers: 1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"0 Kustomizations", "1 objects per Kustomization", "1 layers of 0 Kustomizations", "-1 replicas"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	dir := t.TempDir()
	for i, wantErr := range []bool{false, true} {
		if err := Generate(dir, Options{Kustomizations: 1, Objects: 2}); (err != nil) != wantErr {
			t.Errorf("call %d: error %v", i, err)
		}
	}
}

func generate(t *testing.T, o Options) *Repository {
	t.Helper()
	r, err := New(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func steps(t *testing.T, r *Repository) [][]Kustomization {
	t.Helper()
	list, err := r.Steps()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// contents are all objects by reference.
func contents(t *testing.T, r *Repository) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, step := range steps(t, r) {
		for _, k := range step {
			for _, o := range k.Objects {
				all[flux.RefOf(o).String()] = o.Object
			}
		}
	}
	return all
}

// kustomizations are those that sluice finds.
func kustomizations(t *testing.T, tree fs.FS) []*flux.Kustomization {
	t.Helper()
	root := discover.DefaultRoot(Entry, namespace)
	built, err := build.Build(t.Context(), tree, root, build.Options{})
	if err != nil {
		t.Fatal(err)
	}
	found, err := discover.Split(root.ID, tree, built.Objects)
	if err != nil {
		t.Fatal(err)
	}
	return found.Kustomizations
}

// render are the objects of a Kustomization as sluice applies them.
func render(t *testing.T, tree fs.FS, k *flux.Kustomization) []*unstructured.Unstructured {
	t.Helper()
	built, err := build.Build(t.Context(), tree, k, build.Options{})
	if err != nil {
		t.Fatal(err)
	}
	labelled, err := build.Label(k, built.Objects)
	if err != nil {
		t.Fatal(err)
	}
	var list []*unstructured.Unstructured
	for _, o := range labelled {
		list = append(list, o.Unstructured)
	}
	return list
}
