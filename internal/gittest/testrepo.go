package gittest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRepo is a [Repo] whose methods end the test instead of returning an error.
type TestRepo struct {
	*Repo
	t testing.TB
}

// New makes a repository in the test's temporary folder and commits a script (see [Repo.Txtar]); an empty script leaves it
// empty.
func New(t testing.TB, script string) *TestRepo {
	t.Helper()
	r := &TestRepo{t: t}
	r.Repo = must(Create(filepath.Join(t.TempDir(), "repo")))(t)
	if script != "" {
		must(r.Repo.Txtar(script))(t)
	}
	return r
}

// FromDir makes a repository with one commit that holds the files below a folder.
func FromDir(t testing.TB, dir string) *TestRepo {
	t.Helper()
	r := New(t, "")
	must(r.Repo.CommitFolder("all of "+filepath.Base(dir), dir))(t)
	return r
}

// Commit is [Repo.Commit].
func (r *TestRepo) Commit(message string, changes ...Change) string {
	r.t.Helper()
	return must(r.Repo.Commit(message, changes...))(r.t)
}

// Merge is [Repo.Merge].
func (r *TestRepo) Merge(message string, parents []string, changes ...Change) string {
	r.t.Helper()
	return must(r.Repo.Merge(message, parents, changes...))(r.t)
}

// CommitFolder is [Repo.CommitFolder].
func (r *TestRepo) CommitFolder(message, dir string) string {
	r.t.Helper()
	return must(r.Repo.CommitFolder(message, dir))(r.t)
}

// Txtar is [Repo.Txtar].
func (r *TestRepo) Txtar(script string) []string {
	r.t.Helper()
	return must(r.Repo.Txtar(script))(r.t)
}

// Switch is [Repo.Switch].
func (r *TestRepo) Switch(branch string) { r.t.Helper(); check(r.t, r.Repo.Switch(branch)) }

// Detach is [Repo.Detach].
func (r *TestRepo) Detach(revision string) { r.t.Helper(); check(r.t, r.Repo.Detach(revision)) }

// Tag is [Repo.Tag].
func (r *TestRepo) Tag(name, message string) { r.t.Helper(); check(r.t, r.Repo.Tag(name, message)) }

// SetRef is [Repo.SetRef].
func (r *TestRepo) SetRef(name, hash string) { r.t.Helper(); check(r.t, r.Repo.SetRef(name, hash)) }

// SetRemote is [Repo.SetRemote].
func (r *TestRepo) SetRemote(name, url string) { r.t.Helper(); check(r.t, r.Repo.SetRemote(name, url)) }

// Checkout is [Repo.Checkout].
func (r *TestRepo) Checkout() { r.t.Helper(); check(r.t, r.Repo.Checkout()) }

// FileURL is the repository's file:// URL.
func (r *TestRepo) FileURL() string { return "file://" + filepath.ToSlash(r.Dir) }

// Git runs the git command in the repository's folder, without the configuration of the user or the machine, and returns
// what it prints, trimmed. It is for states that only the real tool makes: worktrees, shallow clones, packs.
func (r *TestRepo) Git(args ...string) string {
	r.t.Helper()
	return Git(r.t, r.Dir, args...)
}

// Git is [TestRepo.Git] for any folder.
func Git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = Environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// Environment is one in which the git command reads no configuration of user or machine, asks for nothing and writes the
// same commits each time.
func Environment() []string {
	date := Epoch.Format("2006-01-02T15:04:05Z")
	environment := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GIT_") })
	return append(environment,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME="+author.Name, "GIT_AUTHOR_EMAIL="+author.Email, "GIT_AUTHOR_DATE="+date,
		"GIT_COMMITTER_NAME="+author.Name, "GIT_COMMITTER_EMAIL="+author.Email, "GIT_COMMITTER_DATE="+date,
		// file: submodules and clones of folders of other owners are fine here
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=protocol.file.allow", "GIT_CONFIG_VALUE_0=always",
		"GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*",
	)
}

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		check(t, err)
		return value
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
