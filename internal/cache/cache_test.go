package cache_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/cache"
)

const large = 1 << 20

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string, limit int64, now time.Time) *cache.Folder {
	t.Helper()
	f, err := cache.Open(dir, limit, now)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// get returns the body of the first entry with that head; "" for none.
func get(f *cache.Folder, key, head string) (body string) {
	f.Find([]byte(key), func(h, b []byte) (bool, error) {
		if string(h) != head {
			return false, nil
		}
		body = string(b)
		return true, nil
	})
	return body
}

func keep(f *cache.Folder, key, head, body string) { f.Keep([]byte(key), []byte(head), []byte(body)) }

// names lists the files of the cache, sorted.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "builds"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Join(dir, "builds", e.Name()))
	}
	return names
}

func noProblems(t *testing.T, f *cache.Folder) {
	t.Helper()
	for _, p := range f.Problems() {
		t.Errorf("problem: %+v", p)
	}
}

// TestKeep: what was kept is found, in this run and the next, by key and head;
// only the owner can read it.
func TestKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there")
	first := open(t, dir, large, day)
	keep(first, "k", "h1", "one")
	keep(first, "k", "h2", "two")
	keep(first, "other", "h1", "three")
	keep(first, "empty", "", "")
	second := open(t, dir, large, day)
	for _, f := range []*cache.Folder{first, second} {
		for _, want := range [][3]string{{"k", "h1", "one"}, {"k", "h2", "two"}, {"other", "h1", "three"}, {"other", "h2", ""}, {"none", "h1", ""}} {
			if got := get(f, want[0], want[1]); got != want[2] {
				t.Errorf("%s %s: %q, want %q", want[0], want[1], got, want[2])
			}
		}
		if !f.Find([]byte("empty"), func(head, body []byte) (bool, error) { return len(head)+len(body) == 0, nil }) {
			t.Error("an empty entry is not found")
		}
		noProblems(t, f)
	}
	keep(second, "k", "h1", "new")
	if got := get(open(t, dir, large, day), "k", "h1"); got != "new" {
		t.Errorf("%q after it was kept again", got)
	}
	for _, name := range names(t, dir) {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "builds")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", info.Mode(), err)
	}
}

// TestVariants: of one key a few entries are kept, and those that were used last
// come first.
func TestVariants(t *testing.T) {
	dir := t.TempDir()
	for i := range 6 {
		f := open(t, dir, large, day.Add(time.Duration(i)*time.Hour))
		keep(f, "k", fmt.Sprint("h", i), fmt.Sprint(i))
		if i == 4 && get(f, "k", "h1") != "1" { // used, so h2 goes before it
			t.Error("h1 is gone")
		}
		noProblems(t, f)
	}
	f := open(t, dir, large, day)
	var heads []string
	f.Find([]byte("k"), func(head, _ []byte) (bool, error) {
		heads = append(heads, string(head))
		return false, nil
	})
	if want := []string{"h5", "h4", "h1", "h3"}; !slices.Equal(heads, want) {
		t.Errorf("offered %q, want %q", heads, want)
	}
}

// TestDamage: whatever happens to a file, what is found is what was kept, or
// nothing. The file is told of, removed, and written anew.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	keep(open(t, dir, large, day), "k", "the head", "the body")
	file := names(t, dir)[0]
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var damages [][]byte
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 1 << (i % 8)
		damages = append(damages, flipped, whole[:i])
	}
	damages = append(damages, append(bytes.Clone(whole), 'x'), bytes.Repeat([]byte{0xff}, 200), []byte("not from here"))
	for _, data := range damages {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		f := open(t, dir, large, day)
		if f.Find([]byte("k"), func(head, body []byte) (bool, error) { return true, nil }) {
			t.Fatalf("found in %q", data)
		}
		problems := f.Problems()
		if len(problems) != 1 || !problems[0].Damaged || problems[0].Path != file || problems[0].Err == nil {
			t.Fatalf("problems %v of %q", problems, data)
		}
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("it is still there: %v", err)
		}
		keep(f, "k", "the head", "the body")
		if get(open(t, dir, large, day), "k", "the head") != "the body" {
			t.Fatal("not written anew")
		}
		noProblems(t, f)
	}
}

