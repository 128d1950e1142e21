package source

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/config"
)

// localRepo is where the parts of a local repository are. In an ordinary one the two Git folders are the same; in a linked
// work tree gitDir holds HEAD and index, commonDir all else.
type localRepo struct {
	root      string // of the work tree; empty in a bare repository
	gitDir    string
	commonDir string
	config    *config.Config
}

// findRepo looks for a repository in a folder and then in those above it, as git does.
func findRepo(folder string) (*localRepo, error) {
	start, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(start)
	if errors.Is(err, os.ErrNotExist) {
		return nil, failf(ErrNotRepository, "give a folder in a Git repository, or a clone URL", "%q does not exist", folder)
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, failf(ErrNotRepository, "give a folder in a Git repository, or a clone URL", "%q is a file, not a Git repository", folder)
	}
	// Links are resolved so that a linked sub-folder finds the repository that really holds it.
	if start, err = filepath.EvalSymlinks(start); err != nil {
		return nil, err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		found, err := repoAt(dir)
		if err != nil {
			return nil, err
		}
		if found != nil {
			return found, found.readConfig()
		}
		if dir == filepath.Dir(dir) {
			return nil, failf(ErrNotRepository, "run it in a checkout, or name the repository by --repo",
				"%q is not in a Git repository (neither it nor a folder above it has a .git)", folder)
		}
	}
}

// repoAt is the repository whose root, Git folder or bare folder is exactly dir; nil if there is none.
func repoAt(dir string) (*localRepo, error) {
	dot := filepath.Join(dir, ".git")
	info, err := os.Stat(dot)
	switch {
	case err == nil && info.IsDir():
		if r, err := gitFolder(dot); r != nil || err != nil {
			if r != nil {
				r.root = dir
			}
			return r, err
		}
	case err == nil:
		return linkedRepo(dir, dot)
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	return gitFolder(dir)
}

// linkedRepo follows a .git file, which linked work trees and submodules have.
func linkedRepo(dir, dot string) (*localRepo, error) {
	text, err := readFile(dot, maxReference)
	if err != nil {
		return nil, err
	}
	target, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "gitdir: ")
	if !ok {
		return nil, failf(ErrNotRepository, "", "%q is not a file that Git wrote: it lacks \"gitdir: \"", dot)
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(dir, target)
	}
	r, err := gitFolder(target)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, failf(ErrNotRepository, "if the repository was moved, run `git worktree repair` in it", "%q points to %q, which is no Git folder", dot, target)
	}
	r.root = dir
	return r, nil
}

// gitFolder recognises a Git folder the way git does: by HEAD, objects and refs.
func gitFolder(dir string) (*localRepo, error) {
	if info, err := os.Lstat(filepath.Join(dir, "HEAD")); err != nil || info.IsDir() {
		return nil, nil
	}
	r := &localRepo{gitDir: dir, commonDir: dir}
	text, err := readFile(filepath.Join(dir, "commondir"), maxReference)
	if err == nil {
		r.commonDir = strings.TrimSpace(string(text))
		if !filepath.IsAbs(r.commonDir) {
			r.commonDir = filepath.Join(dir, r.commonDir)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, name := range []string{"objects", "refs"} {
		if info, err := os.Stat(filepath.Join(r.commonDir, name)); err != nil || !info.IsDir() {
			return nil, nil
		}
	}
	return r, nil
}

// shallow reports whether the history is cut off. Where is seen by what is missing.
func (r *localRepo) shallow() bool {
	info, err := os.Stat(filepath.Join(r.commonDir, "shallow"))
	return err == nil && info.Size() > 0
}

func openLocal(folder string, rev revision, o Options) (_ *Commit, err error) {
	repo, err := findRepo(folder)
	if err != nil {
		return nil, err
	}
	refs, err := repo.references()
	if err != nil {
		return nil, err
	}
	store, err := openObjects(repo.commonDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, store.close())
		}
	}()
	hash, name, err := resolveLocal(repo, refs, store, rev, o.Name)
	if err != nil {
		return nil, err
	}
	c, err := newCommit(store, hash, name)
	if err != nil {
		return nil, fmt.Errorf("repository %q: %w", repo.where(), err)
	}
	c.closers = append(c.closers, store.close)
	c.history = &history{local: store, auth: o.Auth, progress: o.Progress}
	if remote := repo.remoteURL(); remote != "" {
		c.history.setRemote(repo, remote)
		if normal, err := NormalizeURL(remote); err == nil {
			c.URL = normal // a remote that is a folder or of a foreign scheme has none
		}
	}
	if c.Folder, err = repo.folderOf(folder); err != nil {
		return nil, err
	}
	if hash == refs.head && repo.root != "" {
		c.Dirty = repo.dirty(newTreeFS(store, c.tree.root.hash, c.Time)) // its own, so that c.Dropped stays with what the caller reads
	}
	return c, nil
}

