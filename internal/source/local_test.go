package source_test

import (
	"io/fs"
	"slices"
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
