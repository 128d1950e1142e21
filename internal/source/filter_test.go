package source_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/fluxcd/pkg/sourceignore"

	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/source"
)

// all lists a tree; folders end with a slash.
func all(t *testing.T, tree fs.FS) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && name != "." {
			name += "/"
		}
		if name != "." {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// tree makes a tree of "name=content" or bare names; a name that ends with a
// slash is an empty folder.
func tree(files ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for _, f := range files {
		name, content, _ := strings.Cut(f, "=")
		if folder, ok := strings.CutSuffix(name, "/"); ok {
			m[folder] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
			continue
		}
		m[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	return m
}

func ptr(s string) *string { return &s }

func TestFilter(t *testing.T) {
	tests := []struct {
		name   string
		files  []string
		ignore *string
		want   string
	}{
		{"S10.36 Git's own files", []string{".gitignore", ".gitmodules", "a/.gitattributes", "a/b.yaml", "a/.gitkeep"}, nil,
			"a/ a/.gitkeep a/b.yaml"},
		{"S10.37 the default lists", []string{".github/workflows/ci.yaml", ".gitlab-ci.yml", "a/logo.png", "a/x.tar.gz", "a/.sops.yaml", "a/b.yaml"}, nil,
			"a/ a/b.yaml"},
		{"S10.37 one pattern switches the lists off", []string{".github/w.yaml", "a/logo.png", "a/.sourceignore=nothing-of-the-kind"}, nil,
			".github/ .github/w.yaml a/ a/.sourceignore a/logo.png"},
		{"S10.37 a comment is no pattern", []string{".github/w.yaml", ".sourceignore=# note\n\n   \n", "a.yaml"}, nil,
			".sourceignore a.yaml"},
		{"S10.37 spec.ignore counts as well", []string{".github/w.yaml", "a.yaml"}, ptr("b"), ".github/ .github/w.yaml a.yaml"},
		{"S10.37 an empty spec.ignore does not", []string{".github/w.yaml", "a.yaml"}, ptr("\n# none\n"), "a.yaml"},
		{"S10.36 a pattern brings Git's files back", []string{".gitignore", "a/.gitignore"}, ptr("!/.gitignore"), ".gitignore a/"},
		{"S10.35 scoped to the folder", []string{"a/.sourceignore=x.yaml\n/y.yaml", "a/x.yaml", "a/b/x.yaml", "a/b/y.yaml", "a/y.yaml", "x.yaml", "y.yaml"}, nil,
			"a/ a/.sourceignore a/b/ a/b/y.yaml x.yaml y.yaml"},
		{"S10.35 deeper files and then spec.ignore win", []string{".sourceignore=*.txt", "a/.sourceignore=!*.txt", "a/b.txt", "a/c.txt", "d.txt"}, ptr("a/c.txt"),
			".sourceignore a/ a/.sourceignore a/b.txt"},
		{"S10.35 the last match wins, whatever is narrower", []string{"a/keep.yaml", "a/b.yaml"}, ptr("!a/keep.yaml\n/a/*"), "a/"},
		{"S10.35 the order is that of a walk, not of depth", []string{"a/.sourceignore=x", "a/b/.sourceignore=!x", "a/b/x", "a/x"}, nil,
			"a/ a/.sourceignore a/b/ a/b/.sourceignore a/b/x"},
		{"S10.35 \\r\\n ends a line", []string{".sourceignore=a.yaml\r\nb.yaml\r\n", "a.yaml", "b.yaml", "c.yaml"}, nil, ".sourceignore c.yaml"},
		{"S10.35 patterns of an ignored folder count", []string{".sourceignore=a/", "a/.sourceignore=!k.yaml", "a/k.yaml", "a/l.yaml"}, nil,
			".sourceignore a/ a/k.yaml"},
		{"S10.40 a folder stays when its files go", []string{"a/b/c.yaml", "d.txt"}, ptr("*.yaml"), "a/ a/b/ d.txt"},
		{"S10.40 a folder that matches goes", []string{"a/b/c.yaml", "d/a/e.yaml"}, ptr("a/"), "d/"},
		{"S10.41 a file of an ignored folder comes back", []string{"a/b/c.yaml", "a/b/d.yaml", "a/e/f.yaml"}, ptr("/a\n!/a/b/c.yaml"), "a/ a/b/ a/b/c.yaml"},
		{"S10.41 an empty folder of an ignored one comes back", []string{"a/b/c.yaml"}, ptr("/a\n!/a/b/\n*.yaml"), "a/ a/b/"},
		{"S10.42 .gitignore plays no part", []string{".gitignore=*.yaml", "a.yaml"}, nil, "a.yaml"},
		{"everything", []string{"a/b.yaml", "c"}, ptr("*"), ""},
		{"a folder called .sourceignore", []string{"a/.sourceignore/x.png"}, nil, "a/ a/.sourceignore/"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			from := tree(test.files...)
			view, err := source.Filter(from, test.ignore)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(all(t, view), " "); got != test.want {
				t.Errorf("%s\nwant %s", got, test.want)
			}
			agrees(t, from, view)
			conforms(t, view, strings.Fields(test.want))
		})
	}
}

// conforms checks that a view is a sound file system with just these names.
func conforms(t *testing.T, view fs.FS, names []string) {
	t.Helper()
	var plain []string
	for _, name := range names {
		plain = append(plain, strings.TrimSuffix(name, "/"))
	}
	if err := fstest.TestFS(view, plain...); err != nil {
		t.Error(err)
	}
}

// agrees checks that every name of the tree can be opened, read and described
// in the view exactly if the view lists it.
func agrees(t *testing.T, from, view fs.FS) {
	t.Helper()
	listed := all(t, view)
	for _, name := range all(t, from) {
		plain := strings.TrimSuffix(name, "/")
		want := slices.Contains(listed, name)
		check := func(op string, err error) {
			if want && err != nil || !want && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s %q, listed %v: %v", op, name, want, err)
			}
		}
		_, err := fs.Stat(view, plain)
		check("stat", err)
		f, err := view.Open(plain)
		check("open", err)
		if err == nil {
			_ = f.Close()
		}
		if plain == name {
			_, err = fs.ReadFile(view, plain)
			check("read", err)
		} else {
			_, err = fs.ReadDir(view, plain)
			check("readdir", err)
		}
	}
}

func TestFilterErrors(t *testing.T) {
	long := strings.Repeat("x", 1<<16)
	for name, test := range map[string]struct {
		tree   fs.FS
		ignore *string
		want   string
	}{
		"a line of a file": {tree("a/.sourceignore=one\n" + long), nil, "a/.sourceignore cannot be read after pattern 1: bufio.Scanner: token too long"},
		"a line of spec":   {tree("a"), &long, "spec.ignore cannot be read after pattern 0: bufio.Scanner: token too long"},
		"an unreadable folder": {failing{tree("a/b/c"), "a/b"}, nil,
			"looking for .sourceignore files: cannot be read"},
		"an unreadable file": {failing{tree("a/.sourceignore=b"), "a/.sourceignore"}, nil, "reading patterns: cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := source.Filter(test.tree, test.ignore); err == nil || err.Error() != test.want {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}

	view, err := source.Filter(tree(".github/w.yaml", "a/logo.png", "a/b.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.ReadFile(view, "a/logo.png"); err == nil || !errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), `is left out, as by Flux: it matches "*.png", which Flux ignores by default`) {
		t.Errorf("the error does not say why: %v", err)
	}
	if _, err := fs.ReadDir(view, "a/b.yaml"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("listing a file: %v", err)
	}
	for _, bad := range []string{"", "/a", "../a", "a/", "./a"} {
		if _, err := fs.Stat(view, bad); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v, want fs.ErrInvalid", bad, err)
		}
	}
}

// failing is a tree with one name that cannot be read.
type failing struct {
	fstest.MapFS
	name string
}

var errUnreadable = errors.New("cannot be read")

func (f failing) ReadDir(name string) ([]fs.DirEntry, error) {
	if name == f.name {
		return nil, errUnreadable
	}
	return f.MapFS.ReadDir(name)
}

func (f failing) ReadFile(name string) ([]byte, error) {
	if name == f.name {
		return nil, errUnreadable
	}
	return f.MapFS.ReadFile(name)
}

// TestFilterIsFlux compares what is visible with what source-controller packs
// and kustomize-controller unpacks, on random trees and patterns, with the
// module that they read patterns with.
func TestFilterIsFlux(t *testing.T) {
	const rounds = 300
	hidden, revived, emptied := 0, 0, 0
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 10))
		dir := t.TempDir()
		randomTree(t, r, dir)
		var ignore *string
		if r.IntN(2) == 0 {
			ignore = ptr(randomPatterns(r))
		}
		want := artifact(t, dir, ignore)
		view, err := source.Filter(os.DirFS(dir), ignore)
		if err != nil {
			t.Fatal(err)
		}
		got := all(t, view)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d, spec.ignore %q:\n got %q\nwant %q", seed, deref(ignore), got, want)
		}
		whole := all(t, os.DirFS(dir))
		hidden += len(whole) - len(got)
		for _, name := range got {
			if strings.HasSuffix(name, "/") && !slices.ContainsFunc(got, func(other string) bool { return other != name && strings.HasPrefix(other, name) }) {
				emptied++
			}
		}
		if strings.Contains(deref(ignore), "!") {
			revived++
		}
		if seed%50 == 0 {
			inCommit(t, dir, ignore, got)
			conforms(t, view, got)
			agrees(t, os.DirFS(dir), view)
		}
	}
	t.Logf("%d names hidden, %d folders empty, %d texts that bring back", hidden, emptied, revived)
	if hidden < rounds || emptied < rounds/10 || revived < rounds/10 {
		t.Error("the trees and patterns try too little")
	}
}

