package source

import (
	"io/fs"

	"github.com/go-git/go-git/v5/plumbing"
)

// What follows lets a reader of a tree find out whether it has seen the same
// before, without reading it again. The trees of a [Commit] have these methods,
// and what [Filter] makes of one.

// ObjectID returns a name for what a file holds: its object in Git. Files of
// equal ids have equal content, in whatever commit or repository they are. It is
// empty if the tree is not Git's.
func (v *view) ObjectID(name string) (string, error) {
	known, ok := v.tree.(interface{ ObjectID(string) (string, error) })
	if !ok {
		return "", nil
	}
	if err := v.check("identify", name); err != nil {
		return "", err
	}
	return known.ObjectID(name)
}

// Peek returns the same view for somebody who only compares: what is asked of it
// does not show in [Commit.Dropped], and the sizes of files are not looked up.
func (v *view) Peek() fs.FS {
	v.peeking.Do(func() {
		tree := v.tree
		if t, ok := tree.(*treeFS); ok {
			tree = peekFS{t}
		}
		v.peeked = &view{tree: tree, links: v.links, rules: v.rules, names: v.names, others: v.others, revives: v.revives}
	})
	return v.peeked
}

// ObjectID is that of a view.
func (t *treeFS) ObjectID(name string) (string, error) {
	e, err := t.find("identify", name, func(*folder) {})
	if err != nil {
		return "", err
	}
	if e.mode.IsDir() {
		return "", &fs.PathError{Op: "identify", Path: name, Err: fs.ErrInvalid}
	}
	return objectName(e.hash), nil
}

func objectName(hash plumbing.Hash) string { return "git:" + hash.String() }

// peekFS is a commit's tree that takes no note of what was asked.
type peekFS struct{ *treeFS }

// Open opens nothing: who peeks lists, describes and reads.
func (t peekFS) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
}

// Stat describes a file or folder, but for its size.
func (t peekFS) Stat(name string) (fs.FileInfo, error) {
	e, err := t.find("stat", name, func(*folder) {})
	if err != nil {
		return nil, err
	}
	return &info{entry: e}, nil
}

// ReadDir lists a folder, sorted by name.
func (t peekFS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := t.find("readdir", name, func(*folder) {})
	if err != nil {
		return nil, err
	}
	if !e.mode.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrInvalid}
	}
	if err := t.load(e); err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return e.dir.list(), nil
}

// ReadFile reads a file. The bytes are the caller's.
func (t peekFS) ReadFile(name string) ([]byte, error) {
	e, err := t.find("read", name, func(*folder) {})
	if err != nil {
		return nil, err
	}
	if e.mode.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrInvalid}
	}
	data, err := t.objects.content(e.hash)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: explainMissing(err)}
	}
	return data, nil
}
