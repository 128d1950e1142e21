package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Modes are those that Flux's archiver leaves (S10.39).
const (
	modeFolder     = fs.ModeDir | 0o750
	modeFile       = fs.FileMode(0o600)
	modeExecutable = fs.FileMode(0o700)
)

// Dropped is something of the commit that the build does not see as the author may think.
type Dropped struct {
	// Path is the file's, from the repository's root, with slashes.
	Path string
	// Kind is "symlink", "submodule", "lfs" or "ignored".
	Kind string
	// Reason is for people: what it is and what becomes of it.
	Reason string
}

// treeFS is the tree of a commit as a file system. Folders are read when they are first asked for and then kept; file
// contents are read each time. It is safe for concurrent use.
type treeFS struct {
	objects *objects
	root    *folder
	time    time.Time

	mu      sync.Mutex
	dropped map[string]Dropped
}

// folder is a tree object; entries are sorted by name and hold no links and submodules.
type folder struct {
	hash    plumbing.Hash
	once    sync.Once
	entries []*entry
	skipped []skipped
	noted   atomic.Bool // skipped is in treeFS.dropped
	err     error
}

// skipped is a name that a folder has in the commit, but not in the tree.
type skipped struct {
	name string
	Dropped
	link plumbing.Hash // of a symbolic link: the blob that says where it leads
}

// entry is a name in a folder.
type entry struct {
	tree *treeFS
	name string
	path string
	mode fs.FileMode
	hash plumbing.Hash
	dir  *folder // of a folder
}

func newTreeFS(o *objects, root plumbing.Hash, at time.Time) *treeFS {
	return &treeFS{objects: o, root: &folder{hash: root}, time: at, dropped: map[string]Dropped{}}
}

var _ interface {
	fs.ReadDirFS
	fs.ReadFileFS
	fs.StatFS
} = (*treeFS)(nil)

// Open opens a file, whose content is then read at once, or a folder.
func (t *treeFS) Open(name string) (fs.File, error) {
	e, err := t.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if e.mode.IsDir() {
		entries, err := t.ReadDir(name)
		if err != nil {
			return nil, err
		}
		return &openFolder{entry: e, entries: entries}, nil
	}
	data, err := t.read("open", e)
	if err != nil {
		return nil, err
	}
	return &openFile{entry: e, Reader: bytes.NewReader(data)}, nil
}

// ReadFile reads a file. The bytes are the caller's.
func (t *treeFS) ReadFile(name string) ([]byte, error) {
	e, err := t.lookup("read", name)
	if err != nil {
		return nil, err
	}
	if e.mode.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	return t.read("read", e)
}

// ReadDir lists a folder, sorted by name.
func (t *treeFS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := t.lookup("readdir", name)
	if err != nil {
		return nil, err
	}
	if !e.mode.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	if err := t.load(e); err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	t.note(e.dir)
	return e.dir.list(), nil
}

// list is ReadDir for who passes by: it does not count as looking at what the
// folder holds.
func (t *treeFS) list(name string) ([]fs.DirEntry, error) {
	e, err := t.find("readdir", name, func(*folder) {})
	if err != nil {
		return nil, err
	}
	if err := t.load(e); err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return e.dir.list(), nil
}

func (d *folder) list() []fs.DirEntry {
	list := make([]fs.DirEntry, len(d.entries))
	for i, entry := range d.entries {
		list[i] = entry
	}
	return list
}

// Stat describes a file or folder.
func (t *treeFS) Stat(name string) (fs.FileInfo, error) {
	e, err := t.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	info, err := e.Info()
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return info, nil
}

func (t *treeFS) read(op string, e *entry) ([]byte, error) {
	data, err := t.objects.content(e.hash)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: e.path, Err: explainMissing(err)}
	}
	if bytes.HasPrefix(data, lfsHeader) {
		t.drop(e.path, "lfs", "it is a Git LFS pointer; as in Flux, the pointer's text is read, not the file it stands for")
	}
	return data, nil
}

// lfsHeader begins every pointer file (Git LFS specification).
var lfsHeader = []byte("version https://git-lfs.github.com/spec/v1\n")

func explainMissing(err error) error {
	if errors.Is(err, errObjectMissing) {
		return fmt.Errorf("%w (a partial clone? fetch without a filter, or name the repository by its URL)", err)
	}
	return err
}

func (t *treeFS) lookup(op, name string) (*entry, error) {
	return t.find(op, name, t.note)
}

