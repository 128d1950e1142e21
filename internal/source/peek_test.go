package source_test

import (
	"io/fs"
	"slices"
	"testing"

	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/source"
)

type peeker interface {
	fs.FS
	Peek() fs.FS
	ObjectID(name string) (string, error)
}

// TestPeek: to peek shows the same tree as to read, and leaves no trace; ids are
// equal exactly where the content is, in every commit.
func TestPeek(t *testing.T) {
	const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
	repo := gittest.New(t, "")
	repo.Commit("first",
		gittest.File("a/one.yaml", "1"), gittest.File("a/same.yaml", "1"), gittest.File("a/two.yaml", "2"),
		gittest.File("a/skipped.yaml", "3"), gittest.File("a/big.bin", pointer), gittest.Symlink("a/link.yaml", "one.yaml"),
		gittest.File(".sourceignore", "skipped.yaml\n"))
	first := open(t, source.Options{Repo: repo.Dir})
	repo.Commit("second", gittest.File("a/one.yaml", "2"))
	second := open(t, source.Options{Repo: repo.Dir})

	artifact := func(c *source.Commit) peeker {
		t.Helper()
		tree, err := c.Artifact(nil)
		if err != nil {
			t.Fatal(err)
		}
		return tree.(peeker)
	}
	tree := artifact(first)
	before := first.Dropped()
	peeked := tree.Peek()
	for _, name := range []string{"a/skipped.yaml", "a/link.yaml", "a/none", "none/at/all", "../out"} {
		if _, err := fs.Stat(peeked, name); err == nil {
			t.Errorf("%s is there", name)
		}
		if _, err := fs.ReadFile(peeked, name); err == nil {
			t.Errorf("%s can be read", name)
		}
		if _, err := fs.ReadDir(peeked, name); err == nil {
			t.Errorf("%s can be listed", name)
		}
		if id, err := peeked.(peeker).ObjectID(name); err == nil {
			t.Errorf("%s has the id %q", name, id)
		}
	}
	if got, want := list(t, peeked), list(t, tree); !slices.Equal(got, want) {
		t.Errorf("peeked at %q, want %q", got, want)
	}
	for _, name := range list(t, tree) {
		want, err := fs.ReadFile(tree, name)
		got, peekErr := fs.ReadFile(peeked, name)
		if err != nil || peekErr != nil || string(got) != string(want) {
			t.Errorf("%s: %q and %q, %v, %v", name, got, want, err, peekErr)
		}
	}
	if got := first.Dropped(); len(got) <= len(before) {
		t.Fatalf("reading leaves no trace: %v", got)
	}
	third := open(t, source.Options{Repo: repo.Dir})
	before = third.Dropped()
	quiet := artifact(third).Peek()
	list(t, quiet)
	for _, name := range []string{"a/skipped.yaml", "a/link.yaml", "a/big.bin"} {
		_, _ = fs.Stat(quiet, name) // whether it is there is above
		_, _ = fs.ReadFile(quiet, name)
		_, _ = quiet.(peeker).ObjectID(name)
	}
	if got := third.Dropped(); !slices.Equal(got, before) {
		t.Errorf("peeking leaves %v, before it was %v", got, before)
	}

	id := func(c *source.Commit, name string) string {
		t.Helper()
		id, err := artifact(c).ObjectID(name)
		if err != nil || id == "" {
			t.Fatalf("%s: %q, %v", name, id, err)
		}
		return id
	}
	if id(first, "a/one.yaml") != id(first, "a/same.yaml") || id(first, "a/one.yaml") != id(second, "a/same.yaml") {
		t.Error("files of the same content have other ids")
	}
	if id(first, "a/one.yaml") == id(second, "a/one.yaml") || id(second, "a/one.yaml") != id(second, "a/two.yaml") {
		t.Error("an id does not follow the content")
	}
	if _, err := artifact(first).ObjectID("a"); err == nil {
		t.Error("a folder has an id")
	}
	folder, err := source.OpenPlace(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if id, err := artifact(folder).ObjectID("x"); id != "" || err != nil {
		t.Errorf("outside of Git there is the id %q, %v", id, err)
	}
}
