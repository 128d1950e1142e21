package source

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// Filter returns the part of a tree that Flux's source-controller would put into a source's artifact. ignore is the source's
// spec.ignore; nil and an empty text are the same.
//
// The patterns are those of every .sourceignore file, each for its own folder and what is below, in the order of a walk, and
// then those of spec.ignore (S10.35). They have gitignore's syntax as go-git reads it, and the last one that matches wins.
// Before them come .git/, .gitignore, .gitmodules and .gitattributes (S10.36); Flux's lists of pictures, archives and files of
// CI systems count only if there is no pattern at all (S10.37). A .gitignore file plays no part (S10.42).
//
// Every file is judged by itself, so that a pattern with "!" brings back a file of an ignored folder, unlike in Git (S10.41). A
// folder is in the view if no pattern matches the folder itself, also if nothing is left in it (S10.40), or if something
// below it is in the view. Symbolic links and other special files are not (S10.38).
//
// The whole tree is walked once for .sourceignore files; everything else is decided when it is asked for. The view implements
// fs.ReadDirFS, fs.ReadFileFS and fs.StatFS, and is safe for concurrent use if the tree is. The tree must not change. What the
// view leaves out is [fs.ErrNotExist], and the error's text names the pattern.
//
// An error means that the tree cannot be read, or that a line of patterns is longer than 64 KiB, at which Flux would silently
// stop reading.
func Filter(tree fs.FS, ignore *string) (fs.FS, error) {
	own, err := ignoreRules(tree)
	if err != nil {
		return nil, err
	}
	return newView(tree, own, ignore)
}

// view is a filtered tree.
type view struct {
	tree  fs.FS
	links bool // the tree can hold links
	rules []rule
	// names are the rules for names at any depth, others all other rules;
	// both by index, the last first.
	names, others []int
	// revives is set if a pattern can bring something back.
	revives bool

	// inherited remembers of folders which of names matches them or a
	// folder above: path to index.
	inherited sync.Map
	// below remembers of ignored folders whether something below them is
	// in the view: path to bool.
	below sync.Map
	// looks counts the folders that holds has listed.
	looks atomic.Int64
	// ignored, if set, is told which names were asked for in vain.
	ignored func(name, reason string)

	peeking sync.Once
	peeked  *view
}

var _ interface {
	fs.ReadDirFS
	fs.ReadFileFS
	fs.StatFS
} = (*view)(nil)

func newView(tree fs.FS, own []rule, ignore *string) (*view, error) {
	given := own
	if ignore != nil {
		more, err := readRules("spec.ignore", strings.NewReader(*ignore), nil)
		if err != nil {
			return nil, err
		}
		given = slices.Concat(own, more)
	}
	if len(given) == 0 {
		given = ownRules(ignoredByDefault)
	}
	v := &view{tree: tree, rules: slices.Concat(ownRules(alwaysIgnored), given)}
	_, v.links = tree.(fs.ReadLinkFS)
	for i, r := range slices.Backward(v.rules) {
		if r.anywhere() {
			v.names = append(v.names, i)
		} else {
			v.others = append(v.others, i)
		}
		v.revives = v.revives || r.revives()
	}
	return v, nil
}

// none is the index of no rule.
const none = -1

// match returns the rule that leaves a path out, nil if none does: the last
// one that matches decides. Rules for names need not see the whole path again
// for each file, which is most of the work where nothing but the default
// patterns is followed.
func (v *view) match(name string, folder bool) *rule {
	last := max(v.inherits(path.Dir(name)), v.matchName(path.Base(name), folder))
	var parts []string
	for _, i := range v.others {
		if i < last {
			break
		}
		if parts == nil {
			parts = strings.Split(name, "/")
		}
		if v.rules[i].Match(parts, folder) != gitignore.NoMatch {
			last = i
			break
		}
	}
	if last == none || v.rules[last].revives() {
		return nil
	}
	return &v.rules[last]
}

// inherits returns the last of names that matches a folder or one above it.
func (v *view) inherits(folder string) int {
	if folder == "." {
		return none
	}
	if known, ok := v.inherited.Load(folder); ok {
		return known.(int)
	}
	last := max(v.inherits(path.Dir(folder)), v.matchName(path.Base(folder), true))
	v.inherited.Store(folder, last)
	return last
}

// matchName returns the last of names that matches one name.
func (v *view) matchName(name string, folder bool) int {
	parts := []string{name}
	for _, i := range v.names {
		if v.rules[i].Match(parts, folder) != gitignore.NoMatch {
			return i
		}
	}
	return none
}

