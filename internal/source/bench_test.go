package source_test

import (
	"fmt"
	"io/fs"
	"testing"

	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/source"
)

// large is a repository of 2,000 files in 400 folders, as the largest that the budgets are about.
func large(b *testing.B) *gittest.TestRepo {
	repo := gittest.New(b, "")
	var changes []gittest.Change
	for i := range 2000 {
		changes = append(changes, gittest.File(fmt.Sprintf("apps/team-%d/app-%d/manifests/object-%d.yaml", i%20, i%200, i),
			fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: object-%d\ndata:\n  number: %q\n", i, fmt.Sprint(i))))
	}
	repo.Commit("many files", changes...)
	repo.Git("gc", "-q")
	return repo
}

func readAll(b *testing.B, o source.Options) {
	c, err := source.Open(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	files := 0
	err = fs.WalkDir(c.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		_, err = fs.ReadFile(c.FS, name)
		return err
	})
	if err != nil || files != 2000 {
		b.Fatal(files, err)
	}
}

func BenchmarkReadAllLocal(b *testing.B) {
	o := source.Options{Repo: large(b).Dir}
	b.ReportAllocs()
	for b.Loop() {
		readAll(b, o)
	}
}

func BenchmarkReadAllHTTP(b *testing.B) {
	o := source.Options{Repo: gittest.Serve(b, large(b), gittest.HTTP{}).URL}
	b.ReportAllocs()
	for b.Loop() {
		readAll(b, o)
	}
}
