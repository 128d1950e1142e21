// Package gittest makes Git repositories for tests and demonstrations, and serves them.
//
// A repository is written object by object with go-git, without a work tree in between, so it can hold what a work tree
// cannot (submodules without their repository, odd modes, names no file system takes). Authors and dates are fixed and
// advance by one minute per commit: the same content gives the same hashes on every machine and every day.
//
// [Create] and the methods of [Repo] return errors and can be used outside tests; [New] and [Serve] are for tests. Serving
// runs the git command, which is the reference for what a server says; building does not need it.
//
// A Repo is not safe for concurrent use while it is changed.
package gittest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"golang.org/x/tools/txtar"
)

// Epoch is the date of a repository's first commit; each further one is a minute later.
var Epoch = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// author wrote and committed everything.
var author = object.Signature{Name: "Ada Example", Email: "ada@example.org"}

// Repo is a repository on disk with one branch checked out, in the sense that HEAD names it. There are no files in its
// folder until [Repo.Checkout].
type Repo struct {
	// Dir is the repository's folder, absolute; Git's own data is in its .git.
	Dir string

	git     *git.Repository
	commits int
}

// Create makes an empty repository in dir, which is created if need be and must not hold a repository. HEAD names the
// branch main.
func Create(dir string) (*Repo, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r, err := git.PlainInitWithOptions(dir, &git.PlainInitOptions{InitOptions: git.InitOptions{DefaultBranch: plumbing.Main}})
	if err != nil {
		return nil, fmt.Errorf("creating a repository in %q: %w", dir, err)
	}
	return &Repo{Dir: dir, git: r}, nil
}

// Change is one change of a commit: what [File], [Executable], [Symlink], [Submodule] and [Remove] make.
type Change struct {
	path    string
	mode    filemode.FileMode // Empty removes
	content string            // of a file, target of a link, hash of a submodule
}

// File adds or replaces a file.
func File(path, content string) Change { return Change{path, filemode.Regular, content} }

// Executable adds or replaces a file with the executable bit.
func Executable(path, content string) Change { return Change{path, filemode.Executable, content} }

// Symlink adds a symbolic link.
func Symlink(path, target string) Change { return Change{path, filemode.Symlink, target} }

// Submodule adds a submodule at a commit of another repository, which need not exist.
func Submodule(path, hash string) Change { return Change{path, filemode.Submodule, hash} }

// Remove removes a file or a folder with all that is in it.
func Remove(path string) Change { return Change{path: path} }

// Commit adds a commit with these changes to the branch that HEAD names, or to a detached HEAD, and returns its hash.
// Removing what is not there is an error; a commit without changes is not.
func (r *Repo) Commit(message string, changes ...Change) (string, error) {
	return r.commit(message, nil, changes)
}

// Merge is [Repo.Commit] with further parents, given as revisions (a branch, a tag, a hash).
func (r *Repo) Merge(message string, parents []string, changes ...Change) (string, error) {
	return r.commit(message, parents, changes)
}

// CommitFolder adds a commit that holds exactly the files below a folder on disk, as a checkout of it would: executable
// bits and symbolic links are kept, a .git is left out.
func (r *Repo) CommitFolder(message, dir string) (string, error) {
	var changes []Change
	if head, err := r.git.Head(); err == nil {
		files, err := r.files(head.Hash())
		if err != nil {
			return "", err
		}
		for name := range files {
			changes = append(changes, Remove(name))
		}
	}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.Name() == ".git" {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		change, err := fromDisk(name, filepath.ToSlash(rel), entry)
		if err != nil {
			return err
		}
		changes = append(changes, change)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("reading %q: %w", dir, err)
	}
	return r.Commit(message, changes...)
}

func fromDisk(name, rel string, entry fs.DirEntry) (Change, error) {
	if entry.Type()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(name)
		return Symlink(rel, target), err
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return Change{}, err
	}
	info, err := entry.Info()
	if err != nil {
		return Change{}, err
	}
	if info.Mode()&0o100 != 0 {
		return Executable(rel, string(content)), nil
	}
	return File(rel, string(content)), nil
}

