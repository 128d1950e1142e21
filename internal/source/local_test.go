package source_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/source"
)

// history has a branch, both kinds of tags, and a branch that left main.
const history = `
commit: first
tag: v1.0.0
-- clusters/production/apps.yaml --
kind: Kustomization
-- deploy.sh --
#!/bin/sh
exec: deploy.sh
===
commit: second
annotated: v1.1.0
exec: run.sh
-- clusters/production/apps.yaml --
kind: Kustomization
metadata: {}
-- run.sh --
#!/bin/sh
===
switch: feature/x
commit: on the branch
-- feature.yaml --
a: 1
===
switch: main
commit: third
remove: deploy.sh
-- apps/base/größe.yaml --
größe: 3
`

// hashes of the history's commits, in order; that they are written down shows that they never move.
const (
	first  = "68843cd5517800cb7b45d59b10d8e3b82cc0b086"
	second = "8f09f09edddd1cfaf64343ae962cf3cc415f81cd"
	branch = "5780d66703bb647d1555e07867a5dd9a8f76e757"
	third  = "50aec68f48a1925993daa929763f3c7dddd996a7"
)

func open(t *testing.T, o source.Options) *source.Commit {
	t.Helper()
	c, err := source.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func list(t *testing.T, tree fs.FS) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func read(t *testing.T, tree fs.FS, name string) string {
	t.Helper()
	data, err := fs.ReadFile(tree, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestHashesNeverMove(t *testing.T) {
	got := gittest.New(t, "").Txtar(history)
	if want := []string{first, second, branch, third}; !slices.Equal(got, want) {
		t.Errorf("hashes\n%q, want\n%q", got, want)
	}
}

func TestOpenLocal(t *testing.T) {
	repo := gittest.New(t, history)
	c := open(t, source.Options{Repo: repo.Dir})
	if got, want := list(t, c.FS), []string{"apps/base/größe.yaml", "clusters/production/apps.yaml", "run.sh"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if err := fstest.TestFS(c.FS, "apps/base/größe.yaml", "clusters/production/apps.yaml", "run.sh"); err != nil {
		t.Error(err)
	}
	if c.Subject != "third" || c.Author != "Ada Example <ada@example.org>" || !c.Time.Equal(gittest.Epoch.Add(3*60e9)) {
		t.Errorf("subject %q, author %q, time %v", c.Subject, c.Author, c.Time)
	}
	if c.Revision != "main@sha1:"+third || c.Branch != "main" || c.Hash != third { // S10.7, S16.9
		t.Errorf("revision %q", c.Revision)
	}
	info, err := fs.Stat(c.FS, "run.sh")
	if err != nil || info.Mode() != 0o700 { // S10.39
		t.Errorf("mode of run.sh is %v, %v", info.Mode(), err)
	}
}

// refuse opens what cannot be opened and checks what the user would read.
func refuse(t *testing.T, o source.Options, kind error, text, hint string) *source.Error {
	t.Helper()
	c, err := source.Open(t.Context(), o)
	if err == nil {
		c.Close()
		t.Fatalf("opened %s", c.Revision)
	}
	var e *source.Error
	if !errors.As(err, &e) || !errors.Is(err, kind) {
		t.Fatalf("error %q (%T) is not a source.Error with %q", err, err, kind)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("error %q lacks %q", err, text)
	}
	if !strings.Contains(e.Hint(), hint) || hint == "" && e.Hint() != "" {
		t.Errorf("hint %q lacks %q", e.Hint(), hint)
	}
	return e
}

// revisions are ways to name commits that every kind of repository must understand alike.
var revisions = []struct{ rev, want string }{
	{"", "main@sha1:" + third},
	{"HEAD", "main@sha1:" + third},
	{"main", "main@sha1:" + third},
	{"refs/heads/main", "main@sha1:" + third},
	{"feature/x", "feature/x@sha1:" + branch},
	{"v1.0.0", "v1.0.0@sha1:" + first},
	{"v1.1.0", "v1.1.0@sha1:" + second}, // annotated, peeled
	{"refs/tags/v1.1.0", "v1.1.0@sha1:" + second},
	{"refs/pull/7/head", "refs/pull/7/head@sha1:" + branch}, // S10.7: ref.name
	{third, "main@sha1:" + third},                           // HEAD's commit keeps HEAD's name
	{strings.ToUpper(third), "main@sha1:" + third},
	{branch, "feature/x@sha1:" + branch}, // one branch has it
	{second, "v1.1.0@sha1:" + second},    // one tag has it
	{second[:7], "v1.1.0@sha1:" + second},
	{second[:5], "v1.1.0@sha1:" + second},
	{"main~1", "sha1:" + second},
	{"main~2", "sha1:" + first},
	{"main^^", "sha1:" + first},
	{"HEAD~", "sha1:" + second},
	{"v1.1.0~1", "sha1:" + first},
}

// S10.2 to S10.8: what a revision names, and what the commit is then called.
func TestLocalRevisions(t *testing.T) {
	repo := gittest.New(t, history)
	repo.SetRef("refs/pull/7/head", branch)
	for _, packed := range []bool{false, true} {
		if packed {
			repo.Git("gc", "-q")
		}
		for _, tt := range revisions {
			if c := open(t, source.Options{Repo: repo.Dir, Revision: tt.rev}); c.Revision != tt.want {
				t.Errorf("packed %v: revision %q is %s, want %s", packed, tt.rev, c.Revision, tt.want)
			}
		}
	}
}

// CI systems check out a commit, not a branch (S16.9).
func TestDetachedHead(t *testing.T) {
	tests := []struct{ name, at, known, want string }{
		{"the caller knows", first, "main", "main@sha1:" + first},
		{"the caller knows a full reference", first, "refs/heads/main", "main@sha1:" + first},
		{"a tag knows", first, "", "v1.0.0@sha1:" + first},
		{"a branch knows", branch, "", "feature/x@sha1:" + branch},
		{"two tags do not", second, "", "sha1:" + second},
	}
	repo := gittest.New(t, history)
	repo.Git("tag", "other", second)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			repo.Detach(tt.at)
			for _, rev := range []string{"", tt.at} {
				if c := open(t, source.Options{Repo: repo.Dir, Revision: rev, Name: tt.known}); c.Revision != tt.want {
					t.Errorf("revision %q is %s, want %s", rev, c.Revision, tt.want)
				}
			}
		})
	}
}

func TestUnknownRevisions(t *testing.T) {
	repo := gittest.New(t, history)
	repo.Git("branch", "v1.0.0", third)  // as the tag, elsewhere
	repo.Git("branch", "v1.1.0", second) // as the tag, at the same commit
	where := source.Options{Repo: repo.Dir}
	for _, tt := range []struct {
		rev        string
		kind       error
		text, hint string
	}{
		{"mian", source.ErrUnknownRevision, `unknown revision "mian"; the repository has main, `, "refs/heads/main"},
		{"feature", source.ErrUnknownRevision, `unknown revision "feature"; the repository has feature/x, main, `, "refs/heads/main"},
		{"refs/heads/mian", source.ErrUnknownRevision, `unknown revision "refs/heads/mian"; the repository has main, `, "refs/heads/main"},
		{strings.Repeat("a", 40), source.ErrUnknownRevision, "has no such commit", "refs/heads/main"},
		{"abcdef0", source.ErrUnknownRevision, "has no such commit", "refs/heads/main"},
		{"main~9", source.ErrUnknownRevision, "goes back beyond the first commit, " + first[:7], ""},
		{"main~99999999999999999999", source.ErrUnknownRevision, "too far", "refs/heads/main"},
		{"main..v1.1.0", source.ErrUnknownRevision, "not one commit's name", "refs/heads/main"},
		{"--upload-pack=x", source.ErrUnknownRevision, "not one commit's name", "refs/heads/main"},
		{"v1.0.0", source.ErrAmbiguousRevision, "is a tag (" + first[:7] + ") and a branch (" + third[:7] + ")", "say refs/tags/v1.0.0 or refs/heads/v1.0.0"},
		{strings.Repeat("a", 64), source.ErrUnsupportedRepository, "SHA-256", ""},
	} {
		t.Run(tt.rev, func(t *testing.T) {
			where.Revision = tt.rev
			refuse(t, where, tt.kind, tt.text, tt.hint)
		})
	}
	if c := open(t, source.Options{Repo: repo.Dir, Revision: "v1.1.0"}); c.Hash != second {
		t.Errorf("a tag and a branch at one commit gave %s", c.Revision)
	}
}

func TestAmbiguousShortHash(t *testing.T) {
	repo := gittest.New(t, history)
	seen := map[string]string{}
	for i := 0; ; i++ {
		hash := repo.Commit("more")
		if other, ok := seen[hash[:4]]; ok {
			e := refuse(t, source.Options{Repo: repo.Dir, Revision: hash[:4]}, source.ErrAmbiguousRevision, "is the beginning of 2 commits", "more digits")
			want := []string{hash, other}
			slices.Sort(want)
			if !slices.Equal(e.Candidates, want) {
				t.Errorf("candidates %q, want %q", e.Candidates, want)
			}
			server := gittest.Serve(t, repo, gittest.HTTP{AnyCommit: true})
			refuse(t, source.Options{Repo: server.URL, Revision: hash[:4]}, source.ErrAmbiguousRevision, "is the beginning of 2 commits", "more digits")
			return
		}
		seen[hash[:4]] = hash
	}
}

func TestNotARepository(t *testing.T) {
	empty := t.TempDir()
	file := filepath.Join(empty, "file")
	write(t, file, "text")
	refuse(t, source.Options{Repo: empty}, source.ErrNotRepository, "is not in a Git repository", "--repo")
	refuse(t, source.Options{Repo: filepath.Join(empty, "none")}, source.ErrNotRepository, "does not exist", "clone URL")
	refuse(t, source.Options{Repo: file}, source.ErrNotRepository, "is a file", "clone URL")
	refuse(t, source.Options{Repo: "file://" + empty}, source.ErrNotRepository, "is not in a Git repository", "--repo")
	refuse(t, source.Options{Repo: "file://host/path"}, source.ErrInvalidURL, "names the host", "three slashes")

	committed := gittest.New(t, "")
	refuse(t, source.Options{Repo: committed.Dir}, source.ErrEmptyRepository, `has no commit on "main" yet`, "commit something")

	write(t, filepath.Join(empty, ".git"), "gitdir: gone")
	refuse(t, source.Options{Repo: empty}, source.ErrNotRepository, "which is no Git folder", "git worktree repair")
	write(t, filepath.Join(empty, ".git"), "something")
	refuse(t, source.Options{Repo: empty}, source.ErrNotRepository, "not a file that Git wrote", "")
}

func TestUnsupportedFormats(t *testing.T) {
	dir := t.TempDir()
	gittest.Git(t, dir, "init", "-q", "--object-format=sha256")
	refuse(t, source.Options{Repo: dir}, source.ErrUnsupportedRepository, "sha256 object names", "")
	repo := gittest.New(t, history)
	repo.Git("config", "extensions.refStorage", "reftable")
	refuse(t, source.Options{Repo: repo.Dir}, source.ErrUnsupportedRepository, "reftable", "by its URL")
	write(t, filepath.Join(repo.Dir, ".git", "config"), "[core\n")
	refuse(t, source.Options{Repo: repo.Dir}, source.ErrUnsupportedRepository, "cannot be read", "")
}

// Where a repository is and how it is laid out must not matter.
func TestLocalLayouts(t *testing.T) {
	repo := gittest.New(t, history)
	repo.Checkout()
	base := t.TempDir()
	bare := filepath.Join(base, "bare.git")
	repo.Git("clone", "-q", "--bare", ".", bare)
	worktree := filepath.Join(base, "worktree")
	repo.Git("worktree", "add", "-q", worktree, "feature/x")
	borrowing := filepath.Join(base, "borrowing")
	gittest.Git(t, base, "clone", "-q", "--shared", repo.Dir, borrowing)
	relative := filepath.Join(base, "relative")
	gittest.Git(t, base, "clone", "-q", "--shared", borrowing, relative)
	alternates, err := filepath.Rel(filepath.Join(relative, ".git", "objects"), filepath.Join(borrowing, ".git", "objects"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(relative, ".git", "objects", "info", "alternates"), alternates+"\n")
	extended := filepath.Join(base, "extended")
	gittest.Git(t, base, "clone", "-q", repo.Dir, extended)
	// What actions/checkout sets for sparse and partial checkouts; go-git by itself refuses it.
	gittest.Git(t, extended, "config", "core.repositoryFormatVersion", "1")
	gittest.Git(t, extended, "config", "extensions.worktreeConfig", "true")
	gittest.Git(t, extended, "config", "extensions.partialClone", "origin")
	link := filepath.Join(base, "link")
	if err := os.Symlink(filepath.Join(repo.Dir, "clusters"), link); err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct{ name, repo, folder, want string }{
		{"root", repo.Dir, ".", "main@sha1:" + third},
		{"the Git folder", filepath.Join(repo.Dir, ".git"), ".", "main@sha1:" + third},
		{"sub-folder", filepath.Join(repo.Dir, "clusters", "production"), "clusters/production", "main@sha1:" + third},
		{"linked sub-folder", link, "clusters", "main@sha1:" + third},
		{"file URL", repo.FileURL(), ".", "main@sha1:" + third},
		{"bare", bare, ".", "main@sha1:" + third},
		{"file URL of a bare one", "file://localhost" + filepath.ToSlash(bare), ".", "main@sha1:" + third},
		{"linked work tree", worktree, ".", "feature/x@sha1:" + branch},
		{"borrowed objects", borrowing, ".", "main@sha1:" + third},
		{"borrowed of borrowed, by a relative path", relative, ".", "main@sha1:" + third},
		{"extensions", extended, ".", "main@sha1:" + third},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := open(t, source.Options{Repo: tt.repo})
			if c.Revision != tt.want || c.Folder != tt.folder {
				t.Errorf("revision %s in %q, want %s in %q", c.Revision, c.Folder, tt.want, tt.folder)
			}
			if got := read(t, c.FS, "clusters/production/apps.yaml"); !strings.HasPrefix(got, "kind: Kustomization") {
				t.Errorf("read %q", got)
			}
			if len(c.Dirty) > 0 {
				t.Errorf("a clean work tree is dirty: %q", c.Dirty)
			}
		})
	}
	t.Run("working folder", func(t *testing.T) {
		t.Chdir(filepath.Join(repo.Dir, "apps"))
		if c := open(t, source.Options{}); c.Hash != third || c.Folder != "apps" {
			t.Errorf("opened %s in %q", c.Hash, c.Folder)
		}
	})
}

