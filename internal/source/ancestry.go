package source

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/sluicerun/sluice/internal/retry"
)

// RelationKind says how another commit stands to this one.
type RelationKind string

// The closed set of relations, as seen from the commit that was opened.
const (
	Same       RelationKind = "same"
	Ancestor   RelationKind = "ancestor"   // the other is older: this commit goes forward from it
	Descendant RelationKind = "descendant" // the other is newer: this commit goes back from it
	Diverged   RelationKind = "diverged"   // neither
	Unknown    RelationKind = "unknown"    // the history could not be had
)

// Relation is the answer of [Commit.Ancestry].
type Relation struct {
	Kind RelationKind
	// Ahead counts the commits that this one has and the other has not; Behind those that the other has and this one has not.
	// Both are 0 when Kind is Unknown.
	Ahead, Behind int
	// Exact is false when the counts are lower bounds, because the history is cut off somewhere. Kind is certain all the same.
	Exact bool
	// Reason says why Kind is Unknown.
	Reason string
	// Gone is set if Kind is Unknown because the other commit is in no branch or tag, of the remote's either: the history was
	// rewritten, or it is another repository. More history would not help.
	Gone bool
}

// history is where commits are looked up: in the opened repository and, once it is needed, in what its remote has.
type history struct {
	local    *objects
	auth     Auth
	progress func(string)
	location location // of the remote; the zero value if there is none
	header   string   // an Authorization header from the checkout's configuration
	noRemote string   // why there is no remote

	mu     sync.Mutex
	known  map[plumbing.Hash]Relation // what was found out with the remote's help
	deeper []*objects
	closer []func() error
}

// setRemote remembers where a local repository came from.
func (h *history) setRemote(repo *localRepo, remote string) {
	l, err := locate(remote)
	switch {
	case err != nil:
		h.noRemote = fmt.Sprintf("its remote cannot be asked: %v", err)
	default:
		h.location = l
		h.header = repo.authorization(l)
	}
}

// Ancestry says how another commit, given by its full hash, stands to this one: by the history, never by dates.
//
// When the repository at hand does not hold enough of the history, as in a shallow checkout, the missing commits (where the
// server can leave them out, without their files) are fetched from the remote into a temporary folder; the local repository is
// never changed. If that is impossible the answer is Unknown with the reason, not an error. Errors are a hash that is none
// and an ended context.
func (c *Commit) Ancestry(ctx context.Context, other string) (Relation, error) {
	if !fullHash.MatchString(other) {
		return Relation{}, fmt.Errorf("%q is not a full commit hash", other)
	}
	if ctx.Err() != nil {
		return Relation{}, context.Cause(ctx)
	}
	this, that := plumbing.NewHash(c.Hash), plumbing.NewHash(other)
	if this == that {
		return Relation{Kind: Same, Exact: true}, nil
	}
	h := c.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if relation, ok := h.known[that]; ok {
		return relation, nil
	}
	relation, err := h.compare(ctx, this, that)
	if err != nil || relation.Kind != Unknown && relation.Exact {
		return relation, err
	}
	relation, err = h.ask(ctx, relation, this, that)
	c.atClose(h.closer)
	h.closer = nil
	if err != nil {
		return Relation{}, err
	}
	if h.known == nil {
		h.known = map[plumbing.Hash]Relation{}
	}
	h.known[that] = relation
	return relation, nil
}

// ask compares once more with what the remote has. relation is what can be told without.
func (h *history) ask(ctx context.Context, relation Relation, this, that plumbing.Hash) (Relation, error) {
	for _, depth := range []int{recentHistory, 0} {
		why, err := h.deepen(ctx, this, that, depth)
		if err != nil {
			return Relation{}, err
		}
		if why != "" {
			if relation.Kind == Unknown {
				relation.Reason += "; " + why
			}
			return relation, nil
		}
		relation, err = h.compare(ctx, this, that)
		if err != nil || relation.Kind != Unknown && relation.Exact {
			return relation, err
		}
		if h.location.folder != "" {
			break // all that it has
		}
	}
	if _, err := h.commit(that); relation.Kind == Unknown && errors.Is(err, errObjectMissing) {
		relation.Gone = true
		relation.Reason = fmt.Sprintf("commit %.7s is in no branch or tag of %s", that, h.location)
	}
	return relation, nil
}

// recentHistory is how many commits back from each side are fetched before all are: a deployment is rarely further from the
// last one, and the whole history of a busy repository takes seconds.
const recentHistory = 500

// atClose adds what Close has to do. Ancestry holds the history's lock.
func (c *Commit) atClose(do []func() error) { c.closers = append(c.closers, do...) }

// compare walks both histories from the newest commit on, marking what each reaches, until only common commits are left.
//
// Every commit that only one side reaches is walked, whatever its date, so the kind of relation does not hang on clocks. The
// counts do when a common commit claims to be older than one that only one side has; Git's own walk has that limit too.
func (h *history) compare(ctx context.Context, this, that plumbing.Hash) (Relation, error) {
	w := &walk{history: h, marks: map[plumbing.Hash]mark{}, missing: map[plumbing.Hash]bool{}}
	for _, start := range []struct {
		hash plumbing.Hash
		side mark
	}{{this, fromThis}, {that, fromThat}} {
		if err := w.reach(start.hash, start.side); err != nil {
			return Relation{}, err
		}
	}
	for steps := 0; w.oneSided > 0; steps++ {
		if steps%1024 == 0 && ctx.Err() != nil {
			return Relation{}, context.Cause(ctx)
		}
		if err := w.step(); err != nil {
			return Relation{}, err
		}
	}
	return w.relation(this, that), nil
}

type mark uint8