// Txtar adds the commits that a script describes. Commits are separated by lines "==="; each is a txtar archive whose files
// are added or replaced and whose comment has one instruction per line:
//
//	commit: the message (else "commit")
//	remove: a/path
//	exec: a/path           (the file of that name gets the executable bit)
//	symlink: a/path target
//	switch: branch         (before the commit; created at HEAD if it is new)
//	tag: name              (after the commit)
//	annotated: name        (after the commit, an annotated tag)
//
// Other lines are comments. It returns the hashes of the commits in order.
func (r *Repo) Txtar(script string) ([]string, error) {
	var hashes []string
	for _, part := range strings.Split("\n"+script, "\n===\n") {
		hash, err := r.txtarCommit(part)
		if err != nil {
			return hashes, fmt.Errorf("commit %d of the script: %w", len(hashes)+1, err)
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}

func (r *Repo) txtarCommit(part string) (string, error) {
	archive := txtar.Parse([]byte(part))
	message := "commit"
	var changes []Change
	var after []func() error
	exec := map[string]bool{}
	for line := range strings.Lines(string(archive.Comment)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		value = strings.TrimSpace(value)
		switch key {
		case "commit":
			message = value
		case "remove":
			changes = append(changes, Remove(value))
		case "exec":
			exec[value] = true
		case "symlink":
			name, target, _ := strings.Cut(value, " ")
			changes = append(changes, Symlink(name, target))
		case "switch":
			if err := r.Switch(value); err != nil {
				return "", err
			}
		case "tag":
			after = append(after, func() error { return r.Tag(value, "") })
		case "annotated":
			after = append(after, func() error { return r.Tag(value, value) })
		}
	}
	for _, file := range archive.Files {
		change := File(file.Name, string(file.Data))
		if exec[file.Name] {
			change.mode = filemode.Executable
		}
		changes = append(changes, change)
	}
	hash, err := r.Commit(message, changes...)
	for _, do := range after {
		err = errors.Join(err, do())
	}
	return hash, err
}

// Switch makes HEAD name a branch, which is created at HEAD's commit if it does not exist.
func (r *Repo) Switch(branch string) error {
	name := plumbing.NewBranchReferenceName(branch)
	if _, err := r.git.Reference(name, false); errors.Is(err, plumbing.ErrReferenceNotFound) {
		if head, err := r.git.Head(); err == nil {
			if err := r.git.Storer.SetReference(plumbing.NewHashReference(name, head.Hash())); err != nil {
				return err
			}
		}
	}
	return r.git.Storer.SetReference(plumbing.NewSymbolicReference(plumbing.HEAD, name))
}

// Detach makes HEAD name a commit instead of a branch, as CI checkouts do.
func (r *Repo) Detach(revision string) error {
	hash, err := r.git.ResolveRevision(plumbing.Revision(revision))
	if err != nil {
		return fmt.Errorf("revision %q: %w", revision, err)
	}
	return r.git.Storer.SetReference(plumbing.NewHashReference(plumbing.HEAD, *hash))
}

// Tag makes a tag at HEAD's commit, annotated if the message is not empty.
func (r *Repo) Tag(name, message string) error {
	head, err := r.git.Head()
	if err != nil {
		return err
	}
	var options *git.CreateTagOptions
	if message != "" {
		tagger := author
		tagger.When = r.now()
		options = &git.CreateTagOptions{Tagger: &tagger, Message: message}
	}
	_, err = r.git.CreateTag(name, head.Hash(), options)
	return err
}

// SetRef makes any reference point to a commit, such as refs/pull/7/head.
func (r *Repo) SetRef(name, hash string) error {
	return r.git.Storer.SetReference(plumbing.NewHashReference(plumbing.ReferenceName(name), plumbing.NewHash(hash)))
}

// SetRemote adds the remote of this name, or changes its URL.
func (r *Repo) SetRemote(name, url string) error {
	err := r.git.DeleteRemote(name)
	if err != nil && !errors.Is(err, git.ErrRemoteNotFound) {
		return err
	}
	_, err = r.git.CreateRemote(&config.RemoteConfig{Name: name, URLs: []string{url}})
	return err
}

// Checkout writes the files of HEAD's commit to the folder, so that people and tools which want a work tree see one.
func (r *Repo) Checkout() error {
	head, err := r.git.Head()
	if err != nil {
		return err
	}
	tree, err := r.git.Worktree()
	if err != nil {
		return err
	}
	return tree.Reset(&git.ResetOptions{Commit: head.Hash(), Mode: git.HardReset})
}

func (r *Repo) now() time.Time { return Epoch.Add(time.Duration(r.commits) * time.Minute) }

// Paths lists the files of HEAD's commit, sorted.
func (r *Repo) Paths() ([]string, error) {
	head, err := r.git.Head()
	if err != nil {
		return nil, err
	}
	files, err := r.files(head.Hash())
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, err
}

func cleanPath(name string) (string, error) {
	clean := path.Clean(name)
	if !fs.ValidPath(clean) || clean == "." {
		return "", fmt.Errorf("path %q is not one below the repository's root", name)
	}
	return clean, nil
}
