package build

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// mount is where the tree seems to be for kustomize. It is not "/", so that a
// path with too many ".." leaves the tree and fails (S2.32) instead of being
// read as a path inside it.
const mount = "/.tree"

// overlay is the file system of one build: a read-only tree, plus the one
// kustomization file that Flux would generate or rewrite, plus, for remote
// bases, kustomize's own temporary clones. It records what is read.
//
// It belongs to one build and is not safe for concurrent use.
type overlay struct {
	tree    fs.FS
	links   bool
	clones  bool // kustomize may read the clones that it makes
	cloned  bool // it has
	started time.Time
	written map[string][]byte
	content map[string][]byte
	weights map[string]int  // of content: values
	strings map[string]bool // files that only become a string: they hold no values
	meter   meter
	// onRead is told what kustomize is about to read: the path in the tree, or
	// nothing for a file of a clone, and where kustomize sees the file.
	onRead func(name, at string, data []byte)
}

func newOverlay(tree fs.FS, clones bool) *overlay {
	_, links := tree.(fs.ReadLinkFS)
	return &overlay{
		tree:    tree,
		links:   links,
		clones:  clones,
		started: time.Now(),
		written: map[string][]byte{},
		content: map[string][]byte{},
		weights: map[string]int{},
		strings: map[string]bool{},
	}
}

var _ filesys.FileSystem = (*overlay)(nil)

// inTree returns the path relative to the tree's root, and false for a path
// outside of it.
func inTree(name string) (string, bool) {
	if !path.IsAbs(name) {
		name = path.Join(mount, name)
	}
	name = path.Clean(name)
	if name == mount {
		return ".", true
	}
	rest, ok := strings.CutPrefix(name, mount+"/")
	return rest, ok
}

// outside is the error for a path that leaves the tree (S2.32).
func outside(op, name string) error {
	return fmt.Errorf("fs-security-constraint %s %s: path '%s' is not in or below '%s'", op, name, path.Clean(name), mount)
}

// clone reports whether a path is in a clone that kustomize made for this
// build: a private folder with kustomize's random name, younger than the
// build. An older one belongs to somebody else.
func (o *overlay) clone(name string) bool {
	if !o.clones || !filepath.IsAbs(name) {
		return false
	}
	temp, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		return false
	}
	rest, ok := strings.CutPrefix(filepath.Clean(name), temp+string(filepath.Separator)+"kustomize-")
	if !ok {
		return false
	}
	random, _, _ := strings.Cut(rest, string(filepath.Separator))
	info, err := os.Lstat(filepath.Join(temp, "kustomize-"+random))
	ok = err == nil && info.IsDir() && info.Mode().Perm() == 0o700 && !info.ModTime().Before(o.started.Add(-time.Second))
	o.cloned = o.cloned || ok
	return ok
}

// stat looks a path of the tree up. Links do not exist: Flux's sources drop
// them (S10.38).
func (o *overlay) stat(name string) (fs.FileInfo, error) {
	if data, ok := o.written[name]; ok {
		return memoryInfo{path.Base(name), int64(len(data))}, nil
	}
	if !o.links {
		return fs.Stat(o.tree, name)
	}
	missing := &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	if name != "." {
		for i, c := range name {
			if c != '/' {
				continue
			}
			if info, err := fs.Lstat(o.tree, name[:i]); err != nil {
				return nil, err
			} else if !info.IsDir() {
				return nil, missing
			}
		}
	}
	info, err := fs.Lstat(o.tree, name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return nil, missing
	}
	return info, nil
}

func (o *overlay) Exists(name string) bool {
	rel, ok := inTree(name)
	if !ok {
		if o.clone(name) {
			return filesys.MakeFsOnDisk().Exists(name)
		}
		return false
	}
	_, err := o.stat(rel)
	return err == nil
}

func (o *overlay) IsDir(name string) bool {
	rel, ok := inTree(name)
	if !ok {
		if o.clone(name) {
			return filesys.MakeFsOnDisk().IsDir(name)
		}
		return false
	}
	info, err := o.stat(rel)
	return err == nil && info.IsDir()
}

