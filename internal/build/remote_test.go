package build_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/gittest"
)

func remote(resource string) fstest.MapFS {
	return fstest.MapFS{
		"app/kustomization.yaml": {Data: []byte("namePrefix: p-\nresources:\n- a.yaml\n- " + resource + "\n")},
		"app/a.yaml":             {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")},
	}
}

// TestRemoteFile (S2.34): a resource by URL.
func TestRemoteFile(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/x.yaml" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"))
	}))
	defer server.Close()
	result, err := build.Build(context.Background(), remote(server.URL+"/x.yaml"), parse(t, []byte("spec: {path: app}")), build.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Objects) != 2 || result.Objects[1].GetName() != "p-x" || result.Objects[1].File != "" {
		t.Errorf("objects %v", result.Objects)
	}
	_, err = build.Build(context.Background(), remote(server.URL+"/gone.yaml"), parse(t, []byte("spec: {path: app}")), build.Options{})
	if err == nil || !strings.Contains(err.Error(), "404") || !strings.Contains(err.Error(), "app/kustomization.yaml") || !strings.Contains(err.Error(), server.URL+"/gone.yaml") {
		t.Errorf("error %v", err)
	}
}

// TestRemoteFileThatHangs: the context ends a build that waits for a server.
func TestRemoteFileThatHangs(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
	}))
	defer server.Close()
	defer close(release)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-asked
		cancel()
	}()
	begin := time.Now()
	_, err := build.Build(ctx, remote(server.URL+"/x.yaml"), parse(t, []byte("spec: {path: app}")), build.Options{})
	if err == nil || !strings.Contains(err.Error(), "build stopped: context canceled") {
		t.Errorf("error %v", err)
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("stopped after %s", d)
	}
}

// TestRemoteRepository (S2.34): a base in another Git repository is cloned to a
// folder of the disk, read there, and removed.
func TestRemoteRepository(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	repo := gittest.New(t, "")
	repo.Commit("base", gittest.File("kustomization.yaml", "resources: [b.yaml]\n"),
		gittest.File("b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n"))
	url := gittest.Serve(t, repo, gittest.HTTP{}).URL + "/.git"
	result, err := build.Build(context.Background(), remote(url+"?ref=main"), parse(t, []byte("spec: {path: app}")), build.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Objects) != 2 || result.Objects[1].GetName() != "p-b" || result.Objects[1].File != "" {
		t.Errorf("objects %v", result.Objects)
	}
	left, err := os.ReadDir(os.TempDir())
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	_, err = build.Build(context.Background(), remote(url+"?ref=none"), parse(t, []byte("spec: {path: app}")), build.Options{})
	if err == nil || !strings.Contains(err.Error(), "app/kustomization.yaml") || !strings.Contains(err.Error(), "none") {
		t.Errorf("error %v", err)
	}
}

