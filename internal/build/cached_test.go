package build_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	fluxkustomize "github.com/fluxcd/pkg/apis/kustomize"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/source"
)

// memory is a cache that forgets nothing.
type memory struct {
	mu      sync.Mutex
	entries map[string][][2][]byte
	damaged []error
}

func newMemory() *memory { return &memory{entries: map[string][][2][]byte{}} }

func (m *memory) Find(key []byte, take func(head, body []byte) (bool, error)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range slices.Backward(m.entries[string(key)]) {
		ok, err := take(e[0], e[1])
		if err != nil {
			m.damaged = append(m.damaged, err)
		}
		if ok {
			return true
		}
	}
	return false
}

func (m *memory) Keep(key, head, body []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries[string(key)] = append(m.entries[string(key)], [2][]byte{bytes.Clone(head), bytes.Clone(body)})
}

// equal compares results, but for where they came from.
func equal(a, b build.Result) bool {
	a.Cached, a.Took, b.Cached, b.Took = false, 0, false, 0
	if len(a.Notices) == 0 && len(b.Notices) == 0 {
		a.Notices, b.Notices = nil, nil
	}
	if len(a.Files) == 0 && len(b.Files) == 0 {
		a.Files, b.Files = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// TestCached: what the cache has is what the build gave, to the type of each
// number, with its files and notices; and a failure is never in it.
func TestCached(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d files of test data: %v", len(files), err)
	}
	hits := 0
	for _, file := range files {
		c := load(t, file)
		m := newMemory()
		want, wantErr := build.Build(context.Background(), c.tree, c.k, build.Options{})
		first, firstErr := build.Build(context.Background(), c.tree, c.k, build.Options{Cache: m})
		second, secondErr := build.Build(context.Background(), c.tree, c.k, build.Options{Cache: m})
		if fmt.Sprint(firstErr) != fmt.Sprint(wantErr) || fmt.Sprint(secondErr) != fmt.Sprint(wantErr) {
			t.Errorf("%s: errors %v, %v and %v", file, wantErr, firstErr, secondErr)
		}
		if first.Cached || second.Cached != (wantErr == nil) {
			t.Errorf("%s: cached %v, then %v", file, first.Cached, second.Cached)
		}
		if !equal(want, first) || !equal(want, second) {
			t.Errorf("%s: got\n%s\nthen\n%s\nwant\n%s", file, text(t, first, firstErr), text(t, second, secondErr), text(t, want, wantErr))
		}
		if wantErr != nil && len(m.entries) > 0 {
			t.Errorf("%s: a failure was kept", file)
		}
		if second.Cached {
			hits++
		}
		for _, err := range m.damaged {
			t.Errorf("%s: %v", file, err)
		}
	}
	if hits < 50 {
		t.Errorf("%d hits", hits)
	}
}

// TestCacheKey: what shapes a build misses; what does not, hits.
func TestCacheKey(t *testing.T) {
	c := load(t, "testdata/s2.14-spec.txtar")
	m := newMemory()
	again := func(k *flux.Kustomization, o build.Options) bool {
		o.Cache = m
		result, err := build.Build(context.Background(), c.tree, k, o)
		if err != nil {
			t.Fatal(err)
		}
		return result.Cached
	}
	again(c.k, build.Options{Program: "v1"})
	for name, change := range map[string]func(*flux.Kustomization, *build.Options){
		"namespace": func(k *flux.Kustomization, _ *build.Options) { k.Spec.TargetNamespace += "x" },
		"prefix":    func(k *flux.Kustomization, _ *build.Options) { k.Spec.NamePrefix += "x" },
		"suffix":    func(k *flux.Kustomization, _ *build.Options) { k.Spec.NameSuffix += "x" },
		"patches":   func(k *flux.Kustomization, _ *build.Options) { k.Spec.Patches = nil },
		"images":    func(k *flux.Kustomization, _ *build.Options) { k.Spec.Images = []fluxkustomize.Image{{Name: "x"}} },
		"metadata": func(k *flux.Kustomization, _ *build.Options) {
			k.Spec.BuildMetadata = append(k.Spec.BuildMetadata, "originAnnotations")
		},
		"missing": func(k *flux.Kustomization, _ *build.Options) { k.Spec.IgnoreMissingComponents = true },
		"generator": func(k *flux.Kustomization, _ *build.Options) {
			k.Extra.ConfigMapGenerator = []map[string]any{{"name": "x"}}
		},
		"its id":         func(k *flux.Kustomization, _ *build.Options) { k.Name += "x" },
		"its file":       func(k *flux.Kustomization, _ *build.Options) { k.File += "x" },
		"remote bases":   func(_ *flux.Kustomization, o *build.Options) { o.NoRemoteBases = true },
		"another sluice": func(_ *flux.Kustomization, o *build.Options) { o.Program = "v2" },
	} {
		k, o := *c.k, build.Options{Program: "v1"}
		change(&k, &o)
		if again(&k, o) {
			t.Errorf("%s: hit", name)
		}
	}
	for name, change := range map[string]func(*flux.Kustomization){
		"nothing":    func(*flux.Kustomization) {},
		"its line":   func(k *flux.Kustomization) { k.Line++ },
		"its labels": func(k *flux.Kustomization) { k.Labels = map[string]string{"a": "b"} },
		"variables":  func(k *flux.Kustomization) { k.Spec.PostBuild = nil; k.Spec.Wait = true; k.Spec.Suspend = true },
		"metadata": func(k *flux.Kustomization) {
			k.Spec.CommonMetadata = nil
			k.Spec.Prune = !k.Spec.Prune
			k.Spec.ServiceAccountName = "x"
		},
	} {
		k := *c.k
		change(&k)
		if !again(&k, build.Options{Program: "v1"}) {
			t.Errorf("%s: missed", name)
		}
	}
}

// TestRemoteIsNotKept: what is fetched can change without a commit.
func TestRemoteIsNotKept(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		_, _ = fmt.Fprintf(w, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x%d}\n", asked)
	}))
	defer server.Close()
	ignored := []string{"merged", "beside another"} // by kustomize, which takes others in their place
	for name, kustomization := range map[string]string{
		"plain":          "resources: [%s]\n",
		"letters":        "Resources: [%s]\n",
		"beside another": "resources: [a.yaml]\nRESOURCES: [%s]\n",
		"merged":         "resources: [../merged]\n",
		"alias":          "resources: [../alias]\n",
		"transformer":    "resources: [a.yaml]\ntransformers:\n- |-\n  apiVersion: builtin\n  kind: PatchTransformer\n  metadata: {name: p}\n  path: %s\n",
	} {
		asked = 0
		tree := fstest.MapFS{
			"app/kustomization.yaml":    {Data: []byte("resources: [../base]\n")},
			"base/kustomization.yaml":   {Data: []byte(strings.ReplaceAll(kustomization, "%s", server.URL+"/x.yaml"))},
			"base/a.yaml":               {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x1}\n")},
			"merged/kustomization.yaml": {Data: []byte("metadata: &m {resources: [" + server.URL + "/x.yaml]}\n<<: *m\n")},
			"alias/kustomization.yaml":  {Data: []byte("metadata: {annotations: {a: &u " + server.URL + "/x.yaml}}\nresources: [*u]\n")},
		}
		m := newMemory()
		for range 2 {
			result, err := build.Build(context.Background(), tree, parse(t, []byte("spec: {path: app}")), build.Options{Cache: m})
			if result.Cached || len(m.entries) > 0 {
				t.Errorf("%s: kept (%v)", name, err)
			}
		}
		if asked == 0 && !slices.Contains(ignored, name) {
			t.Errorf("%s: nothing was fetched", name)
		}
		asked = 0
		_, err := build.Build(context.Background(), tree, parse(t, []byte("spec: {path: app}")), build.Options{NoRemoteBases: true})
		if err == nil && !slices.Contains(ignored, name) || asked > 0 {
			t.Errorf("%s: without remote bases: asked %d times, %v", name, asked, err)
		}
	}
}

