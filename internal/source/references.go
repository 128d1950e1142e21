package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// references reads HEAD and all packed and loose references. go-git's reader gives up on the first empty file, which a crash
// or a git that is just writing leaves; git passes over it, and so does this one.
func (r *localRepo) references() (*references, error) {
	refs := &references{byName: map[string]plumbing.Hash{}, peeled: map[string]plumbing.Hash{}}
	// In this order none is missed while git packs them: it writes the packed file before it removes the loose ones.
	symbolic, err := r.looseReferences(refs)
	if err != nil {
		return nil, fmt.Errorf("reading the references of %q: %w", r.gitDir, err)
	}
	if err := r.packedReferences(refs); err != nil {
		return nil, fmt.Errorf("reading the packed references of %q: %w", r.gitDir, err)
	}
	for name, target := range symbolic {
		for range 5 { // as deep as git follows
			next, more := symbolic[target]
			if !more {
				break
			}
			target = next
		}
		if hash, ok := refs.byName[target]; ok {
			refs.byName[name] = hash
		}
	}
	hash, target, ok := readReference(filepath.Join(r.gitDir, "HEAD"))
	if !ok {
		return nil, failf(ErrNotRepository, "", "the repository %q has no readable HEAD", r.gitDir)
	}
	refs.head, refs.headBranch = hash, target
	if target != "" {
		refs.head = refs.byName[target]
	}
	return refs, nil
}

// packedReferences reads the file packed-refs: "<hash> <name>", and "^<hash>" for what the annotated tag above it stands for.
// Loose references override packed ones.
func (r *localRepo) packedReferences(refs *references) error {
	text, err := readFile(filepath.Join(r.commonDir, "packed-refs"), maxPacked)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	last := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if peeled, ok := strings.CutPrefix(line, "^"); ok {
			if last != "" && fullHash.MatchString(peeled) {
				refs.peeled[last] = plumbing.NewHash(peeled)
			}
			continue
		}
		hash, name, ok := strings.Cut(line, " ")
		last = ""
		if _, loose := refs.byName[name]; ok && !loose && fullHash.MatchString(hash) {
			refs.byName[name] = plumbing.NewHash(hash)
			last = name
		}
	}
	return nil
}

// looseReferences reads the files below refs and returns the symbolic ones.
func (r *localRepo) looseReferences(refs *references) (map[string]string, error) {
	symbolic := map[string]string{}
	err := filepath.WalkDir(filepath.Join(r.commonDir, "refs"), func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // git has just packed it
		}
		if err != nil || entry.IsDir() || strings.HasSuffix(name, ".lock") {
			return err
		}
		rel, err := filepath.Rel(r.commonDir, name)
		if err != nil {
			return err
		}
		ref := filepath.ToSlash(rel)
		switch hash, target, ok := readReference(name); {
		case !ok:
		case target != "":
			symbolic[ref] = target
		default:
			refs.byName[ref] = hash
		}
		return nil
	})
	return symbolic, err
}

// readReference reads one file: a hash, or "ref: " and a name.
func readReference(name string) (hash plumbing.Hash, target string, ok bool) {
	text, err := readFile(name, maxReference)
	if err != nil {
		return hash, "", false
	}
	line := strings.TrimSpace(string(text))
	if target, ok := strings.CutPrefix(line, "ref:"); ok {
		return hash, strings.TrimSpace(target), true
	}
	if !fullHash.MatchString(line) {
		return hash, "", false
	}
	return plumbing.NewHash(line), "", true
}
