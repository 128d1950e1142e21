package source

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
)

// objectCacheSize is what go-git may keep of decoded objects per repository. Its own default of 96 MiB would be most of the
// memory budget; bases of deltas are what is worth keeping.
const objectCacheSize = 16 * cache.MiByte

// errObjectMissing says that an object is not in the store: beyond a shallow clone's boundary, left out of a partial clone,
// or lost.
var errObjectMissing = errors.New("object is not in the repository's store")

// objects reads Git objects from one or more object folders. go-git's storage is not made for concurrent reads, so one lock
// guards all of it; what is read is small and decoded once.
type objects struct {
	mu     sync.Mutex
	stores []*filesystem.ObjectStorage
}

// openObjects opens the object folder of a Git folder and those it borrows from. go-git would follow alternates itself, but
// opens them, indexes included, anew for every object.
func openObjects(gitDir string) (*objects, error) {
	o := &objects{}
	return o, o.add(gitDir, map[string]bool{})
}

func (o *objects) add(gitDir string, seen map[string]bool) error {
	if seen[gitDir] {
		return nil
	}
	seen[gitDir] = true
	o.stores = append(o.stores, openStore(gitDir))
	folder := filepath.Join(gitDir, "objects")
	text, err := readFile(filepath.Join(folder, "info", "alternates"), maxConfig)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for other := range strings.Lines(string(text)) {
		other = strings.TrimRight(other, "\r\n")
		if other == "" || strings.HasPrefix(other, "#") {
			continue
		}
		if !filepath.IsAbs(other) {
			other = filepath.Join(folder, other)
		}
		if info, err := os.Stat(other); err != nil || !info.IsDir() || filepath.Base(other) != "objects" {
			return failf(ErrUnsupportedRepository, "", "the repository %q borrows objects from %q, which is not a readable folder named objects", gitDir, other)
		}
		if err := o.add(filepath.Dir(filepath.Clean(other)), seen); err != nil {
			return err
		}
	}
	return nil
}

// openStore opens one object folder. go-git's ExclusiveAccess, which would spare a look at the disk per object, does not go
// with its HasEncodedObject: that then finds no packed object.
func openStore(gitDir string) *filesystem.ObjectStorage {
	return filesystem.NewObjectStorageWithOptions(
		dotgit.New(osfs.New(gitDir)), cache.NewObjectLRU(objectCacheSize), filesystem.Options{KeepDescriptors: true, LargeObjectThreshold: maxObject})
}

// get reads an object. The error wraps errObjectMissing when it is nowhere.
func (o *objects) get(kind plumbing.ObjectType, hash plumbing.Hash) (plumbing.EncodedObject, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.locked(kind, hash)
}

func (o *objects) locked(kind plumbing.ObjectType, hash plumbing.Hash) (plumbing.EncodedObject, error) {
	for _, store := range o.stores {
		// Asking first keeps go-git from looking through alternates.
		err := store.HasEncodedObject(hash)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("looking for object %s: %w", hash, err)
		}
		found, err := store.EncodedObject(plumbing.AnyObject, hash)
		if err != nil {
			return nil, fmt.Errorf("reading object %s: %w", hash, err)
		}
		if found.Size() > maxObject {
			return nil, fmt.Errorf("%s %s: %w", found.Type(), hash, &sizeError{found.Size()})
		}
		if found.Size() < 0 {
			return nil, fmt.Errorf("%s %s is malformed: it says that its size is %d", found.Type(), hash, found.Size())
		}
		if kind != plumbing.AnyObject && found.Type() != kind {
			return nil, fmt.Errorf("object %s is a %s, not a %s", hash, found.Type(), kind)
		}
		return found, nil
	}
	return nil, fmt.Errorf("%s %s: %w", kindName(kind), hash, errObjectMissing)
}

func kindName(kind plumbing.ObjectType) string {
	if kind == plumbing.AnyObject {
		return "object"
	}
	return kind.String()
}

// content reads all of a blob. The bytes are the caller's own: go-git's cache keeps its copy.
func (o *objects) content(hash plumbing.Hash) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	blob, err := o.locked(plumbing.BlobObject, hash)
	if err != nil {
		return nil, err
	}
	r, err := blob.Reader()
	if err != nil {
		return nil, fmt.Errorf("reading object %s: %w", hash, err)
	}
	defer r.Close()
	data := make([]byte, blob.Size())
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("reading object %s: %w", hash, err)
	}
	return data, nil
}

// size is a blob's size in bytes, without reading its content where the storage can tell.
func (o *objects) size(hash plumbing.Hash) (int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, store := range o.stores {
		size, err := store.EncodedObjectSize(hash)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			continue
		}
		return size, err
	}
	return 0, fmt.Errorf("blob %s: %w", hash, errObjectMissing)
}

func (o *objects) tree(hash plumbing.Hash) ([]object.TreeEntry, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	encoded, err := o.locked(plumbing.TreeObject, hash)
	if err != nil {
		return nil, err
	}
	var tree object.Tree
	if err := tree.Decode(encoded); err != nil {
		return nil, fmt.Errorf("reading tree %s: %w", hash, err)
	}
	return tree.Entries, nil
}

func (o *objects) commit(hash plumbing.Hash) (*object.Commit, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	encoded, err := o.locked(plumbing.CommitObject, hash)
	if err != nil {
		return nil, err
	}
	var commit object.Commit
	if err := commit.Decode(encoded); err != nil {
		return nil, fmt.Errorf("reading commit %s: %w", hash, err)
	}
	return &commit, nil
}

// peel follows annotated tags, also tags of tags, to a commit.
func (o *objects) peel(hash plumbing.Hash) (plumbing.Hash, error) {
	for range 32 { // far deeper than anybody nests tags; a loop cannot be made without breaking SHA-1
		encoded, err := o.get(plumbing.AnyObject, hash)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		switch encoded.Type() {
		case plumbing.CommitObject:
			return hash, nil
		case plumbing.TagObject:
			var tag object.Tag
			if err := tag.Decode(encoded); err != nil {
				return plumbing.ZeroHash, fmt.Errorf("reading tag %s: %w", hash, err)
			}
			hash = tag.Target
		default:
			return plumbing.ZeroHash, fmt.Errorf("object %s is a %s, not a commit", hash, encoded.Type())
		}
	}
	return plumbing.ZeroHash, fmt.Errorf("tag %s: too many tags of tags", hash)
}

// commitsWithPrefix lists the commits whose hash begins with these hexadecimal digits, in no order.
func (o *objects) commitsWithPrefix(prefix string) ([]plumbing.Hash, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	even := plumbing.NewHash(prefix[:len(prefix)&^1] + strings.Repeat("0", 40))
	seen := map[plumbing.Hash]bool{}
	var commits []plumbing.Hash
	for _, store := range o.stores {
		hashes, err := store.HashesWithPrefix(even[:len(prefix)/2])
		if err != nil {
			return nil, err
		}
		for _, hash := range hashes {
			if seen[hash] || !strings.HasPrefix(hash.String(), prefix) {
				continue
			}
			seen[hash] = true
			found, err := o.locked(plumbing.AnyObject, hash)
			if err != nil {
				return nil, err
			}
			if found.Type() == plumbing.CommitObject {
				commits = append(commits, hash)
			}
		}
	}
	return commits, nil
}

func (o *objects) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all error
	for _, store := range o.stores {
		all = errors.Join(all, store.Close())
	}
	return all
}
