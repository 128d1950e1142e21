package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/retry"
	"github.com/sluicerun/sluice/internal/safe"
)

const (
	// deleters is how many objects of one kind are deleted at once.
	deleters = 8
	// grace is how long a request in flight may go on after the run was cancelled.
	grace = 2 * time.Second
	// finalizerWait bounds the wait for finalizers before what they may depend on is deleted, and the one for all that is not gone
	// at the end.
	finalizerWait = time.Minute
	// tries is how often an object that changes between being looked at and being deleted is looked at again.
	tries = 5
)

// Outcome is what became of an object.
type Outcome string

// The outcomes.
const (
	// Deleted: the server accepted the deletion; with Deletion.Wait, the object is gone.
	Deleted Outcome = "deleted"
	// Gone: it was not there (S5.8).
	Gone Outcome = "gone"
	// Spared: the live object says that it is not to be deleted; it is forgotten (S5.13).
	Spared Outcome = "kept"
	// Failed: it could not be deleted, or is not gone in time. It stays in the record (S5.12).
	Failed Outcome = "failed"
	// Lingers: the server has accepted the deletion, and something keeps the object from going. It stays in the record, so that
	// the next runs look whether it is gone.
	Lingers Outcome = "lingers"
	// NotTried: the run was cancelled before, or something that must be gone first is not. It stays in the record.
	NotTried Outcome = "not-tried"
)

// Result is what Delete did with one object.
type Result struct {
	Node    flux.ID
	Entry   inventory.Entry
	Ref     flux.Ref
	Outcome Outcome
	// Reason says why it is Spared or NotTried, what it waits for if it Lingers, and for Gone what there is to say; may be empty.
	Reason string
	// Err is set if it Failed. Of one that is only not gone it is a *LingerError, as it is if it Lingers.
	Err error
}

// Settled reports whether the record can let go of the object.
func (r Result) Settled() bool {
	return r.Outcome == Deleted || r.Outcome == Gone || r.Outcome == Spared
}

// Options says how Delete works.
type Options struct {
	// Client returns the client for a deletion's cluster that acts for its service account.
	Client func(Deletion) (Client, error)
	// Own, if not nil, returns the client of sluice's own account for the same cluster. It is asked whether an object is still there that
	// the account of its Kustomization may not read: one that somebody has deleted by hand counts as gone, whatever became of the
	// account.
	Own func(Deletion) (Client, error)
	// Report, if not nil, is told each result when it is known, in the order in which Delete returns them or, for objects that are
	// waited for, after that. It is never called concurrently.
	Report func(Result)
	// Begin and Done, if not nil, are called before each deletion and after it, with its results, from the goroutine that called
	// Delete. Once ctx has ended nothing begins: then there is only Done. What may yet turn out to linger is among them as deleted; with Deletion.Wait there is nothing of that kind.
	Begin func(Deletion)
	Done  func(Deletion, []Result)
}

// Delete deletes, one Kustomization after the other in the order given, objects of one kind concurrently, kinds in the reverse of
// Flux's order of apply (S5.7). Each object is looked at first: it must carry the owner labels and no marker (S5.8, S5.9). The
// request holds for that very object, by uid, and lets the cluster delete dependents in the background (S5.10).
//
// It goes on after failures. What a Kustomization deleted is waited for before the next one's turn in two cases: Deletion.Wait
// (S5.19), and finalizers on objects whose controller may belong to a Kustomization that comes later because this one needs it; that
// one is not touched while they are there. What else the server did not remove at once, since it has finalizers or is a Namespace, is
// waited for at the end, all of it together, for the longest of the timeouts and a minute at most. What is still there then lingers, which is no failure: Flux
// does not look at it (S5.10), and what is slow to go, a load balancer say, will be gone some time. One that an earlier run has
// deleted more than a minute ago is not waited for again.
//
// When ctx ends, nothing new is begun; the request in flight may finish within 2 seconds. There is a result for every entry, in
// the order of the deletions, and the error joins all failures, and the context's cause.
func Delete(ctx context.Context, deletions []Deletion, o Options) ([]Result, error) {
	w := &deleting{deletions: deletions, report: o.Report, own: o.Own, hanging: map[flux.ID]string{}}
	for i, d := range deletions {
		if o.Begin != nil && ctx.Err() == nil {
			o.Begin(d)
		}
		results := w.one(ctx, i, d, o.Client)
		w.results = append(w.results, results...)
		if o.Done != nil {
			o.Done(d, results)
		}
	}
	w.linger(ctx)
	var errs []error
	for _, r := range w.results {
		if r.Outcome == Failed {
			errs = append(errs, fmt.Errorf("prune of Kustomization %q: %w", r.Node, r.Err))
		}
	}
	if ctx.Err() != nil {
		errs = append(errs, context.Cause(ctx))
	}
	return w.results, errors.Join(errs...)
}

// deleting is the work of Delete in progress.
type deleting struct {
	deletions []Deletion
	report    func(Result)
	own       func(Deletion) (Client, error)
	results   []Result
	// hanging names, per Kustomization, an object that is still there with finalizers.
	hanging map[flux.ID]string
	// slow are objects that are not gone at once and that nobody waits for before the end.
	slow []slow
}