// find walks down to a name and tells which folders it looked into.
func (t *treeFS) find(op, name string, looked func(*folder)) (*entry, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	at := &entry{tree: t, name: ".", path: ".", mode: modeFolder, dir: t.root}
	if name == "." {
		return at, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if !at.mode.IsDir() {
			return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		if err := t.load(at); err != nil {
			return nil, &fs.PathError{Op: op, Path: name, Err: err}
		}
		looked(at.dir)
		i, found := slices.BinarySearchFunc(at.dir.entries, part, func(e *entry, name string) int { return strings.Compare(e.name, name) })
		if !found {
			if s := at.dir.skip(part); s != nil {
				return nil, &fs.PathError{Op: op, Path: name, Err: fmt.Errorf("%w: %q %s", fs.ErrNotExist, s.Path, strings.TrimPrefix(s.Reason, "it "))}
			}
			return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		at = at.dir.entries[i]
	}
	return at, nil
}

// load reads a folder's tree object once.
func (t *treeFS) load(e *entry) error {
	d := e.dir
	d.once.Do(func() {
		tree, err := t.objects.tree(d.hash)
		if err != nil {
			d.err = explainMissing(err)
			return
		}
		d.entries = make([]*entry, 0, len(tree))
		for _, te := range tree {
			if d.err = t.loadEntry(e, te); d.err != nil {
				return
			}
		}
		slices.SortFunc(d.entries, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
		for i := 1; i < len(d.entries); i++ {
			if d.entries[i].name == d.entries[i-1].name {
				d.err = fmt.Errorf("the tree %s is malformed: it holds %q twice", d.hash, d.entries[i].name)
				return
			}
		}
	})
	return d.err
}

func (t *treeFS) loadEntry(in *entry, te object.TreeEntry) error {
	if te.Name == "." || te.Name == ".." || te.Name == "" || strings.ContainsAny(te.Name, "/\x00") {
		return fmt.Errorf("the tree %s is malformed: it holds the name %q", in.dir.hash, te.Name)
	}
	made := &entry{tree: t, name: te.Name, path: path.Join(in.path, te.Name), hash: te.Hash}
	if len(made.path) > maxPath {
		return fmt.Errorf("the path %q… has %d bytes; no checkout holds one of more than %d", made.path[:60], len(made.path), maxPath)
	}
	switch te.Mode {
	case filemode.Dir:
		made.mode, made.dir = modeFolder, &folder{hash: te.Hash}
	case filemode.Regular, filemode.Deprecated:
		made.mode = modeFile
	case filemode.Executable:
		made.mode = modeExecutable
	case filemode.Symlink: // S10.38
		in.dir.skipped = append(in.dir.skipped, skipped{name: te.Name, link: te.Hash, Dropped: Dropped{Path: made.path, Kind: "symlink",
			Reason: "it is a symbolic link; as in Flux, links are dropped"}})
		return nil
	case filemode.Submodule:
		in.dir.skipped = append(in.dir.skipped, skipped{name: te.Name, Dropped: Dropped{Path: made.path, Kind: "submodule",
			Reason: "it is a submodule; submodules are not fetched, its folder is missing"}})
		return nil
	default:
		return fmt.Errorf("the tree %s is malformed: %q has the mode %v", in.dir.hash, te.Name, te.Mode)
	}
	in.dir.entries = append(in.dir.entries, made)
	return nil
}

// skip returns what a folder's name stands for in the commit if that is not in
// the tree, else nil.
func (d *folder) skip(name string) *skipped {
	if i := slices.IndexFunc(d.skipped, func(s skipped) bool { return s.name == name }); i >= 0 {
		return &d.skipped[i]
	}
	return nil
}

// note counts a folder's links and submodules as met.
func (t *treeFS) note(d *folder) {
	if len(d.skipped) == 0 || d.noted.Swap(true) {
		return
	}
	for _, s := range d.skipped {
		t.drop(s.Path, s.Kind, s.Reason)
	}
}

func (t *treeFS) drop(path, kind, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped[path] = Dropped{Path: path, Kind: kind, Reason: reason}
}

// droppedSoFar is in no order.
func (t *treeFS) droppedSoFar() []Dropped {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]Dropped, 0, len(t.dropped))
	for _, d := range t.dropped {
		list = append(list, d)
	}
	return list
}

func (e *entry) Name() string      { return e.name }
func (e *entry) IsDir() bool       { return e.mode.IsDir() }
func (e *entry) Type() fs.FileMode { return e.mode.Type() }
func (e *entry) String() string    { return fs.FormatDirEntry(e) }

// Info finds out the size, which a folder's listing does not need.
func (e *entry) Info() (fs.FileInfo, error) {
	if e.mode.IsDir() {
		return &info{entry: e}, nil
	}
	size, err := e.tree.objects.size(e.hash)
	return &info{entry: e, size: size}, err
}

// info is what is known of a file. All times are the commit's: Git keeps none per file.
type info struct {
	*entry
	size int64
}

func (i *info) Size() int64        { return i.size }
func (i *info) Mode() fs.FileMode  { return i.mode }
func (i *info) ModTime() time.Time { return i.tree.time }
func (i *info) Sys() any           { return nil }
func (i *info) String() string     { return fs.FormatFileInfo(i) }

// openFile has its content in memory.
type openFile struct {
	entry *entry
	*bytes.Reader
}

func (f *openFile) Stat() (fs.FileInfo, error) {
	return &info{entry: f.entry, size: f.Reader.Size()}, nil
}
func (f *openFile) Close() error { return nil }

type openFolder struct {
	entry   *entry
	entries []fs.DirEntry
}

func (f *openFolder) Stat() (fs.FileInfo, error) { return &info{entry: f.entry}, nil }
func (f *openFolder) Close() error               { return nil }
func (f *openFolder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: f.entry.path, Err: errors.New("is a directory")}
}

func (f *openFolder) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		rest := f.entries
		f.entries = nil
		return rest, nil
	}
	if len(f.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(f.entries))
	head := f.entries[:n:n]
	f.entries = f.entries[n:]
	return head, nil
}

// CleanPath brings the spellings of a path in a repository to the one that fs.FS takes: "./a", "/a", "a/" and "a" are "a",
// the root is ".", and no number of ".." leads out of it (S1.8).
func CleanPath(name string) string {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if clean == "" {
		return "."
	}
	return clean
}

// Sub is the tree below a folder, with name cleaned by [CleanPath]. The folder must exist.
func (c *Commit) Sub(name string) (fs.FS, error) {
	name = CleanPath(name)
	stat, err := fs.Stat(c.FS, name)
	if err != nil {
		return nil, err
	}
	if !stat.IsDir() {
		return nil, &fs.PathError{Op: "sub", Path: name, Err: errors.New("not a directory")}
	}
	return fs.Sub(c.FS, name)
}
