package source_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/source"
)

func TestTree(t *testing.T) {
	const crlf = "a: 1\r\nb: 2\r\n"
	const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
	repo := gittest.New(t, "")
	repo.Commit("all kinds of files",
		gittest.File("apps/kustomization.yaml", crlf),
		gittest.File(".gitattributes", "* text=auto eol=lf\n*.bin filter=lfs\n"),
		gittest.File(".gitignore", "apps/ignored.yaml\n"),
		gittest.File("apps/ignored.yaml", "committed: true\n"),
		gittest.File("apps/große dateien/日本.yaml", "ö: ü\n"),
		gittest.File("apps/big.bin", pointer),
		gittest.File("empty", ""),
		gittest.File("apps.yaml", "sorts between apps and apps/ in Git\n"),
		gittest.Executable("hooks/run", "#!/bin/sh\n"),
		gittest.Symlink("apps/link.yaml", "../empty"),
		gittest.Symlink("linked", "apps"),
		gittest.Submodule("vendor/module", strings.Repeat("1", 40)),
	)
	c := open(t, source.Options{Repo: repo.Dir})
	if got := c.Dropped(); len(got) != 1 || got[0].Path != "linked" {
		t.Errorf("before anything is read, dropped is %v, want the link in the root alone", got)
	}
	files := []string{".gitattributes", ".gitignore", "apps/big.bin", "apps/große dateien/日本.yaml", "apps/ignored.yaml",
		"apps/kustomization.yaml", "apps.yaml", "empty", "hooks/run"}
	if err := fstest.TestFS(c.FS, files...); err != nil {
		t.Error(err)
	}
	if got := list(t, c.FS); len(got) != len(files) {
		t.Errorf("files %q, want %q", got, files)
	}
	if got := read(t, c.FS, "apps/kustomization.yaml"); got != crlf {
		t.Errorf("line ends were touched: %q", got)
	}
	for name, want := range map[string]fs.FileMode{ // S10.39
		"hooks/run": 0o700, "empty": 0o600, "apps": fs.ModeDir | 0o750, ".": fs.ModeDir | 0o750,
	} {
		if info, err := fs.Stat(c.FS, name); err != nil || info.Mode() != want || !info.ModTime().Equal(c.Time) {
			t.Errorf("%q has mode %v and time %v (%v)", name, info.Mode(), info.ModTime(), err)
		}
	}
	for name, why := range map[string]string{ // S10.38
		"linked/kustomization.yaml": `"linked" is a symbolic link`,
		"apps/link.yaml":            `"apps/link.yaml" is a symbolic link`,
		"vendor/module/a.yaml":      `"vendor/module" is a submodule`,
		"empty/a":                   "file does not exist",
	} {
		_, err := fs.ReadFile(c.FS, name)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), why) {
			t.Errorf("reading %q: %v, want fs.ErrNotExist with %q", name, err, why)
		}
	}
	var dropped []string
	for _, d := range c.Dropped() {
		dropped = append(dropped, d.Kind+" "+d.Path)
		if d.Reason == "" {
			t.Errorf("%q was dropped without a reason", d.Path)
		}
	}
	if got, want := fmt.Sprint(dropped), "[lfs apps/big.bin symlink apps/link.yaml symlink linked submodule vendor/module]"; got != want { // S10.17, S10.38
		t.Errorf("dropped %s, want %s", got, want)
	}
	if got := read(t, c.FS, "apps/big.bin"); got != pointer { // S10.17
		t.Errorf("the LFS pointer reads %q", got)
	}
}

func TestReadersOwnTheirBytes(t *testing.T) {
	c := open(t, source.Options{Repo: gittest.New(t, history).Dir})
	data, err := fs.ReadFile(c.FS, "run.sh")
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	if got := read(t, c.FS, "run.sh"); got != "#!/bin/sh\n" {
		t.Errorf("writing to what was read changed the file to %q", got)
	}
}

// S1.8: spellings of a path, none of which leads out of the repository.
func TestCleanPath(t *testing.T) {
	for in, want := range map[string]string{
		"": ".", ".": ".", "/": ".", "./": ".", "a": "a", "./a": "a", "/a": "a", "a/": "a", "a//b/./c": "a/b/c", "a/../b": "b",
		"..": ".", "../..": ".", "../../etc": "etc", "/../a": "a", "a/../../..": ".",
	} {
		if got := source.CleanPath(in); got != want {
			t.Errorf("CleanPath(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSub(t *testing.T) {
	c := open(t, source.Options{Repo: gittest.New(t, history).Dir})
	for _, spelling := range []string{"clusters/production", "./clusters/production/", "/clusters/production", "../clusters/production"} {
		tree, err := c.Sub(spelling)
		if err != nil {
			t.Fatal(err)
		}
		if got := list(t, tree); len(got) != 1 || got[0] != "apps.yaml" {
			t.Errorf("below %q are %q", spelling, got)
		}
	}
	if _, err := c.Sub("run.sh"); err == nil {
		t.Error("a file passed for a folder")
	}
	if _, err := c.Sub("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder gave %v", err)
	}
}

// Kustomizations are built concurrently from one tree.
func TestConcurrentReads(t *testing.T) {
	repo := gittest.New(t, "")
	var changes []gittest.Change
	for i := range 200 {
		changes = append(changes, gittest.File(fmt.Sprintf("apps/%d/%d/file.yaml", i%20, i), fmt.Sprintf("number: %d\n", i)))
	}
	repo.Commit("many", changes...)
	for _, packed := range []bool{false, true} {
		if packed {
			repo.Git("gc", "-q")
		}
		c := open(t, source.Options{Repo: repo.Dir})
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				for i := range 200 {
					name := fmt.Sprintf("apps/%d/%d/file.yaml", i%20, i)
					f, err := c.FS.Open(name)
					if err != nil {
						t.Error(err)
						return
					}
					data, err := io.ReadAll(f)
					if err != nil || string(data) != fmt.Sprintf("number: %d\n", i) {
						t.Errorf("%q reads %q, %v", name, data, err)
					}
					if err := f.Close(); err != nil {
						t.Error(err)
					}
				}
				if _, err := fs.Glob(c.FS, "apps/*/*/file.yaml"); err != nil {
					t.Error(err)
				}
				c.Dropped()
			})
		}
		readers.Wait()
	}
}

// A partial clone lacks file contents; that must not look like an empty or missing file.
func TestPartialClone(t *testing.T) {
	repo := gittest.New(t, history)
	server := gittest.Serve(t, repo, gittest.HTTP{AnyCommit: true})
	dir := t.TempDir()
	gittest.Git(t, dir, "clone", "-q", "--bare", "--filter=blob:none", server.URL, "partial")
	c := open(t, source.Options{Repo: dir + "/partial"})
	if got := list(t, c.FS); len(got) != 3 {
		t.Errorf("files %q", got)
	}
	_, err := fs.ReadFile(c.FS, "run.sh")
	if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "partial clone") {
		t.Errorf("reading a file that was not fetched: %v", err)
	}
}
