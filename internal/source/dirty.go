package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/index"
)

const (
	// dirtyFiles is up to how many files of the index are looked at: one stat each.
	dirtyFiles = 20_000
	// dirtyReads is how many files that look touched are read to see whether they changed. A fresh copy of a checkout looks
	// touched everywhere.
	dirtyReads = 200
)

// dirty lists the tracked files whose index entry or work tree file differs from HEAD's tree. Anything that cannot be known
// cheaply or surely is left out: the list serves a friendly remark, nothing is decided by it.
func (r *localRepo) dirty(tree *treeFS) []string {
	text, err := readFile(filepath.Join(r.gitDir, "index"), maxPacked)
	if err != nil || len(text) < 12 || binary.BigEndian.Uint32(text[8:]) > dirtyFiles {
		return nil
	}
	var idx index.Index
	if err := index.NewDecoder(bytes.NewReader(text)).Decode(&idx); err != nil || len(idx.Entries) > dirtyFiles {
		return nil // of a version or with an extension that go-git does not read
	}
	converts := r.convertsContent(tree)
	var changed []string
	reads := 0
	for _, e := range idx.Entries {
		if e.Mode != filemode.Regular && e.Mode != filemode.Executable {
			continue
		}
		if e.SkipWorktree {
			continue
		}
		committed, err := tree.lookup("stat", e.Name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && committed.hash != e.Hash {
			changed = append(changed, e.Name) // staged
			continue
		}
		if err != nil {
			return nil
		}
		name := filepath.Join(r.root, filepath.FromSlash(e.Name))
		info, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			changed = append(changed, e.Name)
			continue
		}
		if err != nil || info.ModTime().Equal(e.ModifiedAt) && uint32(info.Size()) == e.Size || converts {
			continue
		}
		if !info.Mode().IsRegular() {
			changed = append(changed, e.Name) // a link or a folder in its place
			continue
		}
		if reads++; reads > dirtyReads {
			continue
		}
		text, err := readFile(name, maxObject)
		if err == nil && plumbing.ComputeHash(plumbing.BlobObject, text) != e.Hash {
			changed = append(changed, e.Name)
		}
	}
	slices.Sort(changed)
	return slices.Compact(changed)
}

// convertsContent reports whether Git may write files to the work tree otherwise than they are stored; then their bytes prove
// nothing.
func (r *localRepo) convertsContent(tree *treeFS) bool {
	if autocrlf := r.config.Section("core").Option("autocrlf"); autocrlf != "" && autocrlf != "false" {
		return true
	}
	_, err := tree.Stat(".gitattributes")
	return err == nil
}