// slow is an object that takes its time.
type slow struct {
	// index is that of its result, deletion that of its deletion.
	index, deletion int
	client          Client
	target          *target
}

func (w *deleting) tell(r Result) {
	if w.report != nil {
		w.report(r)
	}
}

// one deletes the objects of one Kustomization.
func (w *deleting) one(ctx context.Context, index int, d Deletion, clientFor func(Deletion) (Client, error)) []Result {
	results := make([]Result, len(d.Entries))
	for i, e := range d.Entries {
		results[i] = Result{Node: d.Node, Entry: e, Outcome: NotTried, Reason: "the run was cancelled"}
		results[i].Ref, results[i].Err = e.Ref()
	}
	if why := w.blocked(index); why != "" {
		return w.all(results, NotTried, why, nil)
	}
	if ctx.Err() != nil {
		return w.all(results, NotTried, "the run was cancelled", nil)
	}
	c, err := clientFor(d)
	if err != nil {
		return w.all(results, Failed, "", err)
	}
	patient := d.Wait || w.neededLater(index)
	awaited, unhurried := make([]*target, len(results)), make([]*target, len(results))
	for first := 0; first < len(results); {
		last := first + 1
		for last < len(results) && results[last].Ref.Kind == results[first].Ref.Kind && results[last].Ref.Group == results[first].Ref.Group {
			last++
		}
		group := errgroup.Group{}
		group.SetLimit(deleters)
		for i := first; i < last; i++ {
			group.Go(func() (err error) {
				defer safe.Recover(&err)
				if ctx.Err() != nil || results[i].Err != nil {
					return nil
				}
				if live := w.object(ctx, c, d, &results[i]); live != nil {
					t := &target{ref: results[i].Ref, gvk: live.GroupVersionKind(), uid: live.UID, since: since(live), finalizers: live.Finalizers}
					switch {
					case patient && (d.Wait || hasFinalizers(live)):
						awaited[i] = t
					case lasts(live):
						unhurried[i] = t
					}
				}
				return nil
			})
		}
		// The functions return no other error: it is in the result.
		safe.Raise(group.Wait())
		for i := first; i < last; i++ {
			if results[i].Err != nil {
				results[i].Outcome, results[i].Reason = Failed, ""
			}
			switch {
			case unhurried[i] != nil:
				w.slow = append(w.slow, slow{index: len(w.results) + i, deletion: index, client: c, target: unhurried[i]})
			case awaited[i] == nil:
				w.tell(results[i])
			}
		}
		first = last
	}
	w.wait(ctx, c, d, results, awaited)
	return results
}

func (w *deleting) all(results []Result, outcome Outcome, reason string, err error) []Result {
	for i := range results {
		results[i].Outcome, results[i].Reason, results[i].Err = outcome, reason, err
		w.tell(results[i])
	}
	return results
}