// TestMisplaced: an entry counts for its own key only, and what take cannot
// read is damaged, whatever its digest.
func TestMisplaced(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, large, day)
	keep(f, "a", "h", "of a")
	keep(f, "b", "h", "of b")
	all := names(t, dir)
	data, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(all[1], data, 0o600); err != nil {
		t.Fatal(err)
	}
	f = open(t, dir, large, day)
	a, b := get(f, "a", "h"), get(f, "b", "h")
	if (a == "of a") == (b == "of b") || a != "" && a != "of a" || b != "" && b != "of b" {
		t.Errorf("%q and %q", a, b)
	}
	if problems := f.Problems(); len(problems) != 1 || problems[0].Path != all[1] {
		t.Errorf("problems %v", problems)
	}
	keep(f, "c", "h", "nonsense")
	if f.Find([]byte("c"), func(_, _ []byte) (bool, error) { return false, errors.New("cannot be read") }) {
		t.Error("found")
	}
	if problems := f.Problems(); len(problems) != 1 || !problems[0].Damaged {
		t.Errorf("problems %v", problems)
	}
}

// TestTidy: what was used least lately goes, by name if at the same time, until
// the rest is within the limit. What is not the cache's stays.
func TestTidy(t *testing.T) {
	dir := t.TempDir()
	body := strings.Repeat("x", 1000)
	for i := range 5 {
		keep(open(t, dir, large, day.Add(time.Duration(i)*time.Hour)), fmt.Sprint("k", i), "h", body)
	}
	if get(open(t, dir, large, day.Add(9*time.Hour)), "k0", "h") == "" { // now the youngest
		t.Fatal("k0 is gone")
	}
	builds := filepath.Join(dir, "builds")
	write := func(name string, at time.Time) {
		t.Helper()
		name = filepath.Join(builds, name)
		if err := errors.Join(os.WriteFile(name, []byte(body), 0o600), os.Chtimes(name, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	write("notes.txt", day.Add(-time.Hour))
	write(".new-abandoned", day.Add(8*time.Hour))
	write(".new-being-written", day.Add(9*time.Hour+30*time.Minute))
	if err := os.MkdirAll(filepath.Join(builds, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	f := open(t, dir, 3300, day.Add(10*time.Hour))
	f.Tidy()
	noProblems(t, f)
	left := open(t, dir, large, day)
	for i, want := range []bool{true, false, false, true, true} {
		if got := get(left, fmt.Sprint("k", i), "h") != ""; got != want {
			t.Errorf("k%d is there: %v, want %v", i, got, want)
		}
	}
	for name, want := range map[string]bool{"notes.txt": true, "folder": true, ".new-abandoned": false, ".new-being-written": true} {
		if _, err := os.Stat(filepath.Join(builds, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	f = open(t, dir, 500, day)
	keep(f, "huge", "h", body)
	f.Tidy()
	if get(open(t, dir, large, day), "huge", "h") != "" {
		t.Error("an entry beyond the limit was kept")
	}
	noProblems(t, f)
}

// TestUnusable: a folder that cannot be used is told of once, and costs nothing
// else.
func TestUnusable(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, large, day)
	keep(f, "k", "h", "body")
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "builds")), os.WriteFile(filepath.Join(dir, "builds"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		keep(f, "other", "h", "body")
	}
	problems := f.Problems()
	if len(problems) != 1 || problems[0].Damaged || problems[0].Err == nil {
		t.Errorf("problems %v", problems)
	}
	if get(f, "k", "h") != "" {
		t.Error("found in a folder that is gone")
	}
	f.Problems()
	f.Tidy()
	if problems := f.Problems(); len(problems) != 1 || problems[0].Damaged {
		t.Errorf("problems %v", problems)
	}
	if _, err := cache.Open(filepath.Join(dir, "builds"), large, day); err == nil {
		t.Error("a file was opened as a folder")
	}
}

// TestShared: jobs that share a folder and tidy it find what was kept, or
// nothing, and have no problem with each other.
func TestShared(t *testing.T) {
	dir := t.TempDir()
	body := func(i int) string { return strings.Repeat(fmt.Sprint(i, " "), 300) }
	var all sync.WaitGroup
	for job := range 4 {
		all.Go(func() {
			for round := range 10 {
				f, err := cache.Open(dir, 6000, day.Add(time.Duration(round)*time.Minute))
				if err != nil {
					t.Error(err)
					return
				}
				var steps sync.WaitGroup
				for i := range 8 {
					steps.Go(func() {
						key := fmt.Sprint("k", (i+job)%8)
						want := body((i + job) % 8)
						if got := get(f, key, "h"); got != "" && got != want {
							t.Errorf("%s: %q", key, got)
						}
						keep(f, key, "h", want)
					})
				}
				steps.Wait()
				f.Tidy()
				for _, p := range f.Problems() {
					t.Errorf("%+v", p)
				}
			}
		})
	}
	all.Wait()
	var total int64
	for _, name := range names(t, dir) {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(filepath.Base(name), ".new-") {
			t.Errorf("%s was left", name)
		}
		total += info.Size()
	}
	if total > 6000 {
		t.Errorf("%d bytes are left", total)
	}
}