// has says whether an entry of a folder is in the view.
func (v *view) has(name string, e fs.DirEntry) (bool, error) {
	kind := e.Type()
	if !kind.IsDir() && !kind.IsRegular() {
		return false, nil
	}
	if v.match(name, kind.IsDir()) == nil {
		return true, nil
	}
	if !kind.IsDir() {
		return false, nil
	}
	return v.holds(name)
}

// holds says whether something below an ignored folder is in the view. What
// matches a folder matches all that is below it, unless it is brought back.
func (v *view) holds(folder string) (bool, error) {
	if !v.revives {
		return false, nil
	}
	if known, ok := v.below.Load(folder); ok {
		return known.(bool), nil
	}
	if v.looks.Add(1) > maxLooks {
		return false, fmt.Errorf("more than %d ignored folders would have to be looked through for what a pattern with ! brings back", maxLooks)
	}
	entries, err := listing(v.tree, folder)
	if err != nil {
		return false, err
	}
	held := false
	for _, e := range entries {
		if held, err = v.has(path.Join(folder, e.Name()), e); err != nil || held {
			break
		}
	}
	if err == nil {
		v.below.Store(folder, held)
	}
	return held, err
}

// check returns an error if the view does not have what the tree may have.
func (v *view) check(op, name string) error {
	fail := func(err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	if name == "." {
		return nil
	}
	asFile, asFolder := v.match(name, false), v.match(name, true)
	if asFile == nil && asFolder == nil && !v.links {
		return nil // whatever it is
	}
	info, err := v.stat(op, name)
	if err != nil {
		return err
	}
	by := asFile
	if info.IsDir() {
		by = asFolder
	}
	if by == nil {
		return nil
	}
	if info.IsDir() {
		if held, err := v.holds(name); err != nil || held {
			return err
		}
	}
	reason := "is left out, as by Flux: it matches " + by.String()
	if v.ignored != nil {
		v.ignored(name, reason)
	}
	return fail(fmt.Errorf("%w: %s", fs.ErrNotExist, reason))
}

// stat describes a name that leads through no link (S10.38).
func (v *view) stat(op, name string) (fs.FileInfo, error) {
	if !v.links {
		return fs.Stat(v.tree, name)
	}
	var info fs.FileInfo
	parts := strings.Split(name, "/")
	for i := range parts {
		at := strings.Join(parts[:i+1], "/")
		var err error
		if info, err = fs.Lstat(v.tree, at); err != nil {
			return nil, err
		}
		if !info.IsDir() && !info.Mode().IsRegular() {
			return nil, &fs.PathError{Op: op, Path: name,
				Err: fmt.Errorf("%w: %q is neither file nor folder; as in Flux, links and special files are dropped", fs.ErrNotExist, at)}
		}
	}
	return info, nil
}

// Open opens a file or folder.
func (v *view) Open(name string) (fs.File, error) {
	if err := v.check("open", name); err != nil {
		return nil, err
	}
	f, err := v.tree.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !info.IsDir() {
		return f, nil
	}
	return &viewFolder{File: f, view: v, name: name}, nil
}

// ReadFile reads a file. The bytes are the caller's.
func (v *view) ReadFile(name string) ([]byte, error) {
	if err := v.check("read", name); err != nil {
		return nil, err
	}
	return fs.ReadFile(v.tree, name)
}

// Stat describes a file or folder.
func (v *view) Stat(name string) (fs.FileInfo, error) {
	if err := v.check("stat", name); err != nil {
		return nil, err
	}
	return fs.Stat(v.tree, name)
}

// ReadDir lists a folder, sorted by name.
func (v *view) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := v.check("readdir", name); err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(v.tree, name)
	if err != nil {
		return nil, err
	}
	kept := make([]fs.DirEntry, 0, len(entries))
	for _, e := range entries {
		has, err := v.has(path.Join(name, e.Name()), e)
		if err != nil {
			return nil, err
		}
		if has {
			kept = append(kept, e)
		}
	}
	return kept, nil
}

// viewFolder is an open folder of a view. Its listing is the view's.
type viewFolder struct {
	fs.File
	view   *view
	name   string
	listed bool
	rest   []fs.DirEntry
}

// ReadDir continues the listing, as [fs.ReadDirFile] says.
func (f *viewFolder) ReadDir(n int) ([]fs.DirEntry, error) {
	if !f.listed {
		entries, err := f.view.ReadDir(f.name)
		if err != nil {
			return nil, err
		}
		f.listed, f.rest = true, entries
	}
	if n <= 0 {
		rest := f.rest
		f.rest = nil
		return rest, nil
	}
	if len(f.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(f.rest))
	head := f.rest[:n:n]
	f.rest = f.rest[n:]
	return head, nil
}