// TestUnreadableIsNotKept: an error of the moment may have shaped the result.
func TestUnreadableIsNotKept(t *testing.T) {
	m := newMemory()
	tree := failing{fstest.MapFS{"app/a.yaml": {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")}}}
	for range 2 {
		result, err := build.Build(context.Background(), tree, parse(t, []byte("spec: {path: app}")), build.Options{Cache: m})
		if err != nil || result.Cached || len(m.entries) > 0 {
			t.Errorf("cached %v, %d kept, %v", result.Cached, len(m.entries), err)
		}
	}
	lfs := fstest.MapFS{
		"app/kustomization.yaml": {Data: []byte("configMapGenerator:\n- {name: c, files: [data.bin]}\n")},
		"app/data.bin":           {Data: []byte("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n")},
	}
	for range 2 {
		result, err := build.Build(context.Background(), lfs, parse(t, []byte("spec: {path: app}")), build.Options{Cache: m})
		if err != nil || result.Cached {
			t.Errorf("a pointer that is told when it is read: cached %v, %v", result.Cached, err)
		}
	}
}

// failing is a tree that cannot tell of one name whether it is there.
type failing struct{ fstest.MapFS }

func (f failing) Lstat(name string) (fs.FileInfo, error) {
	if path.Base(name) == "kustomization.yml" {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: errors.New("I/O error")}
	}
	return fs.Lstat(f.MapFS, name)
}

// named is a tree that knows ids, as a commit's does.
type named struct {
	fstest.MapFS
	asked *int
}

func (n named) ObjectID(name string) (string, error) {
	data, err := fs.ReadFile(n.MapFS, name)
	*n.asked++
	return fmt.Sprintf("git:%x", sha1.Sum(data)), err
}

// TestCacheProperty: after any edits of a repository and of the Kustomizations,
// a build that may use the cache of all the builds before gives what a fresh one
// gives, failures included. The repository has bases, components, generators,
// patches, generated kustomization files and ignore patterns.
func TestCacheProperty(t *testing.T) {
	const rounds = 60
	hits, misses, failed, ids := 0, 0, 0, 0
	for seed := range uint64(4) {
		w := newWorld(seed)
		m := newMemory()
		for round := range rounds {
			edit := w.edit()
			var tree fs.FS = w.files
			if seed%2 == 0 {
				tree = named{w.files, &ids}
			}
			view, err := source.Filter(tree, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, k := range w.kustomizations {
				want, wantErr := build.Build(context.Background(), view, k, build.Options{})
				got, gotErr := build.Build(context.Background(), view, k, build.Options{Cache: m})
				if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || !equal(want, got) {
					t.Fatalf("seed %d, round %d, Kustomization %d (%+v), cached %v, after %s: got\n%s\nwant\n%s",
						seed, round, i, k.Spec, got.Cached, edit, text(t, got, gotErr), text(t, want, wantErr))
				}
				switch {
				case wantErr != nil:
					failed++
				case got.Cached:
					hits++
				default:
					misses++
				}
			}
		}
		for _, err := range m.damaged {
			t.Error(err)
		}
	}
	t.Logf("%d hits, %d misses, %d failures, %d ids", hits, misses, failed, ids)
	if hits < rounds || misses < rounds/2 || failed < rounds/10 || ids == 0 {
		t.Errorf("%d hits, %d misses, %d failures, %d ids: not all that happens was seen", hits, misses, failed, ids)
	}
}

// world is a repository that changes.
type world struct {
	random         *rand.Rand
	files          fstest.MapFS
	kustomizations []*flux.Kustomization
	count          int
}

func newWorld(seed uint64) *world {
	w := &world{random: rand.New(rand.NewPCG(seed, 7)), files: fstest.MapFS{}}
	for name, text := range map[string]string{
		"base/kustomization.yaml":      "resources: [a.yaml]\nconfigMapGenerator:\n- {name: g, files: [data.txt]}\n",
		"base/a.yaml":                  manifest("a", "1"),
		"base/data.txt":                "some data",
		"comp/kustomization.yaml":      "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches:\n- path: p.yaml\n  target: {kind: ConfigMap, name: a}\n",
		"comp/p.yaml":                  "- {op: add, path: /data/patched, value: \"1\"}\n",
		"over/kustomization.yaml":      "resources: [../base]\nnamePrefix: o-\n",
		"plain/a.yaml":                 manifest("p", "1"),
		"plain/sub/b.yaml":             manifest("q", "1"),
		"plain/own/kustomization.yaml": "resources: [c.yaml]\n",
		"plain/own/c.yaml":             manifest("r", "1"),
		"README.md":                    "text",
	} {
		w.files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	for i, dir := range []string{"base", "over", "plain", "."} {
		k, err := loose(fmt.Sprintf("spec: {path: ./%s}", dir))
		if err != nil {
			panic(err)
		}
		k.Name = fmt.Sprintf("k%d", i)
		w.kustomizations = append(w.kustomizations, k)
	}
	return w
}

func manifest(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {v: %q}\n", name, value)
}

// edit changes something, and says what.
func (w *world) edit() string {
	w.count++
	if w.random.IntN(8) == 0 { // back to what works, but for the specs
		w.files = newWorld(0).files
		for i, k := range w.kustomizations {
			changed := *k
			changed.Spec.Components = nil
			w.kustomizations[i] = &changed
		}
		return "starting over"
	}
	names := slices.Sorted(maps.Keys(w.files))
	pick := func(of ...string) string { return of[w.random.IntN(len(of))] }
	write := func(name, text string) string {
		w.files[name] = &fstest.MapFile{Data: []byte(text)}
		return fmt.Sprintf("writing %q to %s", text, name)
	}
	folders := []string{"base", "comp", "over", "plain", "plain/sub", "plain/own", "plain/new"}
	some := pick(names...)
	switch w.random.IntN(15) {
	case 0: // what the generated file of a folder names
		return write(path.Join(pick(folders...), pick("x.yaml", "y.yml", "z.txt")), manifest(fmt.Sprintf("n%d", w.random.IntN(6)), fmt.Sprint(w.count)))
	case 1, 2: // a change of any file, mostly one that changes nothing for the build
		return write(some, string(w.files[some].Data)+pick("\n", "# comment\n", "\n"))
	case 3:
		return write(pick("base/a.yaml", "plain/sub/b.yaml", "plain/own/c.yaml"), manifest(pick("a", "b", "c"), fmt.Sprint(w.random.IntN(3))))
	case 4: // another kustomization file beside
		return write(path.Join(pick(folders...), pick("kustomization.yml", "Kustomization")), pick("", "resources: []\n", "namePrefix: x-\n"))
	case 5:
		return write(path.Join(pick("plain", "plain/sub", "plain/new"), "kustomization.yaml"), pick("resources: []\n", "resources: [a.yaml]\n", "resources: [b.yaml]\n"))
	case 6, 7:
		if len(names) > 8 {
			delete(w.files, some)
			return "removing " + some
		}
	case 8: // a rename
		to := path.Join(pick(folders...), path.Base(some))
		w.files[to] = w.files[some]
		if to != some {
			delete(w.files, some)
		}
		return "moving " + some + " to " + to
	case 9:
		return write(path.Join(pick(".", "plain", "base"), ".sourceignore"), pick("sub/\n", "*.txt\n", "/plain/a.yaml\n", "a.yaml\n!plain/a.yaml\n", "# nothing\n"))
	case 10:
		name := path.Join(pick(".", "plain", "base"), ".sourceignore")
		delete(w.files, name)
		return "removing " + name
	case 11:
		return write("base/kustomization.yaml", pick("resources: [a.yaml]\n", "resources: [a.yaml]\nnameSuffix: -s\n", "resources: [a.yaml]\nconfigMapGenerator:\n- {name: g, files: [data.txt]}\n", "resources: [../plain/own]\n"))
	}
	k := w.kustomizations[w.random.IntN(len(w.kustomizations))]
	changed := *k
	switch w.random.IntN(5) {
	case 0:
		changed.Spec.TargetNamespace = pick("", "one", "two")
	case 1:
		changed.Spec.NamePrefix = pick("", "x-", "y-")
	case 2:
		changed.Spec.Components = [][]string{nil, {"../comp"}, {"../gone"}, {"./comp"}}[w.random.IntN(4)]
		changed.Spec.IgnoreMissingComponents = w.random.IntN(3) > 0
	case 3:
		changed.Spec.Patches = [][]fluxkustomize.Patch{nil, {{Patch: "- {op: add, path: /data/x, value: \"1\"}", Target: &fluxkustomize.Selector{Kind: "ConfigMap"}}}}[w.random.IntN(2)]
	case 4:
		changed.Line, changed.Spec.Wait = w.count, !changed.Spec.Wait
	}
	w.kustomizations[slices.Index(w.kustomizations, k)] = &changed
	return fmt.Sprintf("the spec %+v", changed.Spec)
}
