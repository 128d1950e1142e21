package build

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// A build is a function of what it asks of its tree: does this name exist, what
// is in that folder, what is in this file. The recorder keeps the questions with
// the answers, so that a later run can find out whether they would be the same,
// without building: then so would be the result. What a tree leaves out, by
// ignore patterns or because it is a link, shows in the answers like anything else.

// look is what was asked about one path, and the answers; empty where nothing
// was asked.
type look struct {
	// Path is in the tree.
	Path string `json:"p"`
	// Stat says what it is, Lstat what it is by itself if it can be a link:
	// "file", "folder", "other", or "none".
	Stat  string `json:"s,omitempty"`
	Lstat string `json:"l,omitempty"`
	// Names is a digest of a folder's listing, Content names a file's content;
	// both are "none" for what cannot be listed or read.
	Names   string `json:"n,omitempty"`
	Content string `json:"c,omitempty"`
}

const (
	none = "none"
	file = "file"
)

// identified is implemented by trees that know what a file holds without reading
// it. Files of equal ids, in any tree, have equal content; "" says that the
// id is not known.
type identified interface {
	ObjectID(name string) (string, error)
}

// recorder is a tree that remembers what it was asked. It belongs to one
// build and is not safe for concurrent use.
type recorder struct {
	tree  fs.FS
	looks map[string]*look
	// err is the first error that does not mean that something is missing:
	// another time the answer may be another.
	err error
}

func newRecorder(tree fs.FS) *recorder { return &recorder{tree: tree, looks: map[string]*look{}} }

// record is the tree for a build: one that has links if the tree has.
func (r *recorder) record() fs.FS {
	if links, ok := r.tree.(fs.ReadLinkFS); ok {
		return &linkRecorder{r, links}
	}
	return r
}

var _ interface {
	fs.ReadDirFS
	fs.ReadFileFS
	fs.StatFS
} = (*recorder)(nil)

func (r *recorder) at(name string) *look {
	l := r.looks[name]
	if l == nil {
		l = &look{Path: name}
		r.looks[name] = l
	}
	return l
}

// note returns the answer, or "none" if there is nothing to answer about.
func (r *recorder) note(answer string, err error) string {
	if err == nil {
		return answer
	}
	if r.err == nil && !missing(err) {
		r.err = err
	}
	return none
}

// missing says that an error is about the name, and not about the moment.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid)
}

// Open is asked for by nobody who looks for the other methods first, as all of
// io/fs does.
func (r *recorder) Open(name string) (fs.File, error) {
	err := &fs.PathError{Op: "open", Path: name, Err: errors.ErrUnsupported}
	r.note("", err)
	return nil, err
}

func (r *recorder) Stat(name string) (fs.FileInfo, error) {
	info, err := fs.Stat(r.tree, name)
	r.at(name).Stat = r.note(kind(info), err)
	return info, err
}

func (r *recorder) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(r.tree, name)
	r.at(name).Names = r.note(listing(entries), err)
	return entries, err
}

func (r *recorder) ReadFile(name string) ([]byte, error) {
	data, err := fs.ReadFile(r.tree, name)
	id := ""
	if err == nil {
		id, err = contentID(r.tree, name, data)
	}
	if err == nil && bytes.HasPrefix(data, pointer) {
		r.err = fmt.Errorf("%s is a Git LFS pointer", name) // which is told when it is read
	}
	r.at(name).Content = r.note(id, err)
	return data, err
}

// pointer begins every pointer file (Git LFS specification).
var pointer = []byte("version https://git-lfs.github.com/spec/v1\n")

// linkRecorder is a recorder of a tree with links.
type linkRecorder struct {
	*recorder
	links fs.ReadLinkFS
}

var _ fs.ReadLinkFS = (*linkRecorder)(nil)

func (r *linkRecorder) Lstat(name string) (fs.FileInfo, error) {
	info, err := r.links.Lstat(name)
	r.at(name).Lstat = r.note(kind(info), err)
	return info, err
}

// ReadLink is asked for by nobody: links do not exist for a build.
func (r *linkRecorder) ReadLink(name string) (string, error) {
	err := &fs.PathError{Op: "readlink", Path: name, Err: errors.ErrUnsupported}
	r.note("", err)
	return "", err
}

// all returns what was asked, sorted by path.
func (r *recorder) all() []look {
	looks := make([]look, 0, len(r.looks))
	for _, name := range slices.Sorted(maps.Keys(r.looks)) {
		looks = append(looks, *r.looks[name])
	}
	return looks
}

// same says whether a tree gives the same answers.
func same(tree fs.FS, looks []look) bool {
	r := newRecorder(tree)
	asked := r.record()
	for _, l := range looks {
		if l.Content != "" {
			r.at(l.Path).Content = r.content(l.Path)
		}
		switch {
		case l.Stat == "":
		case l.Stat == file && l.Content != none && !strings.HasPrefix(r.at(l.Path).Content, hashed):
			r.at(l.Path).Stat = file // nothing else has an id
		default:
			_, _ = fs.Stat(asked, l.Path) // what comes of it is in r
		}
		if l.Lstat != "" {
			_, _ = fs.Lstat(asked, l.Path)
		}
		if l.Names != "" {
			_, _ = fs.ReadDir(asked, l.Path)
		}
		if r.err != nil || *r.at(l.Path) != l {
			return false
		}
	}
	return true
}

// replay looks where a build would have looked, for what the tree makes of being
// looked at: it takes note of what is asked for in vain, and of the folders that
// are gone through.
func replay(tree fs.FS, looks []look) {
	through := map[string]bool{}
	for _, l := range looks {
		folder := path.Dir(l.Path)
		if l.Stat == none || l.Content == none || l.Stat != "" && !through[folder] {
			_, _ = fs.Stat(tree, l.Path) // it is known what there is
			through[folder] = true
		}
		if l.Names != "" {
			_, _ = fs.ReadDir(tree, l.Path)
		}
	}
}

// content is the id of a file's content, got without reading it if possible.
func (r *recorder) content(name string) string {
	if known, ok := r.tree.(identified); ok {
		if id, err := known.ObjectID(name); err != nil || id != "" {
			return r.note(id, err)
		}
	}
	data, err := fs.ReadFile(r.tree, name)
	return r.note(digest(data), err)
}

// contentID is the id of a file that has been read.
func contentID(tree fs.FS, name string, data []byte) (string, error) {
	if known, ok := tree.(identified); ok {
		if id, err := known.ObjectID(name); err != nil || id != "" {
			return id, err
		}
	}
	return digest(data), nil
}

// hashed begins the ids that are digests, of trees that know none.
const hashed = "sha256:"

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hashed + hex.EncodeToString(sum[:])
}

func kind(info fs.FileInfo) string {
	switch {
	case info == nil:
		return none
	case info.IsDir():
		return "folder"
	case info.Mode().IsRegular():
		return file
	}
	return "other"
}

// listing is a digest of the names and kinds in a folder.
func listing(entries []fs.DirEntry) string {
	var text bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&text, "%d %q\n", e.Type(), e.Name())
	}
	return digest(text.Bytes())
}
