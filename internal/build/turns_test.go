package build_test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"golang.org/x/tools/txtar"

	"github.com/sluicerun/sluice/internal/build"
)

// text is a build's result as testdata has it.
func text(t *testing.T, result build.Result, err error) string {
	t.Helper()
	return string(txtar.Format(&txtar.Archive{Files: render(t, result, err)}))
}

// TestSideBySide (S2.35, S2.26): builds of all kinds at once, with schemas of
// their own, deprecated fields, log lines and failures among them, give what each
// gives by itself, in any order.
func TestSideBySide(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d files of test data: %v", len(files), err)
	}
	cases := make([]testCase, len(files))
	want := make([]string, len(files))
	for i, file := range files {
		cases[i] = load(t, file)
		result, err := build.Build(context.Background(), cases[i].tree, cases[i].k, build.Options{})
		want[i] = text(t, result, err)
	}
	build.SetTurns(t, 6)
	stderr := os.Stderr
	for seed := range uint64(3) {
		random := rand.New(rand.NewPCG(seed, 0))
		var order []int
		for i := range cases {
			order = append(order, i)
			if strings.Contains(want[i], "openapi") || strings.Contains(want[i], "deprecated-field") || random.IntN(4) == 0 {
				order = append(order, i)
			}
		}
		random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		options := build.Options{}
		if seed > 0 { // what one has built, another may take
			options.Cache = newMemory()
		}
		got := make([]string, len(order))
		var all sync.WaitGroup
		for at, i := range order {
			all.Go(func() {
				result, err := build.Build(context.Background(), cases[i].tree, cases[i].k, options)
				got[at] = text(t, result, err)
			})
		}
		all.Wait()
		for at, i := range order {
			if got[at] != want[i] {
				t.Errorf("seed %d: %s beside others gave\n%s\nand by itself\n%s", seed, files[i], got[at], want[i])
			}
		}
		if t.Failed() {
			break
		}
	}
	if os.Stderr != stderr {
		t.Error("os.Stderr was not put back")
	}
}

// meeting is a tree whose file "meet" can only be read while another
// reader of it is there too.
type meeting struct {
	fstest.MapFS
	barrier *sync.WaitGroup
	once    *sync.Once
}

func (m meeting) ReadFile(name string) ([]byte, error) {
	if filepath.Base(name) == "meet.yaml" {
		m.once.Do(m.barrier.Done)
		m.barrier.Wait()
	}
	return fs.ReadFile(m.MapFS, name)
}

// TestReallySideBySide: a build does not wait for others that leave alone what
// is global: here each needs the other to go on.
func TestReallySideBySide(t *testing.T) {
	build.SetTurns(t, 2)
	tree := fstest.MapFS{
		"app/kustomization.yaml": {Data: []byte("resources: [meet.yaml]\n")},
		"app/meet.yaml":          {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")},
	}
	var barrier, all sync.WaitGroup
	barrier.Add(2)
	for range 2 {
		all.Go(func() {
			result, err := build.Build(context.Background(), meeting{tree, &barrier, &sync.Once{}}, parse(t, []byte("spec: {path: app}")), build.Options{})
			if err != nil || len(result.Objects) != 1 {
				t.Errorf("%v, %v", result.Objects, err)
			}
		})
	}
	all.Wait()
}

// crowd counts the builds that are reading from it.
type crowd struct {
	fstest.MapFS
	mu     *sync.Mutex
	inside map[string]bool
	alone  string
	errs   *[]string
}

func (c crowd) ReadFile(name string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	app, file, _ := strings.Cut(name, "/")
	if file == "first.yaml" {
		c.inside[app] = true
	}
	if c.inside[c.alone] && len(c.inside) > 1 {
		*c.errs = append(*c.errs, fmt.Sprint(c.inside))
	}
	if file == "last.yaml" {
		delete(c.inside, app)
	}
	return fs.ReadFile(c.MapFS, name)
}

// TestAlone (S2.35): while a build that sets a schema is at work, no other is,
// also if the schema is that of a base, which is found late.
func TestAlone(t *testing.T) {
	build.SetTurns(t, 4)
	manifest := func(name string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n")}
	}
	tree := fstest.MapFS{"base/kustomization.yaml": {Data: []byte("openapi: {path: schema.json}\n")}, "base/schema.json": {Data: []byte("{}")}}
	const apps = 24
	for i := range apps {
		app := fmt.Sprintf("app%d", i)
		resources := "resources: [first.yaml, second.yaml, last.yaml]\n"
		if i == apps/2 {
			// The base is read before first.yaml, so what is seen of this one
			// is the build that is alone.
			resources = "resources: [../base, first.yaml, second.yaml, last.yaml]\n"
		}
		tree[app+"/kustomization.yaml"] = &fstest.MapFile{Data: []byte(resources)}
		for _, name := range []string{"first", "second", "last"} {
			tree[app+"/"+name+".yaml"] = manifest(name)
		}
	}
	var errs []string
	shared := crowd{MapFS: tree, mu: &sync.Mutex{}, inside: map[string]bool{}, alone: fmt.Sprintf("app%d", apps/2), errs: &errs}
	var all sync.WaitGroup
	for i := range apps {
		all.Go(func() {
			if _, err := build.Build(context.Background(), shared, parse(t, fmt.Appendf(nil, "spec: {path: app%d}", i)), build.Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, e := range errs {
		t.Errorf("at work at once: %s", e)
	}
}