func (o *overlay) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	rel, ok := inTree(name)
	if !ok {
		if o.clone(name) && filesys.MakeFsOnDisk().Exists(name) {
			return filesys.MakeFsOnDisk().CleanedAbs(name)
		}
		return "", "", outside("abs", name)
	}
	info, err := o.stat(rel)
	if err != nil {
		return "", "", plain(err, rel)
	}
	abs := path.Join(mount, rel)
	if info.IsDir() {
		return filesys.ConfirmedDir(abs), "", nil
	}
	return filesys.ConfirmedDir(path.Dir(abs)), path.Base(abs), nil
}

func (o *overlay) ReadFile(name string) ([]byte, error) {
	rel, ok := inTree(name)
	if !ok {
		if !o.clone(name) {
			return nil, outside("open", name)
		}
		data, err := o.readClone(name)
		if err == nil && o.onRead != nil {
			o.onRead("", filepath.Clean(name), data)
		}
		return data, err
	}
	return o.read(rel)
}

// readClone reads a file of a clone.
func (o *overlay) readClone(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if err := sized(info); err != nil {
		refuse("", err.remedy, "%s of a remote base: %w", filepath.Base(name), err)
	}
	data, err := filesys.MakeFsOnDisk().ReadFile(name)
	if err != nil {
		return nil, err
	}
	values, err := weigh(data)
	if err != nil {
		refuse("", "use another base", "%s of a remote base: %w", filepath.Base(name), err)
	}
	o.meter.read(len(data), values)
	return data, nil
}

// read returns a file of the tree, as the overlay has it.
func (o *overlay) read(rel string) ([]byte, error) {
	data, ok := o.written[rel]
	if !ok {
		var err error
		if data, err = o.original(rel); err != nil {
			return nil, err
		}
	}
	if o.onRead != nil {
		o.onRead(rel, path.Join(mount, rel), data)
	}
	// Kustomize owns what it is given.
	return bytes.Clone(data), nil
}

// original returns a file as the tree has it. The bytes are the overlay's.
func (o *overlay) original(rel string) ([]byte, error) {
	if data, ok := o.content[rel]; ok {
		o.count(rel)
		return data, nil
	}
	data, values, err := o.fetch(rel)
	if limit := (*tooMuch)(nil); errors.As(err, &limit) {
		panic(limit)
	}
	if err != nil {
		return nil, err
	}
	o.content[rel], o.weights[rel] = data, values
	o.count(rel)
	return data, nil
}

// count meters a file of the tree that is read once more.
func (o *overlay) count(rel string) {
	values := o.weights[rel]
	if o.strings[rel] {
		values = 0
	}
	o.meter.read(len(o.content[rel]), values)
}

// glance is original for who only looks at it: it does not count as read.
func (o *overlay) glance(rel string) ([]byte, error) {
	if data, ok := o.content[rel]; ok {
		return data, nil
	}
	data, _, err := o.fetch(rel)
	return data, err
}

// fetch reads a file that is within the limits of one; else the error is *tooMuch.
func (o *overlay) fetch(rel string) (data []byte, values int, err error) {
	info, err := o.stat(rel)
	if err != nil {
		return nil, 0, plain(err, rel)
	}
	if info.IsDir() {
		return nil, 0, fmt.Errorf("read %s: is a directory", rel)
	}
	if err := sized(info); err != nil {
		err.file = rel
		return nil, 0, err
	}
	if data, err = fs.ReadFile(o.tree, rel); err != nil {
		return nil, 0, plain(err, rel)
	}
	if values, err = weigh(data); err != nil {
		return nil, 0, &tooMuch{file: rel, err: err, remedy: "divide the file, or leave it out of the build"}
	}
	return data, values, nil
}