func TestURLOfALocalRepository(t *testing.T) {
	repo := gittest.New(t, history)
	if c := open(t, source.Options{Repo: repo.Dir}); c.URL != "" {
		t.Errorf("without a remote the URL is %q", c.URL)
	}
	repo.SetRemote("upstream", "https://example.org/up/stream")
	if c := open(t, source.Options{Repo: repo.Dir}); c.URL != "https://example.org/up/stream" {
		t.Errorf("with one remote the URL is %q", c.URL)
	}
	repo.SetRemote("origin", "https://gitlab-ci-token:secret@gitlab.example.org/team/deploy.git")
	if c := open(t, source.Options{Repo: repo.Dir}); c.URL != "https://gitlab.example.org/team/deploy" {
		t.Errorf("the URL of origin is %q", c.URL)
	}
	repo.SetRemote("origin", "../elsewhere")
	if c := open(t, source.Options{Repo: repo.Dir}); c.URL != "" {
		t.Errorf("of a folder as remote the URL is %q", c.URL)
	}
}

func TestDirty(t *testing.T) {
	repo := gittest.New(t, history)
	repo.Checkout()
	at := func(name string) string { return filepath.Join(repo.Dir, filepath.FromSlash(name)) }
	write(t, at("clusters/production/apps.yaml"), "kind: Kustomization\nmetadata: {name: x}\n")
	if err := os.Remove(at("run.sh")); err != nil {
		t.Fatal(err)
	}
	write(t, at("staged.yaml"), "a: 1\n")
	repo.Git("add", "staged.yaml")
	write(t, at("untracked.yaml"), "a: 1\n")
	c := open(t, source.Options{Repo: repo.Dir})
	if want := []string{"clusters/production/apps.yaml", "run.sh", "staged.yaml"}; !slices.Equal(c.Dirty, want) {
		t.Errorf("dirty %q, want %q", c.Dirty, want)
	}
	if got := read(t, c.FS, "clusters/production/apps.yaml"); strings.Contains(got, "name: x") {
		t.Error("an uncommitted change is in the tree")
	}
	if c := open(t, source.Options{Repo: repo.Dir, Revision: "v1.0.0"}); c.Dirty != nil {
		t.Errorf("another commit than HEAD is dirty: %q", c.Dirty)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A crash leaves empty files, which git passes over; so must the deployment of another branch.
func TestBrokenReferences(t *testing.T) {
	repo := gittest.New(t, history)
	for name, text := range map[string]string{"heads/empty": "", "tags/empty": "", "heads/feature/x.lock": first, "tags/text": "?"} {
		write(t, filepath.Join(repo.Dir, ".git", "refs", name), text)
	}
	repo.SetRef("refs/tags/broken", strings.Repeat("1", 40))
	repo.Git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/none")
	repo.Detach(first)
	if c := open(t, source.Options{Repo: repo.Dir}); c.Revision != "v1.0.0@sha1:"+first {
		t.Errorf("opened %s", c.Revision)
	}
}

// Loose references are newer than packed ones, and so are what they stand for.
func TestLooseOverridesPacked(t *testing.T) {
	repo := gittest.New(t, history)
	repo.Git("pack-refs", "--all")
	repo.SetRef("refs/heads/main", second)
	repo.Git("tag", "-f", "-m", "moved", "v1.1.0", first)
	for rev, want := range map[string]string{"": second, "main": second, "v1.1.0": first, "v1.0.0": first, "feature/x": branch} {
		if c := open(t, source.Options{Repo: repo.Dir, Revision: rev}); c.Hash != want {
			t.Errorf("revision %q is %s, want %s", rev, c.Hash, want)
		}
	}
	repo.Detach(second)
	repo.SetRef("refs/heads/main", third)
	if c := open(t, source.Options{Repo: repo.Dir}); c.Revision != "sha1:"+second {
		t.Errorf("a tag that was moved still names %s", c.Revision)
	}
}
