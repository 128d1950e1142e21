package build_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/flux"
)

var update = flag.Bool("update", false, "write what the builds give into testdata")

// testCase is a file of testdata: the Kustomization in ks.yaml, the tree, and
// what comes of it in the files named want-….
type testCase struct {
	archive *txtar.Archive
	tree    fstest.MapFS
	k       *flux.Kustomization
}

func load(t *testing.T, file string) testCase {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := testCase{archive: archive, tree: fstest.MapFS{}}
	for _, f := range archive.Files {
		switch {
		case f.Name == "ks.yaml":
			c.k = parse(t, f.Data)
		case !strings.HasPrefix(f.Name, "want-"):
			c.tree[f.Name] = &fstest.MapFile{Data: f.Data}
		}
	}
	return c
}

// parse reads a Kustomization without the checks that discover makes.
func parse(t *testing.T, text []byte) *flux.Kustomization {
	t.Helper()
	k, err := loose(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func loose(text string) (*flux.Kustomization, error) {
	var typed kustomizev1.Kustomization
	var loose struct {
		Spec struct {
			ConfigMapGenerator    []map[string]any `json:"configMapGenerator"`
			PatchesStrategicMerge []map[string]any `json:"patchesStrategicMerge"`
			PatchesJSON6902       []map[string]any `json:"patchesJson6902"`
		} `json:"spec"`
	}
	if err := errors.Join(yaml.Unmarshal([]byte(text), &typed), yaml.Unmarshal([]byte(text), &loose)); err != nil {
		return nil, err
	}
	typed.Spec.SourceRef.Kind, typed.Spec.SourceRef.Name = "GitRepository", "repo"
	return &flux.Kustomization{
		ID:   flux.ID{Namespace: "flux-system", Name: "app"},
		Spec: typed.Spec,
		Extra: flux.Extra{
			ConfigMapGenerator:    loose.Spec.ConfigMapGenerator,
			PatchesStrategicMerge: loose.Spec.PatchesStrategicMerge,
			PatchesJSON6902:       loose.Spec.PatchesJSON6902,
		},
		File: "clusters/app.yaml",
		Line: 3,
	}, nil
}

// render writes what a build gave as the want- files.
func render(t *testing.T, result build.Result, err error) []txtar.File {
	t.Helper()
	var files []txtar.File
	add := func(name, text string) {
		if text != "" {
			files = append(files, txtar.File{Name: name, Data: []byte(text)})
		}
	}
	if err != nil {
		var b strings.Builder
		for _, e := range flux.Problems(err) {
			fmt.Fprintln(&b, e)
			if e.Hint() != "" {
				fmt.Fprintln(&b, "hint:", e.Hint())
			}
		}
		if b.Len() == 0 {
			t.Errorf("an error without an *flux.Problem: %v", err)
		}
		add("want-error", b.String())
		return files
	}
	var b strings.Builder
	for _, o := range result.Objects {
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "# %s\n%s", o.File, text)
	}
	if b.Len() == 0 {
		b.WriteString("# nothing\n")
	}
	add("want-objects", b.String())
	b.Reset()
	for _, n := range result.Notices {
		fmt.Fprintf(&b, "%s: %s: %s %s\n", n.Code, n.File, n.Object, n.Text)
		if n.Hint != "" {
			fmt.Fprintln(&b, "hint:", n.Hint)
		}
	}
	add("want-notices", b.String())
	return files
}

// TestBuild goes through testdata. The files are named after the facts.
// internal/upstream compares what they want with what Flux's own library makes
// of them.
func TestBuild(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			c := load(t, file)
			result, err := build.Build(context.Background(), c.tree, c.k, build.Options{})
			got := render(t, result, err)
			isWant := func(f txtar.File) bool { return strings.HasPrefix(f.Name, "want-") }
			if *update {
				c.archive.Files = append(slices.DeleteFunc(c.archive.Files, isWant), got...)
				if err := os.WriteFile(file, txtar.Format(c.archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			var want []txtar.File
			for _, f := range c.archive.Files {
				if isWant(f) {
					want = append(want, f)
				}
			}
			g, w := txtar.Format(&txtar.Archive{Files: got}), txtar.Format(&txtar.Archive{Files: want})
			if string(g) != string(w) {
				t.Errorf("%s\ngot\n%s\nwant\n%s", c.archive.Comment, g, w)
			}
		})
	}
}

// TestFiles: the files that were read are listed, sorted, and no others.
func TestFiles(t *testing.T) {
	tree := fstest.MapFS{
		"app/kustomization.yaml":  {Data: []byte("resources: [../base, z.yaml]\nconfigMapGenerator:\n- name: c\n  files: [data.txt]\n")},
		"app/z.yaml":              {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: z}\n")},
		"app/data.txt":            {Data: []byte("x")},
		"app/unused.yaml":         {Data: []byte("x")},
		"base/kustomization.yaml": {Data: []byte("resources: [a.yaml]\n")},
		"base/a.yaml":             {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")},
	}
	result, err := build.Build(context.Background(), tree, parse(t, []byte("spec: {path: app}")), build.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"app/data.txt", "app/kustomization.yaml", "app/z.yaml", "base/a.yaml", "base/kustomization.yaml"}
	if !slices.Equal(result.Files, want) {
		t.Errorf("files %q, want %q", result.Files, want)
	}
}

// TestPaths (S1.8): all spellings of a path are the same, and none leaves the
// tree.
func TestPaths(t *testing.T) {
	tree := fstest.MapFS{"a/b/x.yaml": {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")}}
	for _, p := range []string{"a/b", "./a/b", "/a/b", "a/b/", "a/../a/b", "../../a/b", "", ".", "/", "../.."} {
		result, err := build.Build(context.Background(), tree, parse(t, []byte("spec: {path: "+fmt.Sprintf("%q", p)+"}")), build.Options{})
		if err != nil {
			t.Errorf("%q: %v", p, err)
			continue
		}
		if len(result.Objects) != 1 || result.Objects[0].File != "a/b/x.yaml" {
			t.Errorf("%q: %v", p, result.Objects)
		}
	}
}

// TestOneBuildDoesNotReachTheNext (S2.26): a schema that one build sets is gone
// in the next one, also if the build failed.
func TestOneBuildDoesNotReachTheNext(t *testing.T) {
	with := load(t, "testdata/openapi.txtar")
	plain := load(t, "testdata/s2.26-unknown-kind.txtar")
	first, err := build.Build(context.Background(), plain.tree, plain.k, build.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := build.Build(context.Background(), with.tree, with.k, build.Options{}); err != nil {
		t.Fatal(err)
	}
	broken := load(t, "testdata/openapi.txtar")
	broken.tree["app/a.yaml"] = &fstest.MapFile{Data: []byte("a: b: c")}
	if _, err := build.Build(context.Background(), broken.tree, broken.k, build.Options{}); err == nil {
		t.Error("no error of a broken file")
	}
	second, err := build.Build(context.Background(), plain.tree, plain.k, build.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, b := render(t, first, nil), render(t, second, nil)
	if string(a[0].Data) != string(b[0].Data) {
		t.Errorf("the same build gave\n%s\nand then\n%s", a[0].Data, b[0].Data)
	}
}

// TestLinksAreNoFiles (S10.38): a link in a tree on disk does not exist.
func TestLinksAreNoFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("outside/secret.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: secret}\n")
	write("tree/app/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
	write("tree/listed/kustomization.yaml", "resources: [link.yaml, folder/secret.yaml]\n")
	for link, to := range map[string]string{
		"tree/app/link.yaml": "../../outside/secret.yaml", "tree/app/folder": "../../outside",
		"tree/listed/link.yaml": "../../outside/secret.yaml", "tree/listed/folder": "../../outside",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	tree := os.DirFS(filepath.Join(dir, "tree"))
	result, err := build.Build(context.Background(), tree, parse(t, []byte("spec: {path: app}")), build.Options{})
	if err != nil || len(result.Objects) != 1 || result.Objects[0].GetName() != "a" {
		t.Errorf("%v, %v", result.Objects, err)
	}
	_, err = build.Build(context.Background(), tree, parse(t, []byte("spec: {path: listed}")), build.Options{})
	all := flux.Problems(err)
	if len(all) != 2 || !strings.Contains(all[0].Error(), `"folder/secret.yaml" does not exist`) || !strings.Contains(all[1].Error(), `"link.yaml" does not exist`) {
		t.Errorf("errors %v", err)
	}
}

// TestDiskIsInvisible (S2.32): absolute paths of the machine are outside, and
// so is what looks like a clone that this build did not make.
func TestDiskIsInvisible(t *testing.T) {
	old, err := os.MkdirTemp("", "kustomize-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(old) })
	if err := os.WriteFile(filepath.Join(old, "x.txt"), []byte("private"), 0o600); err != nil {
		t.Fatal(err)
	}
	past := mustStat(t, "/").ModTime()
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/etc/passwd", filepath.Join(old, "x.txt"), "../../.." + filepath.Join(old, "x.txt")} {
		tree := fstest.MapFS{"app/kustomization.yaml": {Data: []byte("configMapGenerator:\n- name: x\n  files: [\"k=" + name + "\"]\n")}}
		result, err := build.Build(context.Background(), tree, parse(t, []byte("spec: {path: app}")), build.Options{})
		if err == nil {
			t.Errorf("%s was read: %v", name, result.Objects)
		}
	}
}

func mustStat(t *testing.T, name string) fs.FileInfo {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// TestNothingIsPrinted: deprecated fields become notices and nothing reaches
// standard error, where kustomize would write.
func TestNothingIsPrinted(t *testing.T) {
	stderr := os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stderr = w
	c := load(t, "testdata/s2.13-deprecated.txtar")
	result, err := build.Build(context.Background(), c.tree, c.k, build.Options{})
	restored := os.Stderr == w
	os.Stderr = stderr
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var printed [1]byte
	if n, _ := r.Read(printed[:]); n > 0 {
		t.Error("something was printed")
	}
	if !restored {
		t.Error("os.Stderr was not put back")
	}
	if len(result.Notices) != 3 {
		t.Errorf("notices %v", result.Notices)
	}
}

// TestStopped: a build that waits or runs ends with its context.
func TestStopped(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("interrupted"))
	c := load(t, "testdata/s2.3-generated.txtar")
	for range 20 {
		// Whether the turn or the end of the context is seen first is a
		// matter of chance; the result is not.
		_, err := build.Build(ctx, c.tree, c.k, build.Options{})
		if err != nil && !strings.Contains(err.Error(), "interrupted") {
			t.Errorf("error %v", err)
		}
	}
}

// TestGradeAPI builds all that the sample repository holds.
func TestGradeAPI(t *testing.T) {
	tree := os.DirFS("../../testdata/repos/grade-api")
	for p, want := range map[string]string{
		"clusters/production":         "Kustomization Namespace Kustomization Namespace ServiceAccount Deployment GitRepository Kustomization Kustomization Kustomization Kustomization",
		"clusters/staging":            "Kustomization Namespace ServiceAccount Deployment GitRepository Kustomization Kustomization Kustomization",
		"infrastructure/crds":         "CustomResourceDefinition Namespace Namespace",
		"infrastructure/cert-manager": "Namespace Deployment",
		"infrastructure/controllers":  "ServiceAccount Role RoleBinding Deployment IngressClass DaemonSet",
		"apps/production":             "Deployment Service Job Service StatefulSet GradeBook ConfigMap",
		"apps/staging":                "Deployment Service Job Service StatefulSet GradeBook ConfigMap",
		"apps/base/grade-web":         "Deployment Ingress Service",
	} {
		result, err := build.Build(context.Background(), tree, parse(t, []byte("spec: {path: "+p+"}")), build.Options{})
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		var kinds []string
		for _, o := range result.Objects {
			kinds = append(kinds, o.GetKind())
			if !slices.Contains(result.Files, o.File) {
				t.Errorf("%s: %s is from %q", p, o.Ref(), o.File)
			}
			if len(o.GetAnnotations()) > 0 && o.GetKind() != "Job" {
				t.Errorf("%s: %s has annotations %v", p, o.Ref(), o.GetAnnotations())
			}
		}
		if got := strings.Join(kinds, " "); got != want {
			t.Errorf("%s: got %s, want %s", p, got, want)
		}
	}
}