// files returns the names of the files of the tree that were read, sorted.
func (o *overlay) files() []string {
	names := make([]string, 0, len(o.content))
	for name := range o.content {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (o *overlay) Open(name string) (filesys.File, error) {
	data, err := o.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return &memoryFile{Reader: bytes.NewReader(data), info: memoryInfo{path.Base(name), int64(len(data))}}, nil
}

func (o *overlay) ReadDir(name string) ([]string, error) {
	rel, ok := inTree(name)
	if !ok {
		if o.clone(name) {
			return filesys.MakeFsOnDisk().ReadDir(name)
		}
		return nil, outside("open", name)
	}
	return o.list(rel)
}

// list returns the names in a folder of the tree, sorted.
func (o *overlay) list(rel string) ([]string, error) {
	if _, err := o.stat(rel); err != nil { // ReadDir would follow links
		return nil, plain(err, rel)
	}
	entries, err := fs.ReadDir(o.tree, rel)
	if err != nil {
		return nil, plain(err, rel)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() || e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	for w := range o.written {
		if path.Dir(w) == rel && !slices.Contains(names, path.Base(w)) {
			names = append(names, path.Base(w))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (o *overlay) Glob(pattern string) ([]string, error) {
	rel, ok := inTree(pattern)
	if !ok {
		if o.clone(pattern) {
			return filesys.MakeFsOnDisk().Glob(pattern)
		}
		return nil, outside("glob", pattern)
	}
	found, err := fs.Glob(o.tree, rel)
	if err != nil {
		return nil, err
	}
	for w := range o.written {
		if ok, _ := path.Match(rel, w); ok && !slices.Contains(found, w) {
			found = append(found, w)
		}
	}
	slices.Sort(found)
	var names []string
	for _, f := range found {
		if _, err := o.stat(f); err == nil {
			names = append(names, path.Join(mount, f))
		}
	}
	if filesys.IsHiddenFilePath(pattern) {
		return names, nil
	}
	return filesys.RemoveHiddenFiles(names), nil
}

func (o *overlay) Walk(name string, walk filepath.WalkFunc) error {
	rel, ok := inTree(name)
	if !ok {
		if o.clone(name) {
			return filesys.MakeFsOnDisk().Walk(name, walk)
		}
		return outside("walk", name)
	}
	if _, err := o.stat(rel); err != nil { // WalkDir would follow links
		return plain(err, rel)
	}
	const remedy = "name the manifests in a kustomization.yaml, or correct spec.path"
	seen, manifests := 0, 0
	return fs.WalkDir(o.tree, rel, func(p string, e fs.DirEntry, err error) error {
		if seen++; seen > maxEntries {
			refuse("", remedy, "%q holds more than %d files and folders", rel, maxEntries)
		}
		if ext := path.Ext(p); ext == ".yaml" || ext == ".yml" {
			if manifests++; manifests > maxManifests {
				refuse("", remedy, "%q holds more than %d YAML files", rel, maxManifests)
			}
		}
		if err != nil {
			return walk(path.Join(mount, p), nil, err)
		}
		if !e.IsDir() && !e.Type().IsRegular() {
			return nil
		}
		info, err := e.Info()
		return walk(path.Join(mount, p), info, err)
	})
}

// RemoveAll is called by kustomize for its clones only.
func (o *overlay) RemoveAll(name string) error {
	if _, ok := inTree(name); !ok && o.clone(name) {
		return os.RemoveAll(name)
	}
	return readOnly("remove", name)
}

// Create fails: a build writes nothing.
func (o *overlay) Create(name string) (filesys.File, error) { return nil, readOnly("create", name) }

// Mkdir fails: a build writes nothing.
func (o *overlay) Mkdir(name string) error { return readOnly("mkdir", name) }

// MkdirAll fails: a build writes nothing.
func (o *overlay) MkdirAll(name string) error { return readOnly("mkdir", name) }

// WriteFile fails: a build writes nothing.
func (o *overlay) WriteFile(name string, _ []byte) error { return readOnly("write", name) }

func readOnly(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: errors.New("the tree of a build is read-only")}
}

// plain words a lookup error the same way whatever the tree is made of.
func plain(err error, rel string) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return &fs.PathError{Op: "open", Path: path.Join(mount, rel), Err: noSuchFile{}}
	}
	return err
}

// noSuchFile is fs.ErrNotExist in the words that people know.
type noSuchFile struct{}

func (noSuchFile) Error() string        { return "no such file or directory" }
func (noSuchFile) Is(target error) bool { return target == fs.ErrNotExist }

type memoryInfo struct {
	name string
	size int64
}

func (i memoryInfo) Name() string       { return i.name }
func (i memoryInfo) Size() int64        { return i.size }
func (i memoryInfo) Mode() fs.FileMode  { return 0o444 }
func (i memoryInfo) ModTime() time.Time { return time.Time{} }
func (i memoryInfo) IsDir() bool        { return false }
func (i memoryInfo) Sys() any           { return nil }

type memoryFile struct {
	*bytes.Reader
	info memoryInfo
}

func (f *memoryFile) Close() error               { return nil }
func (f *memoryFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *memoryFile) Write([]byte) (int, error)  { return 0, readOnly("write", f.info.name) }

var _ io.ReadWriteCloser = (*memoryFile)(nil)
