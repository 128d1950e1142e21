package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/sluicerun/sluice/internal/retry"
)

// networkPolicy gives a forge a moment to recover and a person an answer within seconds.
var networkPolicy = retry.Policy{Attempts: 4, Base: 500 * time.Millisecond, Max: 4 * time.Second, Factor: 2}

// commitsOnly leaves out trees and files: the history's shape is a few hundred bytes per commit.
const commitsOnly = packp.Filter("tree:0")

// connect begins a session with the repository at l. header is an Authorization header to use when there are no credentials.
func connect(ctx context.Context, l location, auth Auth, header string) (session, error) {
	if l.scheme == "ssh" {
		return dialSSH(ctx, l, auth)
	}
	return dialHTTP(ctx, l, auth, header)
}

// fetched is a bare temporary repository.
type fetched struct {
	*objects
	dir string
}

func newFetched() (*fetched, error) {
	dir, err := os.MkdirTemp("", "sluice-git-")
	if err != nil {
		return nil, err
	}
	return &fetched{objects: &objects{stores: []*filesystem.ObjectStorage{openStore(dir)}}, dir: dir}, nil
}

func (f *fetched) store() *filesystem.ObjectStorage { return f.stores[0] }

func (f *fetched) remove() error {
	return errors.Join(f.objects.close(), os.RemoveAll(f.dir))
}

func openRemote(ctx context.Context, l location, rev revision, o Options) (*Commit, error) {
	var c *Commit
	err := retry.Do(ctx, networkPolicy, func(ctx context.Context, attempt int) error {
		again := ""
		if attempt > 1 {
			again = fmt.Sprintf(" (attempt %d of %d)", attempt, networkPolicy.Attempts)
		}
		o.Progress("fetching " + l.String() + again)
		var err error
		c, err = fetchCommit(ctx, l, rev, o)
		return err
	})
	return c, err
}

// fetchCommit is one attempt to fetch and open a commit.
func fetchCommit(ctx context.Context, l location, rev revision, o Options) (_ *Commit, err error) {
	into, err := newFetched()
	if err != nil {
		return nil, retry.Permanent(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, into.remove())
		}
	}()
	s, err := connect(ctx, l, o.Auth, "")
	if err != nil {
		return nil, err
	}
	f := &fetch{location: l, auth: o.Auth, session: s, refs: remoteReferences(s.adverts()), into: into, progress: o.Progress}
	defer func() { f.session.close() }()
	hash, name, err := f.run(ctx, rev, o.Name)
	if err != nil {
		return nil, err
	}
	c, err := newCommit(into.objects, hash, name)
	if err != nil {
		return nil, retry.Permanent(err)
	}
	c.URL = l.normal()
	c.closers = append(c.closers, into.remove)
	c.history = &history{local: into.objects, auth: o.Auth, progress: o.Progress, location: l}
	return c, nil
}

// fetch is the work of one attempt.
type fetch struct {
	location location
	auth     Auth
	session  session
	refs     *references
	into     *fetched
	progress func(string)
}

// remoteReferences turns what a server advertises into references.
func remoteReferences(adv *packp.AdvRefs) *references {
	refs := &references{byName: adv.References, peeled: adv.Peeled}
	if adv.Head != nil {
		refs.head = *adv.Head
	}
	for _, pair := range adv.Capabilities.Get(capability.SymRef) {
		if target, ok := strings.CutPrefix(pair, "HEAD:"); ok {
			refs.headBranch = target
		}
	}
	return refs
}

// run fetches what the revision needs and returns the commit and its name.
func (f *fetch) run(ctx context.Context, rev revision, known string) (plumbing.Hash, string, error) {
	none := plumbing.ZeroHash
	if len(f.refs.byName) == 0 && f.refs.head.IsZero() {
		return none, "", retry.Permanent(failf(ErrEmptyRepository, "push a commit first", "the repository %s has no commit yet", f.location))
	}
	found, err := f.refs.resolve(rev)
	if err != nil {
		return none, "", retry.Permanent(f.named(err))
	}
	if found.hex == "" && found.hash.IsZero() {
		err := f.refs.unknown(rev)
		var e *Error
		if errors.As(err, &e) {
			e.Text = fmt.Sprintf("the default branch of %s has no commit; the repository has %s", f.location, strings.Join(e.Candidates, ", "))
			e.Remedy = "name a revision"
		}
		return none, "", retry.Permanent(err)
	}
	start, err := f.get(ctx, rev, found)
	if err != nil {
		return none, "", err
	}
	hash, err := f.into.peel(start)
	if err != nil {
		return none, "", retry.Permanent(fmt.Errorf("revision %q of %s: %w", rev.text, f.location, err))
	}
	name := shortName(found.ref)
	if found.ref == "" {
		name = f.refs.nameOf(hash, known)
	}
	if rev.parent > 0 {
		name = ""
		if hash, err = firstParent(f.into.objects, rev, hash); err != nil {
			return none, "", retry.Permanent(err)
		}
	}
	return hash, name, nil
}