const (
	fromThis mark = 1 << iota
	fromThat
	common = fromThis | fromThat
)

// walk is the state of a comparison.
type walk struct {
	history  *history
	marks    map[plumbing.Hash]mark
	queue    commitQueue
	oneSided int // in the queue, not common
	missing  map[plumbing.Hash]bool
}

// queued is a commit whose parents have yet to get its mark.
type queued struct {
	hash    plumbing.Hash
	parents []plumbing.Hash
	time    time.Time
	side    mark // when it was put in
}

// reach marks a commit and, if that is news, puts it in the queue.
func (w *walk) reach(hash plumbing.Hash, side mark) error {
	have := w.marks[hash]
	if have|side == have {
		return nil
	}
	w.marks[hash] = have | side
	commit, err := w.history.commit(hash)
	if errors.Is(err, errObjectMissing) {
		w.missing[hash] = true
		return nil
	}
	if err != nil {
		return err
	}
	commit.side = have | side
	if commit.side != common {
		w.oneSided++
	}
	heap.Push(&w.queue, commit)
	return nil
}

func (w *walk) step() error {
	next := heap.Pop(&w.queue).(*queued)
	if next.side != common {
		w.oneSided--
	}
	for _, parent := range next.parents {
		if err := w.reach(parent, w.marks[next.hash]); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) relation(this, that plumbing.Hash) Relation {
	r := Relation{Exact: true}
	for hash := range w.missing {
		if w.marks[hash] != common {
			r.Exact = false
		}
	}
	for hash, side := range w.marks {
		if side != common && w.missing[hash] {
			continue
		}
		switch side {
		case fromThis:
			r.Ahead++
		case fromThat:
			r.Behind++
		}
	}
	switch {
	case w.marks[that] == common:
		r.Kind = Ancestor
	case w.marks[this] == common:
		r.Kind = Descendant
	case r.Exact:
		r.Kind = Diverged
	case w.missing[that]:
		return Relation{Kind: Unknown, Reason: fmt.Sprintf("commit %.7s is not in the repository", that)}
	default:
		return Relation{Kind: Unknown, Reason: "the repository's history is cut off (a shallow clone)"}
	}
	return r
}

// commitQueue is a heap, newest first.
type commitQueue []*queued

func (q commitQueue) Len() int           { return len(q) }
func (q commitQueue) Less(i, j int) bool { return q[i].time.After(q[j].time) }
func (q commitQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *commitQueue) Push(x any)        { *q = append(*q, x.(*queued)) }
func (q *commitQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func (h *history) commit(hash plumbing.Hash) (*queued, error) {
	var commit *object.Commit
	err := errObjectMissing
	for _, store := range append(h.deeper[:len(h.deeper):len(h.deeper)], h.local) {
		if commit, err = store.commit(hash); !errors.Is(err, errObjectMissing) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return &queued{hash: hash, parents: commit.ParentHashes, time: commit.Committer.When}, nil
}

// deepen gets the history from the remote, up to depth commits from each side; 0 is all. If it cannot, it says why; an error is only an ended context.
func (h *history) deepen(ctx context.Context, this, that plumbing.Hash, depth int) (why string, err error) {
	switch {
	case h.noRemote != "":
		return h.noRemote, nil
	case h.location == (location{}):
		return "it has no remote to ask", nil
	case h.location.folder != "":
		return h.deepenFromFolder()
	}
	h.progress("fetching the history of " + h.location.String())
	var got *fetched
	err = retry.Do(ctx, networkPolicy, func(ctx context.Context, _ int) error {
		var err error
		got, err = fetchHistory(ctx, h.location, h.auth, h.header, this, that, depth)
		return err
	})
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return fmt.Sprintf("its history cannot be fetched: %v", err), nil
	}
	h.deeper = append([]*objects{got.objects}, h.deeper...) // the newest holds the most
	h.closer = append(h.closer, got.remove)
	return "", nil
}

func (h *history) deepenFromFolder() (string, error) {
	repo, err := findRepo(h.location.folder)
	if err != nil {
		return fmt.Sprintf("its remote cannot be read: %v", err), nil
	}
	store, err := openObjects(repo.commonDir)
	if err != nil {
		return fmt.Sprintf("its remote cannot be read: %v", err), nil
	}
	h.deeper = append(h.deeper, store)
	h.closer = append(h.closer, store.close)
	return "", nil
}

// fetchHistory fetches the commits that lead to these two, depth of them; when the server does not give them by their hashes, those of all
// branches and tags.
func fetchHistory(ctx context.Context, l location, auth Auth, header string, this, that plumbing.Hash, depth int) (_ *fetched, err error) {
	into, err := newFetched()
	if err != nil {
		return nil, retry.Permanent(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, into.remove())
		}
	}()
	s, err := connect(ctx, l, auth, header)
	if err != nil {
		return nil, err
	}
	defer func() { s.close() }()
	want := order{depth: depth}
	if s.adverts().Capabilities.Supports(capability.Filter) {
		want.filter = commitsOnly
	}
	if givesAnyCommit(s) {
		want.wants = []plumbing.Hash{this, that}
		_, err := receive(ctx, s, want, into.store())
		if err == nil {
			return into, nil
		}
		if !errors.Is(err, errNotOurRef) {
			return nil, err
		}
		again, err := connect(ctx, l, auth, header)
		if err != nil {
			return nil, err
		}
		s.close()
		s = again
	}
	want.wants = tips(s.adverts())
	if len(want.wants) == 0 {
		return nil, retry.Permanent(failf(ErrEmptyRepository, "", "the repository %s has no commit", l))
	}
	_, err = receive(ctx, s, want, into.store())
	return into, err
}