// wait waits for objects to be gone, and makes failures of those that are not in time.
func (w *deleting) wait(ctx context.Context, c Client, d Deletion, results []Result, awaited []*target) {
	targets := slices.DeleteFunc(slices.Clone(awaited), func(t *target) bool { return t == nil })
	if len(targets) == 0 {
		return
	}
	timeout := cmp.Or(d.Timeout, finalizerWait)
	if !d.Wait {
		timeout = min(timeout, finalizerWait)
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	awaitGone(limited, c, targets)
	for i, t := range awaited {
		if t == nil {
			continue
		}
		if !t.gone {
			r := &results[i]
			r.Outcome = Failed
			t.remains = remaining(ctx, c, t)
			r.Err = t.failure(ctx, timeout)
			if w.hanging[d.Node] == "" {
				w.hanging[d.Node] = r.Ref.String()
			}
		}
		w.tell(results[i])
	}
}

// linger waits, once all has been deleted, for what is slow to go.
func (w *deleting) linger(ctx context.Context) {
	if len(w.slow) == 0 {
		return
	}
	began := time.Now()
	var longest time.Duration
	for _, s := range w.slow {
		longest = max(longest, min(cmp.Or(w.deletions[s.deletion].Timeout, finalizerWait), finalizerWait))
	}
	limited, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	byDeletion := map[int][]*target{}
	clients := map[int]Client{}
	for _, s := range w.slow {
		if t := s.target; t.since.IsZero() || began.Sub(t.since) < longest {
			byDeletion[s.deletion], clients[s.deletion] = append(byDeletion[s.deletion], t), s.client
		}
	}
	var group errgroup.Group
	for deletion, targets := range byDeletion {
		group.Go(func() (err error) {
			defer safe.Recover(&err)
			awaitGone(limited, clients[deletion], targets)
			return nil
		})
	}
	safe.Raise(group.Wait()) // there is no other error: a target keeps its own
	for _, s := range w.slow {
		r := &w.results[s.index]
		if !s.target.gone {
			s.target.remains = remaining(ctx, s.client, s.target)
			err := s.target.failure(ctx, time.Since(began).Round(time.Second))
			r.Outcome, r.Reason, r.Err = Lingers, "it "+err.why(), err
		}
		w.tell(*r)
	}
}

// neededLater reports whether a later deletion is of something that this Kustomization needs.
func (w *deleting) neededLater(index int) bool {
	for later := index + 1; later < len(w.deletions); later++ {
		if w.reaches(w.deletions[index].Node, w.deletions[later].Node, nil) {
			return true
		}
	}
	return false
}

// blocked says which earlier deletion must be finished first; empty if none.
func (w *deleting) blocked(index int) string {
	for _, d := range w.deletions[:index] {
		if object := w.hanging[d.Node]; object != "" && w.reaches(d.Node, w.deletions[index].Node, nil) {
			return fmt.Sprintf("%s of Kustomization %q, which needs it, is still being deleted", object, d.Node)
		}
	}
	return ""
}

// reaches follows what Kustomizations need, as far as they are among the deletions.
func (w *deleting) reaches(from, to flux.ID, seen []flux.ID) bool {
	if slices.Contains(seen, from) {
		return false
	}
	seen = append(seen, from)
	for _, d := range w.deletions {
		if d.Node != from {
			continue
		}
		for _, need := range d.Needs {
			if need == to || w.reaches(need, to, seen) {
				return true
			}
		}
	}
	return false
}

// object deletes one object and fills in its result. It returns the object if the server accepted the deletion, now or before: one
// that is being deleted already is not deleted again.
func (w *deleting) object(ctx context.Context, c Client, d Deletion, r *Result) *metav1.PartialObjectMetadata {
	ctx, cancel := retry.Outlive(ctx, grace)
	defer cancel()
	var uid types.UID
	for try := 1; ; try++ {
		f, err := lookup(ctx, c, r.Ref)
		if err != nil && !(apierrors.IsForbidden(err) && w.isGone(ctx, d, r.Ref)) {
			r.Err = err
			return nil
		}
		if err != nil || f.gone {
			r.Outcome, r.Reason = Gone, f.note
			return nil
		}
		if uid == "" {
			uid = f.live.UID
		}
		if f.live.UID != uid {
			r.Err = fmt.Errorf("%s was made anew while it was deleted; look for who else applies it", r.Ref)
			return nil
		}
		why := protected(f.live, d)
		if why == "" {
			why, err = twinOf(ctx, c, d, r.Entry, f.live)
		}
		switch {
		case err != nil:
			r.Err = err
			return nil
		case why != "":
			r.Outcome, r.Reason = Spared, why
			return nil
		case f.live.DeletionTimestamp != nil:
			r.Outcome, r.Reason = Deleted, ""
			return f.live
		}
		version := f.live.ResourceVersion
		preconditions := client.Preconditions{UID: &uid}
		if try < tries {
			// Holds what was just looked at: labels and markers. The last try does without, for an object whose
			// status never rests.
			preconditions.ResourceVersion = &version
		}
		err = c.Delete(ctx, shell(f.live), preconditions, client.PropagationPolicy(metav1.DeletePropagationBackground))
		switch {
		case err == nil:
			r.Outcome, r.Reason = Deleted, ""
			return f.live
		case apierrors.IsNotFound(err):
			r.Outcome, r.Reason = Deleted, ""
			return nil
		case apierrors.IsConflict(err) && try < tries:
			continue
		}
		mapping, mapErr := mappingOf(c, r.Ref)
		if mapErr != nil {
			r.Err = fmt.Errorf("%s delete failed: %w", r.Ref, err)
			return nil
		}
		r.Err = inventory.Access(err, fmt.Sprintf("delete %s", r.Ref), "delete", mapping.Resource.GroupResource(), r.Ref.Namespace)
		return nil
	}
}

// isGone asks as sluice itself. What cannot be told that way either is not gone.
func (w *deleting) isGone(ctx context.Context, d Deletion, ref flux.Ref) bool {
	if w.own == nil {
		return false
	}
	c, err := w.own(d)
	if err != nil {
		return false
	}
	f, err := lookup(ctx, c, ref)
	return err == nil && f.gone
}

// shell is as much of an object as a request to delete it needs, in the one form that clients take of every kind.
func shell(live *metav1.PartialObjectMetadata) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(live.GroupVersionKind())
	o.SetNamespace(live.Namespace)
	o.SetName(live.Name)
	return o
}

// lasts reports whether the server does not remove an object at once when it is deleted.
func lasts(o *metav1.PartialObjectMetadata) bool {
	kind := o.GroupVersionKind()
	return len(o.Finalizers) > 0 || o.DeletionTimestamp != nil || kind.Group == "" && kind.Kind == namespaceKind
}

// hasFinalizers leaves out those of Kubernetes itself, which no controller of a Kustomization has to remove.
func hasFinalizers(o *metav1.PartialObjectMetadata) bool {
	return slices.ContainsFunc(o.Finalizers, func(f string) bool { return !strings.HasPrefix(f, "kubernetes.io/") })
}