// named adds the repository to an error about a revision.
func (f *fetch) named(err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.Text = fmt.Sprintf("%s (%s)", e.Text, f.location)
	}
	return err
}

// get fetches the objects for a resolved revision and returns the hash that it stands for.
func (f *fetch) get(ctx context.Context, rev revision, found resolved) (plumbing.Hash, error) {
	if len(found.hex) > 0 && len(found.hex) < 40 {
		return f.getShort(ctx, rev, found.hex)
	}
	exact := order{wants: []plumbing.Hash{found.hash}, depth: rev.parent + 1}
	if found.ref != "" || f.isTip(found.hash) || f.anyCommit() {
		err := f.receive(ctx, exact)
		if err == nil || found.ref != "" || !errors.Is(err, errNotOurRef) {
			return found.hash, err
		}
		if f.anyCommit() { // that is: any which a branch or tag leads to
			return found.hash, f.noCommit(rev)
		}
		if err := f.reconnect(ctx); err != nil {
			return found.hash, err
		}
	}
	// The server gives commits only by the names of branches and tags: fetch all of them, and it is there or does not exist.
	f.progress("fetching all branches of " + f.location.String() + ", because the server does not give single commits")
	if err := f.receive(ctx, order{wants: f.tips()}); err != nil {
		return found.hash, err
	}
	if _, err := f.into.peel(found.hash); err != nil {
		return found.hash, f.noCommit(rev)
	}
	return found.hash, nil
}

// getShort finds out what a short hash stands for, which takes the history: a server is asked by full hashes only.
func (f *fetch) getShort(ctx context.Context, rev revision, hex string) (plumbing.Hash, error) {
	all := order{wants: f.tips()}
	single := f.anyCommit() && f.session.adverts().Capabilities.Supports(capability.Filter)
	if single {
		all.filter = commitsOnly
	}
	f.progress("looking for commit " + hex + " in the history of " + f.location.String())
	into := f.into
	if single {
		// Apart from the real fetch: a store in which trees are missing on purpose would be a trap.
		scratch, err := newFetched()
		if err != nil {
			return plumbing.ZeroHash, retry.Permanent(err)
		}
		defer scratch.remove()
		into = scratch
	}
	if _, err := receive(ctx, f.session, all, into.store()); err != nil {
		return plumbing.ZeroHash, err
	}
	hashes, err := into.commitsWithPrefix(hex)
	switch {
	case err != nil:
		return plumbing.ZeroHash, retry.Permanent(err)
	case len(hashes) == 0:
		return plumbing.ZeroHash, f.noCommit(rev)
	case len(hashes) > 1:
		return plumbing.ZeroHash, retry.Permanent(f.named(ambiguousHash(rev, hashes)))
	case !single:
		return hashes[0], nil
	}
	if err := f.reconnect(ctx); err != nil {
		return plumbing.ZeroHash, err
	}
	return hashes[0], f.receive(ctx, order{wants: hashes, depth: rev.parent + 1})
}

func (f *fetch) receive(ctx context.Context, want order) error {
	_, err := receive(ctx, f.session, want, f.into.store())
	return err
}

func (f *fetch) noCommit(rev revision) error {
	err := f.refs.unknown(rev)
	var e *Error
	if errors.As(err, &e) {
		e.Text = fmt.Sprintf("unknown revision %q: no branch or tag of %s holds this commit", rev.text, f.location)
		e.Candidates = nil
		e.Remedy = "was it pushed? was the branch rewritten or deleted?"
	}
	return retry.Permanent(err)
}

// reconnect begins anew where one session serves one request.
func (f *fetch) reconnect(ctx context.Context) error {
	f.session.close()
	s, err := connect(ctx, f.location, f.auth, "")
	if err == nil {
		f.session = s
	}
	return err
}

func (f *fetch) isTip(hash plumbing.Hash) bool {
	return slices.Contains(f.tips(), hash)
}

// tips are the commits and tags that branches and tags point to, sorted, each once.
func (f *fetch) tips() []plumbing.Hash { return tips(f.session.adverts()) }

func tips(adv *packp.AdvRefs) []plumbing.Hash {
	var all []plumbing.Hash
	for ref, hash := range adv.References {
		if strings.HasPrefix(ref, "refs/heads/") || strings.HasPrefix(ref, "refs/tags/") {
			all = append(all, hash)
		}
	}
	if len(all) == 0 && adv.Head != nil {
		all = append(all, *adv.Head)
	}
	plumbing.HashesSort(all)
	return slices.Compact(all)
}

// anyCommit reports whether the server gives commits by their hash.
func (f *fetch) anyCommit() bool { return givesAnyCommit(f.session) }

func givesAnyCommit(s session) bool {
	return s.adverts().Capabilities.Supports(capability.AllowReachableSHA1InWant)
}
