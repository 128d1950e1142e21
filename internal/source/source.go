// Package source turns a repository and a revision into a read-only file tree and the facts about its commit.
//
// [Open] is the way in. A local repository is read in place, straight from its object store: no work tree is looked at, so
// uncommitted files, symbolic links, checkout filters and hooks play no part. A repository behind a URL is fetched once, as
// little of it as the revision needs, into a bare temporary folder that [Commit.Close] removes. The package speaks the fetch
// side of Git's pack protocol itself, on top of go-git's encoders and storage, because that is where contexts, credentials,
// proxies, certificates and retries have to be right.
//
// It reads no environment and prints nothing. All Git, its credentials and its network are here and nowhere else.
package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// Options say what to open. The zero value is HEAD of the repository around the working folder.
type Options struct {
	// Repo is a folder in a local repository, or a URL: https, http, ssh, file, or git@host:path. Empty is ".".
	Repo string
	// Revision is a commit (full, or a short hash of at least 4 digits), a tag, a branch or a full reference such as
	// refs/pull/7/head, each with ~N or ^ behind it for ancestors. Empty is HEAD of a local repository, the default branch of
	// a remote one.
	Revision string
	// Name is what the caller knows the commit to be called, such as the branch a CI job runs for. It is used in
	// [Commit.Revision] when Revision is empty or a commit and the repository itself does not say: CI systems check out
	// commits, not branches.
	Name string
	// Auth are the credentials for a URL, and for a local repository's origin when [Commit.Ancestry] needs it.
	Auth Auth
	// Progress, if set, is told what is going on, in plain text without credentials. It is called in Open and Ancestry only.
	Progress func(string)
}

// Auth are credentials and what the other side is checked against. What is given is used only for where it fits; the zero
// value asks for nothing secret.
type Auth struct {
	// Token is an access token for https. It is sent as a password, which every forge takes, with Username or else a user name
	// that does not matter to GitHub, Gitea and Azure DevOps; as a bearer token to servers that ask for nothing else.
	Token string
	// Username and Password are for https. A URL's own user and password fill what is missing (S10.9).
	Username, Password string
	// CA are PEM certificates that https trusts beside the system's.
	CA []byte

	// SSHKey is a PEM private key, Passphrase decrypts it.
	SSHKey     []byte
	Passphrase string
	// SSHAgent is the path of an SSH agent's socket, asked for keys when SSHKey is empty.
	SSHAgent string
	// KnownHosts is the text of a known_hosts file. Without it, or without the server in it, no SSH connection is made:
	// host keys are always checked (S10.10).
	KnownHosts []byte
}

// Commit is an open commit. Its tree and its methods are safe for concurrent use; Close ends them.
type Commit struct {
	// FS is the commit's tree. It implements fs.ReadDirFS, fs.ReadFileFS and fs.StatFS. Symbolic links and submodules are
	// missing from it (S10.38), modes are reduced to 0600, 0700 and folders of 0750 (S10.39), times are the commit's.
	FS fs.FS
	// Hash is the commit's, 40 hexadecimal digits.
	Hash string
	// Branch is the branch or tag that the revision named, or the one that names the commit in the repository; empty if none.
	Branch string
	// Revision is what Flux calls it (S10.7, S16.9): "<branch>@sha1:<hash>", "<tag>@sha1:<hash>", or "sha1:<hash>".
	Revision string
	// Subject is the first line of the message, Author is "Name <mail>", Time is when it was committed.
	Subject, Author string
	Time            time.Time
	// URL is the repository's, as [NormalizeURL] has it. Of a local repository it is that of its remote, and empty without.
	URL string
	// Folder is where in the repository a local Options.Repo pointed, "." for the root and for URLs.
	Folder string
	// Dirty are files that are tracked and differ from the commit, sorted: changes which will not be deployed. It is only
	// filled for HEAD of a local work tree of up to 20,000 files whose index shows it without reading everything; files that
	// were never added do not show. Empty says nothing.
	Dirty []string

	tree      *treeFS
	artifacts artifacts
	objects   *objects
	history   *history
	closers   []func() error
	closing   sync.Once
	closeErr  error
}

// Open finds a repository, fetches it if it is not local, and opens the commit that the revision names.
//
// Errors that a user can solve are an [*Error]. When ctx ends, the error is its cause.
func Open(ctx context.Context, o Options) (*Commit, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	l, err := locate(o.Repo)
	if err != nil {
		return nil, err
	}
	rev, err := parseRevision(o.Revision)
	if err != nil {
		return nil, err
	}
	if l.folder != "" {
		return openLocal(l.folder, rev, o)
	}
	return openRemote(ctx, l, rev, o)
}

// Dropped lists the symbolic links, submodules, Git LFS pointers and ignored files that were met so far, sorted by path: links
// and submodules in folders that were read, pointers in files that were read, and what [Commit.Artifact] leaves out if it was
// asked for by its name. What nobody looked at is nobody's concern.
func (c *Commit) Dropped() []Dropped {
	list := c.artifacts.ignoredSoFar()
	if c.tree != nil {
		list = append(list, c.tree.droppedSoFar()...)
	}
	slices.SortFunc(list, func(a, b Dropped) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// Close frees files and removes what was fetched. Calling it again does nothing more.
func (c *Commit) Close() error {
	c.closing.Do(func() {
		for i := len(c.closers) - 1; i >= 0; i-- {
			c.closeErr = errors.Join(c.closeErr, c.closers[i]())
		}
	})
	return c.closeErr
}

// newCommit fills in what the commit object says. name may be empty.
func newCommit(o *objects, hash plumbing.Hash, name string) (*Commit, error) {
	commit, err := o.commit(hash)
	if err != nil {
		return nil, err
	}
	subject, _, _ := strings.Cut(strings.TrimLeft(commit.Message, "\n"), "\n")
	c := &Commit{
		Hash:     hash.String(),
		Branch:   name,
		Revision: "sha1:" + hash.String(),
		Subject:  brief(subject),
		Author:   brief(fmt.Sprintf("%s <%s>", commit.Author.Name, commit.Author.Email)),
		Time:     commit.Committer.When.UTC(),
		Folder:   ".",
		tree:     newTreeFS(o, commit.TreeHash, commit.Committer.When.UTC()),
		objects:  o,
	}
	if name != "" {
		c.Revision = name + "@" + c.Revision
	}
	c.FS = c.tree
	if err := c.tree.load(&entry{tree: c.tree, name: ".", path: ".", mode: modeFolder, dir: c.tree.root}); err != nil {
		return nil, fmt.Errorf("reading the tree of commit %s: %w", c.Hash, err)
	}
	c.tree.note(c.tree.root)
	return c, nil
}

// OpenPlace opens what stands in for a source: the commit at HEAD of a local
// repository, or a folder that is in none, as it is. Of a folder, symbolic
// links that lead out of it cannot be read, Hash is empty, and Revision is
// "local".
func OpenPlace(ctx context.Context, place string) (*Commit, error) {
	commit, err := Open(ctx, Options{Repo: place})
	if err == nil || !errors.Is(err, ErrNotRepository) {
		return commit, err
	}
	root, err := os.OpenRoot(place)
	if err != nil {
		return nil, failf(ErrNotRepository, "give an existing folder", "%q cannot be opened: %v", place, err)
	}
	return &Commit{FS: root.FS(), Revision: "local", Folder: ".", closers: []func() error{root.Close}}, nil
}