// where names the repository for people.
func (r *localRepo) where() string {
	if r.root != "" {
		return r.root
	}
	return r.gitDir
}

func (r *localRepo) folderOf(folder string) (string, error) {
	if r.root == "" {
		return ".", nil
	}
	abs, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return "", err
	}
	rel, err := filepath.Rel(r.root, abs)
	return filepath.ToSlash(rel), err
}

func resolveLocal(repo *localRepo, refs *references, store *objects, rev revision, known string) (plumbing.Hash, string, error) {
	none := plumbing.ZeroHash
	refs.peel = store.peel
	found, err := refs.resolve(rev)
	if err != nil {
		return none, "", err
	}
	if found.hex == "" && found.hash.IsZero() {
		return none, "", failf(ErrEmptyRepository, "commit something first", "the repository %q has no commit on %q yet", repo.where(), shortName(found.ref))
	}
	if found.hex != "" && len(found.hex) < 40 {
		hashes, err := store.commitsWithPrefix(found.hex)
		if err != nil {
			return none, "", err
		}
		if len(hashes) > 1 {
			return none, "", ambiguousHash(rev, hashes)
		}
		if len(hashes) == 0 {
			return none, "", repo.missing(refs, rev)
		}
		found.hash = hashes[0]
	}
	hash, err := store.peel(found.hash)
	if errors.Is(err, errObjectMissing) && found.hex != "" {
		return none, "", repo.missing(refs, rev)
	}
	if err != nil {
		return none, "", fmt.Errorf("revision %q in repository %q: %w", rev.text, repo.where(), err)
	}
	name := shortName(found.ref)
	if found.ref == "" {
		name = refs.nameOf(hash, known)
	}
	if rev.parent == 0 {
		return hash, name, nil
	}
	hash, err = firstParent(store, rev, hash)
	return hash, "", err
}

// missing explains a hash that the local store does not have: in CI it most often was not fetched.
func (r *localRepo) missing(refs *references, rev revision) error {
	err := refs.unknown(rev)
	var e *Error
	if errors.As(err, &e) {
		e.Text = fmt.Sprintf("unknown revision %q: the repository %q has no such commit", rev.text, r.where())
		e.Candidates = nil
		if r.shallow() {
			e.Text += "; it is a shallow clone"
			e.Remedy = "fetch all history (fetch-depth: 0 in actions/checkout, GIT_DEPTH: 0 in GitLab CI), or name the repository by its URL"
		}
	}
	return err
}

// firstParent goes up as often as the revision says.
func firstParent(store *objects, rev revision, hash plumbing.Hash) (plumbing.Hash, error) {
	for range rev.parent {
		commit, err := store.commit(hash)
		if err != nil {
			return hash, err
		}
		if len(commit.ParentHashes) == 0 {
			return hash, failf(ErrUnknownRevision, "", "revision %q goes back beyond the first commit, %.7s", rev.text, hash)
		}
		if _, err := store.commit(commit.ParentHashes[0]); errors.Is(err, errObjectMissing) {
			return hash, failf(ErrUnknownRevision, "fetch all history, or name the repository by its URL",
				"revision %q goes back beyond commit %.7s, where this shallow clone ends", rev.text, hash)
		}
		hash = commit.ParentHashes[0]
	}
	return hash, nil
}
