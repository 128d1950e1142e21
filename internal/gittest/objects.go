package gittest

import (
	"errors"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// leaf is what a tree has at the end of a path: a file, a link or a submodule.
type leaf struct {
	mode filemode.FileMode
	hash plumbing.Hash
}

func (r *Repo) commit(message string, others []string, changes []Change) (string, error) {
	var parents []plumbing.Hash
	leaves := map[string]leaf{}
	head, err := r.git.Head()
	switch {
	case err == nil:
		parents = append(parents, head.Hash())
		if leaves, err = r.files(head.Hash()); err != nil {
			return "", err
		}
	case !errors.Is(err, plumbing.ErrReferenceNotFound):
		return "", err
	}
	for _, other := range others {
		hash, err := r.git.ResolveRevision(plumbing.Revision(other))
		if err != nil {
			return "", fmt.Errorf("parent %q: %w", other, err)
		}
		parents = append(parents, *hash)
	}
	for _, change := range changes {
		if err := r.change(leaves, change); err != nil {
			return "", err
		}
	}
	tree, err := r.writeTree(leaves)
	if err != nil {
		return "", err
	}
	by := author
	by.When = r.now()
	hash, err := r.write(&object.Commit{Author: by, Committer: by, Message: message + "\n", TreeHash: tree, ParentHashes: parents})
	if err != nil {
		return "", err
	}
	r.commits++
	return hash.String(), r.moveHead(hash)
}

func (r *Repo) moveHead(hash plumbing.Hash) error {
	head, err := r.git.Reference(plumbing.HEAD, false)
	if err != nil {
		return err
	}
	name := plumbing.HEAD
	if head.Type() == plumbing.SymbolicReference {
		name = head.Target()
	}
	return r.git.Storer.SetReference(plumbing.NewHashReference(name, hash))
}

func (r *Repo) change(leaves map[string]leaf, change Change) error {
	name, err := cleanPath(change.path)
	if err != nil {
		return err
	}
	switch change.mode {
	case filemode.Empty:
		found := false
		for existing := range leaves {
			if existing == name || strings.HasPrefix(existing, name+"/") {
				delete(leaves, existing)
				found = true
			}
		}
		if !found {
			return fmt.Errorf("cannot remove %q: it is not in the repository", name)
		}
	case filemode.Submodule:
		leaves[name] = leaf{change.mode, plumbing.NewHash(change.content)}
	default:
		hash, err := r.writeBlob(change.content)
		if err != nil {
			return err
		}
		leaves[name] = leaf{change.mode, hash}
	}
	return nil
}

// files lists every leaf below a commit. Unlike object.Tree.Files it keeps submodules.
func (r *Repo) files(commit plumbing.Hash) (map[string]leaf, error) {
	c, err := r.git.CommitObject(commit)
	if err != nil {
		return nil, err
	}
	tree, err := c.Tree()
	if err != nil {
		return nil, err
	}
	leaves := map[string]leaf{}
	walker := object.NewTreeWalker(tree, true, nil)
	defer walker.Close()
	for {
		name, entry, err := walker.Next()
		if err == io.EOF {
			return leaves, nil
		}
		if err != nil {
			return nil, err
		}
		if entry.Mode != filemode.Dir {
			leaves[name] = leaf{entry.Mode, entry.Hash}
		}
	}
}

// writeTree writes the trees for a flat list of leaves and returns the root's hash.
func (r *Repo) writeTree(leaves map[string]leaf) (plumbing.Hash, error) {
	folders := map[string]map[string]leaf{}
	tree := &object.Tree{}
	for name, l := range leaves {
		first, rest, below := strings.Cut(name, "/")
		if !below {
			tree.Entries = append(tree.Entries, object.TreeEntry{Name: first, Mode: l.mode, Hash: l.hash})
			continue
		}
		if folders[first] == nil {
			folders[first] = map[string]leaf{}
		}
		folders[first][rest] = l
	}
	for name, below := range folders {
		if _, both := leaves[name]; both {
			return plumbing.ZeroHash, fmt.Errorf("%q is both a file and a folder (with %s)", name, path.Join(name, "…"))
		}
		hash, err := r.writeTree(below)
		if err != nil {
			return hash, err
		}
		tree.Entries = append(tree.Entries, object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: hash})
	}
	sort.Sort(object.TreeEntrySorter(tree.Entries)) // Git's order: folders as if their names ended in a slash
	return r.write(tree)
}

func (r *Repo) writeBlob(content string) (plumbing.Hash, error) {
	o := r.git.Storer.NewEncodedObject()
	o.SetType(plumbing.BlobObject)
	w, err := o.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := io.WriteString(w, content); err != nil {
		return plumbing.ZeroHash, err
	}
	if err := w.Close(); err != nil {
		return plumbing.ZeroHash, err
	}
	return r.git.Storer.SetEncodedObject(o)
}

func (r *Repo) write(from interface {
	Encode(plumbing.EncodedObject) error
}) (plumbing.Hash, error) {
	o := r.git.Storer.NewEncodedObject()
	if err := from.Encode(o); err != nil {
		return plumbing.ZeroHash, err
	}
	return r.git.Storer.SetEncodedObject(o)
}
