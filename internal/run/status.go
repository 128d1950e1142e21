package run

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/lock"
	"github.com/sluicerun/sluice/internal/owned"
	"github.com/sluicerun/sluice/internal/status"
)

// lookers is how many objects and locks are read by name at once.
const lookers = 8

// looking is what status has found.
type looking struct {
	surveyed *inventory.Survey                // reachOwn
	roots    []flux.ID                        // list
	status   *status.Status                   // list; the stages after it fill it up
	scanned  map[flux.ClusterRef]*owned.Found // scan, by place
}

// list tells what is on record, and who holds the locks.
func (r *run) list(ctx context.Context) []event.Failure {
	roots, failures := r.chosen()
	if len(failures) > 0 {
		return failures
	}
	r.roots = roots
	r.status = &status.Status{
		Version: status.Version, Sluice: r.options.Version, Time: time.Now().UTC(), Context: r.cluster.Context, Server: r.cluster.Server,
		StateNamespace: r.options.StateNamespace, Roots: make([]status.Root, len(roots)),
	}
	var looks []func() error
	for i, id := range roots {
		r.status.Roots[i] = r.rootStatus(id)
		looks = append(looks, func() (err error) {
			r.status.Roots[i].Lock, err = r.lockStatus(ctx, id)
			return err
		})
	}
	for i, err := range inParallel(lookers, looks) {
		if err != nil {
			if ctx.Err() != nil {
				return []event.Failure{interrupted(ctx)}
			}
			r.notice(event.Notice{Level: event.Warning, Code: "lock-unknown", Node: roots[i].String(), Text: err.Error(),
				Hint: "grant the verb get on leases of API group coordination.k8s.io in the state namespace"})
		}
	}
	return nil
}

// rootStatus is what the records of a root tell.
func (r *run) rootStatus(id flux.ID) status.Root {
	s := status.Root{ID: id.String(), Kustomizations: []status.Kustomization{}, History: []status.Run{}}
	if root := r.recordedRoot(id); root != nil {
		last := runStatus(root.Started)
		s.Path, s.URL, s.Live, s.Last = root.Path, root.URL, root.Finished.Revision, &last
		for _, past := range root.History {
			s.History = append(s.History, runStatus(past))
		}
	}
	for _, record := range r.recordsOf(id) {
		s.Kustomizations = append(s.Kustomizations, status.Kustomization{
			ID: record.ID.String(), Revision: record.Revision, Result: string(record.Result), Updated: record.Updated.UTC(),
			Objects: len(record.Entries), Kinds: kindsOf(record.Entries), Suspended: record.Suspended,
		})
	}
	return s
}

func runStatus(past inventory.Run) status.Run {
	return status.Run{Revision: past.Revision, Result: string(past.Result), Started: past.Started, Ended: past.Ended, RunURL: past.RunURL, Actor: past.Actor}
}

// kindsOf counts entries by kind, the most frequent first.
func kindsOf(entries []inventory.Entry) []status.Kind {
	counts := map[schema.GroupKind]int{}
	for _, e := range entries {
		if ref, err := e.Ref(); err == nil { // reading the record has checked it
			counts[ref.GVK().GroupKind()]++
		}
	}
	kinds := []status.Kind{}
	for kind, n := range counts {
		kinds = append(kinds, status.Kind{Kind: kind.Kind, Group: kind.Group, Count: n})
	}
	slices.SortFunc(kinds, func(a, b status.Kind) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Group, b.Group))
	})
	return kinds
}

func (r *run) lockStatus(ctx context.Context, root flux.ID) (*status.Lock, error) {
	c, err := r.cluster.Client("")
	if err != nil {
		return nil, err
	}
	held, err := lock.Look(ctx, c, r.options.StateNamespace, inventory.RootName(root))
	if err != nil || held == nil {
		return nil, err
	}
	return &status.Lock{Lease: held.Lease, Holder: held.Holder.Identity, RunURL: held.Holder.RunURL, Actor: held.Holder.Actor,
		Commit: held.Holder.Commit, Since: held.Since.UTC(), Expired: held.Expired}, nil
}

// tellUnreadable ends the command with what could not be read, if it was not
// repaired.
func (r *run) tellUnreadable(ctx context.Context) []event.Failure {
	failures := r.unreadable(ctx, r.roots)
	for i := range r.surveyed.Unreadable {
		u := &r.surveyed.Unreadable[i]
		if !u.Root.IsZero() && !slices.Contains(r.roots, u.Root) {
			continue
		}
		told := status.Unreadable{Object: u.Object, Error: u.Err.Error()}
		if !u.ID.IsZero() {
			told.ID = u.ID.String()
		}
		if h, ok := as[hinter](u.Err); ok {
			told.Hint = h.Hint()
		}
		r.status.Unreadable = append(r.status.Unreadable, told)
	}
	return failures
}