// TestNoRemoteBases (S2.34): with the flag everything that kustomize would
// fetch is an error with its place, all of them at once, and nothing is asked
// of the network. What only looks like it is not.
func TestNoRemoteBases(t *testing.T) {
	asked := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	defer server.Close()
	manifest := func(name string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n")}
	}
	tree := fstest.MapFS{
		"app/kustomization.yaml": {Data: []byte(strings.ReplaceAll(`resources:
- a.yaml
- URL/x.yaml
- https://user:hunter2@example.com/org/repo//path?ref=v1
- github.com/org/repo
- git@example.com:org/repo.git
- ../base
- team@v2/a.yaml
components:
- ssh://git@example.com/org/repo
openapi:
  path: URL/schema.json
patches:
- path: URL/patch.yaml
configMapGenerator:
- name: c
  files: [k=URL/file.txt, local.txt]
  envs: ["URL/x.env"]
generators:
- gen.yaml
transformers:
- |-
  apiVersion: builtin
  kind: PatchTransformer
  metadata: {name: p}
  path: URL/inline.yaml
`, "URL", server.URL))},
		"app/a.yaml":              manifest("a"),
		"app/team@v2/a.yaml":      manifest("team"),
		"app/local.txt":           {Data: []byte("x")},
		"app/gen.yaml":            {Data: []byte("apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: g}\nfiles:\n- " + server.URL + "/gen.txt\n")},
		"base/kustomization.yaml": {Data: []byte("resources:\n- b.yaml\n- file:///somewhere/else\n")},
		"base/b.yaml":             manifest("b"),
	}
	only := build.Options{NoRemoteBases: true}
	k := parse(t, []byte("spec: {path: app, configMapGenerator: [{name: d, files: ['"+server.URL+"/own.txt']}]}"))
	_, err := build.Build(context.Background(), tree, k, only)
	var got []string
	for _, e := range flux.Problems(err) {
		got = append(got, strings.ReplaceAll(e.Error(), server.URL, "URL"))
		if !strings.Contains(e.Hint(), "copy it into the repository") {
			t.Errorf("hint %q", e.Hint())
		}
	}
	const why = ` is remote, which --no-remote-bases forbids`
	want := []string{
		`flux-system/app: app/gen.yaml:5: generators: "URL/gen.txt"` + why,
		`flux-system/app: app/kustomization.yaml:3: resources: "URL/x.yaml"` + why,
		`flux-system/app: app/kustomization.yaml:4: resources: "https://user:xxxxx@example.com/org/repo//path?ref=v1"` + why,
		`flux-system/app: app/kustomization.yaml:5: resources: "github.com/org/repo"` + why,
		`flux-system/app: app/kustomization.yaml:6: resources: "git@example.com:org/repo.git"` + why,
		`flux-system/app: app/kustomization.yaml:10: components: "ssh://git@example.com/org/repo"` + why,
		`flux-system/app: app/kustomization.yaml:12: openapi: "URL/schema.json"` + why,
		`flux-system/app: app/kustomization.yaml:14: patches: "URL/patch.yaml"` + why,
		`flux-system/app: app/kustomization.yaml:17: configMapGenerator: "URL/file.txt"` + why,
		`flux-system/app: app/kustomization.yaml:18: configMapGenerator: "URL/x.env"` + why,
		`flux-system/app: app/kustomization.yaml:22: transformers: "URL/inline.yaml"` + why,
		`flux-system/app: base/kustomization.yaml:3: resources: "file:///somewhere/else"` + why,
		`flux-system/app: clusters/app.yaml:3: spec.configMapGenerator[0]: "URL/own.txt"` + why,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	select {
	case file := <-asked:
		t.Errorf("%s was downloaded", file)
	default:
	}

	// A generated file has no names of its own; a folder below has.
	generated := fstest.MapFS{"app/sub/kustomization.yaml": {Data: []byte("resources:\n- github.com/org/repo\n")}, "app/a.yaml": manifest("a")}
	_, err = build.Build(context.Background(), generated, parse(t, []byte("spec: {path: app}")), only)
	if err == nil || !strings.Contains(err.Error(), `app/sub/kustomization.yaml:2: resources: "github.com/org/repo"`) {
		t.Errorf("error %v", err)
	}

	// Without anything remote the flag changes nothing.
	c := load(t, "testdata/s2.14-spec.txtar")
	free, err := build.Build(context.Background(), c.tree, c.k, build.Options{})
	if err != nil {
		t.Fatal(err)
	}
	bound, err := build.Build(context.Background(), c.tree, c.k, only)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := render(t, free, nil), render(t, bound, nil); string(a[0].Data) != string(b[0].Data) {
		t.Errorf("got\n%s\nwant\n%s", b[0].Data, a[0].Data)
	}
}

// TestRemoteSchema (S2.26): a schema by URL adds to the built-in one as a file
// does, and is gone in the next build.
func TestRemoteSchema(t *testing.T) {
	c := load(t, "testdata/s2.26-schema-merges.txtar")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(c.tree["app/schema.json"].Data)
	}))
	defer server.Close()
	want, err := build.Build(context.Background(), c.tree, c.k, build.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.tree["app/kustomization.yaml"].Data = []byte("resources: [a.yaml, d.yaml]\nopenapi: {path: '" + server.URL + "/schema.json'}\n")
	got, err := build.Build(context.Background(), c.tree, c.k, build.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := render(t, got, nil), render(t, want, nil); string(a[0].Data) != string(b[0].Data) {
		t.Errorf("got\n%s\nwant\n%s", a[0].Data, b[0].Data)
	}
	c.tree["app/kustomization.yaml"].Data = []byte("resources: [a.yaml, d.yaml]\n")
	after, err := build.Build(context.Background(), c.tree, c.k, build.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := render(t, after, nil), render(t, want, nil); string(a[0].Data) == string(b[0].Data) {
		t.Error("the schema is still there")
	}
}

// TestRemoteBaseOfTheMachine: what git would fetch from the machine's own disk, or
// take for an option that names a program to run, is refused before git is
// asked, also if a remote base names it.
func TestRemoteBaseOfTheMachine(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	repo, far := gittest.New(t, ""), gittest.New(t, "")
	repo.Commit("base", gittest.File("kustomization.yaml", "resources: [b.yaml]\n"),
		gittest.File("b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n"))
	far.Commit("base", gittest.File("kustomization.yaml", "resources: ['"+repo.FileURL()+"']\n"))
	server := gittest.Serve(t, far, gittest.HTTP{})
	trace := filepath.Join(t.TempDir(), "run")
	for name, tc := range map[string]struct{ base, want string }{
		"folder":           {repo.FileURL(), "is a place on the machine"},
		"folder, forced":   {"GIT::FILE://" + repo.Dir, "is a place on the machine"},
		"option":           {server.URL + "/.git?ref=--upload-pack=touch+" + trace, "the ref is no name that Git admits"},
		"option, encoded":  {server.URL + "/.git?version=%2d-upload-pack=touch+" + trace, "the version is no name that Git admits"},
		"of a remote base": {server.URL + "/.git", "is a place on the machine"},
	} {
		_, err := build.Build(t.Context(), remote(tc.base), parse(t, []byte("spec: {path: app}")), build.Options{})
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "app/kustomization.yaml") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := os.Stat(trace); err == nil {
		t.Error("a program that the repository names was run")
	}
}