func deref(s *string) string {
	if s == nil {
		return "<none>"
	}
	return *s
}

var (
	randomFolders = []string{"a", "b", "c.d", ".github", "a b"}
	randomFiles   = []string{"a", "b", "x.yaml", "y.yaml", "logo.png", ".gitignore", ".gitattributes", ".sops.yaml", ".travis.yml", "z.tar.gz"}
	randomParts   = append([]string{"*", "**", "*.yaml", "?", "[ab]", "a*", "", "..", "[", "**b", "\\a", "a\\ "}, append(randomFolders, randomFiles...)...)
)

func randomTree(t *testing.T, r *rand.Rand, dir string) {
	t.Helper()
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var grow func(dir string, depth int)
	grow = func(dir string, depth int) {
		for _, name := range randomFiles {
			if r.IntN(3) == 0 {
				write(filepath.Join(dir, name), name)
			}
		}
		if r.IntN(6) == 0 {
			write(filepath.Join(dir, ".sourceignore"), randomPatterns(r))
		}
		if r.IntN(8) == 0 {
			if err := os.Symlink(randomFiles[r.IntN(len(randomFiles))], filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
		}
		if depth == 0 {
			return
		}
		for _, name := range randomFolders {
			sub := filepath.Join(dir, name)
			if _, err := os.Lstat(sub); err == nil || r.IntN(2) == 0 {
				continue
			}
			if err := os.Mkdir(sub, 0o700); err != nil {
				t.Fatal(err)
			}
			grow(sub, depth-1)
		}
	}
	grow(dir, 2)
}

func randomPatterns(r *rand.Rand) string {
	var text strings.Builder
	for range r.IntN(5) {
		if r.IntN(8) == 0 {
			text.WriteString([]string{"# a comment\n", "\n", "  \n", " # no comment\n"}[r.IntN(4)])
		}
		if r.IntN(3) == 0 {
			text.WriteString("!")
		}
		if r.IntN(3) == 0 {
			text.WriteString("/")
		}
		for i := range 1 + r.IntN(3) {
			if i > 0 {
				text.WriteString("/")
			}
			text.WriteString(randomParts[r.IntN(len(randomParts))])
		}
		if r.IntN(3) == 0 {
			text.WriteString("/")
		}
		text.WriteString([]string{"\n", "\n", "\r\n", " \n"}[r.IntN(4)])
	}
	return text.String()
}

// artifact is what is in the folder that source-controller's artifact is
// unpacked to: each name that is not filtered is packed, a file makes the
// folders that it needs.
func artifact(t *testing.T, dir string, ignore *string) []string {
	t.Helper()
	domain := strings.Split(dir, string(filepath.Separator))
	patterns, err := sourceignore.LoadIgnorePatterns(dir, domain)
	if err != nil {
		t.Fatal(err)
	}
	if ignore != nil {
		patterns = append(patterns, sourceignore.ReadPatterns(bytes.NewBufferString(*ignore), domain)...)
	}
	matcher := sourceignore.NewDefaultMatcher(patterns, domain)
	if len(patterns) > 0 {
		matcher = sourceignore.NewMatcher(append(sourceignore.VCSPatterns(domain), patterns...))
	}
	var names []string
	err = filepath.Walk(dir, func(name string, info fs.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() && !info.IsDir() || name == dir {
			return nil
		}
		if matcher.Match(strings.Split(name, string(filepath.Separator)), info.IsDir()) {
			return nil
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		for parent := path.Dir(rel); parent != "."; parent = path.Dir(parent) {
			names = append(names, parent+"/")
		}
		if info.IsDir() {
			rel += "/"
		}
		names = append(names, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// inCommit checks that the view of a commit of the folder has the same files;
// a commit has no empty folders.
func inCommit(t *testing.T, dir string, ignore *string, want []string) {
	t.Helper()
	repo, err := gittest.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.CommitFolder("all of it", dir); err != nil {
		t.Fatal(err)
	}
	c := open(t, source.Options{Repo: repo.Dir})
	view, err := c.Artifact(ignore)
	if err != nil {
		t.Fatal(err)
	}
	isFolder := func(name string) bool { return strings.HasSuffix(name, "/") }
	got := slices.DeleteFunc(all(t, view), isFolder)
	if want := slices.DeleteFunc(slices.Clone(want), isFolder); !slices.Equal(got, want) {
		t.Errorf("the commit's view has %q, want %q", got, want)
	}
}

// TestFilterLinks (S10.38): neither links nor what is behind them.
func TestFilterLinks(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "folder"), 0o700),
		os.WriteFile(filepath.Join(dir, "folder", "a.yaml"), []byte("a: 1"), 0o600),
		os.Symlink("folder", filepath.Join(dir, "linked")),
		os.Symlink("folder/a.yaml", filepath.Join(dir, "link.yaml")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	view, err := source.Filter(os.DirFS(dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(all(t, view), " "); got != "folder/ folder/a.yaml" {
		t.Errorf("the view has %s", got)
	}
	for _, name := range []string{"linked", "linked/a.yaml", "link.yaml"} {
		if _, err := fs.ReadFile(view, name); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "links and special files are dropped") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestArtifact(t *testing.T) {
	repo := gittest.New(t, "")
	repo.Commit("links and patterns",
		gittest.File("a/.sourceignore", "secret.yaml\n"),
		gittest.File("a/secret.yaml", "a: 1\n"),
		gittest.File("a/b.yaml", "b: 1\n"),
		gittest.Symlink("a/link.yaml", "b.yaml"),
		gittest.Symlink("far/link.yaml", "../a/b.yaml"),
		// A checkout's .sourceignore may be a link.
		gittest.Symlink("c/.sourceignore", "../shared/../a/.sourceignore"),
		gittest.Symlink("d/.sourceignore", "../c/.sourceignore"),
		gittest.Symlink("e/.sourceignore", "../missing"),
		gittest.Symlink("f/.sourceignore", "/etc/passwd"),
		gittest.File("c/secret.yaml", "c: 1\n"),
		gittest.File("d/secret.yaml", "d: 1\n"),
		gittest.File("e/secret.yaml", "e: 1\n"),
	)
	c := open(t, source.Options{Repo: repo.Dir})
	view, err := c.Artifact(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Dropped(); len(got) != 0 {
		t.Errorf("looking for patterns counts as looking: %v", got)
	}
	if got := strings.Join(list(t, view), " "); got != "a/.sourceignore a/b.yaml e/secret.yaml" {
		t.Errorf("the view has %s", got)
	}
	if _, err := fs.Stat(view, "a/secret.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a/secret.yaml: %v", err)
	}
	var dropped []string
	for _, d := range c.Dropped() {
		dropped = append(dropped, d.Kind+" "+d.Path)
		if d.Kind == "ignored" && d.Reason != `it is left out, as by Flux: it matches "secret.yaml" in a/.sourceignore` {
			t.Errorf("%s: %s", d.Path, d.Reason)
		}
	}
	want := "symlink a/link.yaml ignored a/secret.yaml symlink c/.sourceignore symlink d/.sourceignore symlink e/.sourceignore symlink f/.sourceignore symlink far/link.yaml"
	if got := strings.Join(dropped, " "); got != want {
		t.Errorf("dropped %s, want %s", got, want)
	}

	// one view for each spec.ignore, also when many ask at once
	views := make([]fs.FS, 8)
	var wait sync.WaitGroup
	for i := range views {
		wait.Go(func() {
			views[i], _ = c.Artifact(ptr([]string{"", "b.yaml"}[i%2]))
			_, _ = fs.ReadFile(views[i], "a/b.yaml")
			_, _ = fs.ReadDir(views[i], "a")
		})
	}
	wait.Wait()
	for i, v := range views {
		if same := v == view; same != (i%2 == 0) {
			t.Errorf("view %d is the one without spec.ignore: %v", i, same)
		}
		if i >= 2 && v != views[i-2] {
			t.Errorf("view %d was made again", i)
		}
	}
	if _, err := fs.Stat(views[1], "a/b.yaml"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `"b.yaml" in spec.ignore`) {
		t.Errorf("a/b.yaml with spec.ignore: %v", err)
	}
}

func TestArtifactLinkedPatterns(t *testing.T) {
	for want, changes := range map[string][]gittest.Change{
		`"a/.sourceignore" links to "b/patterns", which leads through another link: make it a link to the file itself`: {
			gittest.Symlink("a/.sourceignore", "../b/patterns"), gittest.Symlink("b", "c"), gittest.File("c/patterns", "x")},
		`"a/.sourceignore" is a symbolic link that leads to more than 10 others`: {
			gittest.Symlink("a/.sourceignore", "x"), gittest.Symlink("a/x", ".sourceignore")},
	} {
		repo := gittest.New(t, "")
		repo.Commit("a link", changes...)
		c := open(t, source.Options{Repo: repo.Dir})
		if _, err := c.Artifact(nil); err == nil || err.Error() != "reading patterns: "+want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

// BenchmarkFilter makes a view of 2,000 files and lists and reads all of them,
// beside the tree itself.
func BenchmarkFilter(b *testing.B) {
	c, err := source.Open(b.Context(), source.Options{Repo: large(b).Dir})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	walk := func(b *testing.B, tree fs.FS) {
		files := 0
		err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				files++
			}
			return err
		})
		if err != nil || files != 2000 {
			b.Fatal(files, err)
		}
	}
	b.Run("tree", func(b *testing.B) {
		for b.Loop() {
			walk(b, c.FS)
		}
	})
	for i, ignore := range []*string{nil, ptr("/docs\n*.md\n!apps/README.md\n")} {
		b.Run(fmt.Sprintf("make/%d", i), func(b *testing.B) {
			for b.Loop() {
				if _, err := source.Filter(c.FS, ignore); err != nil {
					b.Fatal(err)
				}
			}
		})
		view, err := source.Filter(c.FS, ignore)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("walk/%d", i), func(b *testing.B) {
			for b.Loop() {
				walk(b, view)
			}
		})
	}
}
