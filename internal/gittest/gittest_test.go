package gittest_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/gittest"
)

const script = `
A comment that means nothing.
commit: first
tag: v1
exec: run.sh
symlink: link a.txt
-- a.txt --
one
-- dir/b.txt --
two
-- run.sh --
#!/bin/sh
===
switch: side
commit: second
remove: dir
annotated: v2
-- dir.txt --
sorts between dir and dir/
-- dir/c.txt --
three
`

// git itself finds what was described, and nothing wrong with it.
func TestTxtar(t *testing.T) {
	repo := gittest.New(t, "")
	hashes := repo.Txtar(script)
	if out := repo.Git("fsck", "--strict", "--no-dangling"); out != "" {
		t.Errorf("git fsck says %q", out)
	}
	for _, tt := range []struct{ command, want string }{
		{"log --format=%s|%an|%at side", "second|Ada Example|1767268860\nfirst|Ada Example|1767268800"},
		{"rev-parse v1 v2^{commit} main side", strings.Join([]string{hashes[0], hashes[1], hashes[0], hashes[1]}, "\n")},
		{"symbolic-ref HEAD", "refs/heads/side"},
		{"cat-file -t v2", "tag"},
		{"ls-tree -r --name-only v1", "a.txt\ndir/b.txt\nlink\nrun.sh"},
		{"ls-tree -r --name-only v2", "a.txt\ndir.txt\ndir/c.txt\nlink\nrun.sh"},
		{"ls-tree v1 run.sh link --format=%(objectmode)", "120000\n100755"},
		{"cat-file -p v1:link", "a.txt"},
	} {
		if got := repo.Git(strings.Fields(tt.command)...); got != tt.want {
			t.Errorf("git %s prints\n%s\nwant\n%s", tt.command, got, tt.want)
		}
	}
	if got := gittest.New(t, "").Txtar(script); !slices.Equal(got, hashes) {
		t.Errorf("made again, the hashes are %q, not %q", got, hashes)
	}
}

// A folder becomes the tree that git makes of it.
func TestCommitFolder(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"a.txt": 0o644, "deep/er/b.yaml": 0o600, "run.sh": 0o755} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a.txt", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	repo := gittest.FromDir(t, dir)
	gittest.Git(t, dir, "init", "-q")
	gittest.Git(t, dir, "add", "-A")
	if got, want := repo.Git("rev-parse", "HEAD^{tree}"), gittest.Git(t, dir, "write-tree"); got != want {
		t.Errorf("tree %s, want git's %s", got, want)
	}
	if err := os.Remove(filepath.Join(dir, "a.txt")); err != nil {
		t.Fatal(err)
	}
	repo.CommitFolder("without a.txt", dir)
	paths, err := repo.Paths()
	if want := []string{"deep/er/b.yaml", "link", "run.sh"}; err != nil || !slices.Equal(paths, want) {
		t.Errorf("paths %q, %v; want %q", paths, err, want)
	}
	repo.Checkout()
	if got := repo.Git("status", "--porcelain"); got != "" {
		t.Errorf("after the checkout git status says %q", got)
	}
}

func TestErrors(t *testing.T) {
	repo := gittest.New(t, script)
	for name, tt := range map[string]struct {
		do   func() error
		want string
	}{
		"remove": {func() error { _, err := repo.Repo.Commit("x", gittest.Remove("none")); return err }, `cannot remove "none"`},
		"escape": {func() error { _, err := repo.Repo.Commit("x", gittest.File("../x", "")); return err }, `path "../x"`},
		"both":   {func() error { _, err := repo.Repo.Commit("x", gittest.File("a.txt/x", "")); return err }, `"a.txt" is both a file and a folder`},
		"tag":    {func() error { return repo.Repo.Tag("v1", "") }, "tag already exists"},
		"detach": {func() error { return repo.Repo.Detach("none") }, `revision "none"`},
		"merge":  {func() error { _, err := repo.Repo.Merge("x", []string{"none"}); return err }, `parent "none"`},
		"twice":  {func() error { _, err := gittest.Create(repo.Dir); return err }, "already exists"},
		"script": {func() error { _, err := repo.Repo.Txtar("commit: a\n===\nremove: none\n"); return err }, "commit 2 of the script"},
	} {
		if err := tt.do(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v lacks %q", name, err, tt.want)
		}
	}
}

// The real git client is content with the servers.
func TestServe(t *testing.T) {
	repo := gittest.New(t, script)
	wrapped := 0
	server := gittest.Serve(t, repo, gittest.HTTP{Username: "ada", Password: "secret", Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { wrapped++; next.ServeHTTP(w, r) })
	}})
	url := strings.Replace(server.URL, "://", "://ada:secret@", 1)
	gittest.Git(t, t.TempDir(), "clone", "-q", url, "clone")
	if wrapped == 0 || server.Requests() != wrapped || server.Packs() == 0 {
		t.Errorf("saw %d requests, counted %d, %d for packs", wrapped, server.Requests(), server.Packs())
	}
	response, err := http.Get(server.URL + "/info/refs?service=git-upload-pack")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a password it answers %s", response.Status)
	}
}
