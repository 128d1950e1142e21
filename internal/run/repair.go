package run

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/status"
)

// mending is the records of a root that are made anew.
type mending struct {
	root    flux.ID
	records []*inventory.Record
	lost    []string // of records, what is not known of each
	// whole says that the root's own record is made anew, in the place of
	// unreadable if that is not nil.
	whole      bool
	unreadable *inventory.Unreadable
}

// repair makes the records anew that cannot be read or are missing, from what
// the owner labels in the cluster tell.
func (r *run) repair(ctx context.Context) []event.Failure {
	mendings, failures := r.mendings()
	if len(failures) > 0 {
		return failures
	}
	r.status.Repairs = []status.Repair{}
	if len(mendings) == 0 {
		return nil
	}
	if failures := r.confirm(ctx, Question{Lines: describe(mendings), Word: "repair"}); len(failures) > 0 {
		return failures
	}
	for _, m := range mendings {
		if failures := r.mend(ctx, m); len(failures) > 0 {
			return failures
		}
	}
	if failures := r.survey(ctx); len(failures) > 0 {
		return failures
	}
	repairs := r.status.Repairs
	failures = r.list(ctx)
	if len(failures) == 0 {
		r.status.Repairs = repairs
	}
	return failures
}

// survey reads all records anew.
func (r *run) survey(ctx context.Context) []event.Failure {
	survey, err := r.store.(*inventory.ClusterStore).Survey(ctx)
	if err != nil {
		return r.failuresOf(ctx, "record", nil, err)
	}
	r.surveyed = survey
	return nil
}

// mendings finds out what there is to repair, by root.
func (r *run) mendings() ([]mending, []event.Failure) {
	var all []mending
	var failures []event.Failure
	for _, root := range r.roots {
		m := mending{root: root, whole: r.recordedRoot(root) == nil}
		for i := range r.surveyed.Unreadable {
			u := &r.surveyed.Unreadable[i]
			if r.rootOf(u) != root || u.ID.IsZero() {
				continue
			}
			if u.Newer() && !r.options.OverwriteNewer {
				failures = append(failures, event.Failure{Phase: "record", Reason: "NewerRecord", Text: u.Err.Error(),
					Hint: "repair it with that version of sluice or a later one; --overwrite-newer takes what the cluster tells instead"})
				continue
			}
			if u.Kind == inventory.KindRoot {
				m.unreadable = u
				continue
			}
			record, known := u.Rebuild(root, r.labelled(u.ID))
			m.add(record, known)
		}
		for _, id := range r.surveyed.Missing(root) {
			if entries := r.labelled(id); len(entries) > 0 {
				record := inventory.BareRecord(root, id)
				record.Entries = entries
				m.add(record, false)
			}
		}
		if m.whole || len(m.records) > 0 {
			all = append(all, m)
		}
	}
	for i := range r.surveyed.Unreadable {
		u := &r.surveyed.Unreadable[i]
		if u.ID.IsZero() || r.rootOf(u).IsZero() {
			failures = append(failures, event.Failure{Phase: "record", Reason: "UnknownRecord", Text: fmt.Sprintf("%s: nothing tells whose record it is: %v", u.Object, u.Err),
				Hint: "delete the ConfigMap, then repair again: what it knew is found by the owner labels"})
		}
	}
	return all, failures
}

func (m *mending) add(record *inventory.Record, known bool) {
	lost := ""
	if !known {
		lost = "what its manifest said is not known: if it has left Git, its objects stay"
	}
	m.records = append(m.records, record)
	m.lost = append(m.lost, lost)
}

// rootOf is the root that an unreadable record belongs to: as it says itself, else
// the one that has the Kustomization in its list.
func (r *run) rootOf(u *inventory.Unreadable) flux.ID {
	if !u.Root.IsZero() {
		return u.Root
	}
	for _, id := range r.surveyed.Roots() {
		if root := r.recordedRoot(id); root != nil && slices.Contains(root.Nodes, u.ID) {
			return id
		}
	}
	return flux.ID{}
}

// labelled are the objects that carry the owner labels of a Kustomization, in all
// clusters that were looked at.
func (r *run) labelled(id flux.ID) []inventory.Entry {
	var entries []inventory.Entry
	for _, place := range r.places() {
		var refs []flux.Ref
		for i := range r.scanned[place].Objects {
			o := &r.scanned[place].Objects[i]
			if o.Owner == id && !o.Derived && !(place.IsOwn() && o.Flux()) {
				refs = append(refs, o.Ref)
			}
		}
		entries = append(entries, inventory.EntriesIn(place, refs)...)
	}
	return entries
}

// describe says what is going to be done, a line for each record.
func describe(mendings []mending) []string {
	var lines []string
	for _, m := range mendings {
		for i, record := range m.records {
			line := fmt.Sprintf("rebuild the record of Kustomization %s, with %s", record.ID, count(len(record.Entries), "object", "objects"))
			if m.lost[i] != "" {
				line += "; " + m.lost[i]
			}
			lines = append(lines, line)
		}
		if m.whole {
			lines = append(lines, fmt.Sprintf("rebuild the record of root %s", m.root))
		}
	}
	return lines
}

// mend makes the records of a root anew, under its lock. What there is to repair
// is found out once more then: a run that was at work when it was first looked for
// has made objects since, or put the records right.
func (r *run) mend(ctx context.Context, shown mending) []event.Failure {
	held, failure := r.acquire(ctx, shown.root)
	if failure != nil {
		return []event.Failure{*failure}
	}
	r.hold(ctx, held)
	defer r.release()
	m, failures := r.underLock(ctx, shown)
	if len(failures) > 0 || m == nil {
		return r.orLost(ctx, failures)
	}
	at := time.Now().UTC()
	for i, record := range m.records {
		record.Result = inventory.Failed // nobody knows: the next run puts it right
		if err := r.saveRecord(ctx, record, at); err != nil {
			failures = append(failures, r.failuresOf(ctx, "record", nil, err)...)
			continue
		}
		r.status.Repairs = append(r.status.Repairs, status.Repair{ID: record.ID.String(), Record: inventory.KindKustomization,
			Objects: len(record.Entries), Lost: m.lost[i]})
	}
	if len(failures) == 0 {
		if err := r.store.Sweep(ctx, m.root); err != nil {
			failures = r.failuresOf(ctx, "record", nil, err)
		}
	}
	if m.whole && len(failures) == 0 {
		failures = r.mendRoot(ctx, *m, at)
	}
	if ctx.Err() != nil {
		failures = append(failures, interrupted(ctx))
	}
	return failures
}

// underLock is what there is to repair of a root now that its lock is held; nil if
// nothing is any more. What somebody has confirmed is done, or nothing.
func (r *run) underLock(ctx context.Context, shown mending) (*mending, []event.Failure) {
	for _, look := range []func(context.Context) []event.Failure{r.survey, r.scan} {
		if failures := look(ctx); len(failures) > 0 {
			return nil, failures
		}
	}
	all, failures := r.mendings()
	if len(failures) > 0 {
		return nil, failures
	}
	at := slices.IndexFunc(all, func(m mending) bool { return m.root == shown.root })
	if at < 0 {
		return nil, nil
	}
	if r.sinks.Confirm != nil && !slices.Equal(describe(all[at:at+1]), describe([]mending{shown})) {
		return nil, []event.Failure{{Phase: "lock", Reason: "StalePlan",
			Text: fmt.Sprintf("another run of root %s has ended meanwhile, so this is no longer what was confirmed", shown.root), Hint: "run it again"}}
	}
	return &all[at], nil
}

func (r *run) mendRoot(ctx context.Context, m mending, at time.Time) []event.Failure {
	records := map[flux.ID]*inventory.Record{}
	for _, record := range slices.Concat(r.recordsOf(m.root), m.records) {
		records[record.ID] = record
	}
	root := inventory.RebuildRoot(m.root, m.unreadable, records)
	root.Updated, root.ToolVersion = at, r.options.Version
	if err := r.store.SaveRoot(ctx, root); err != nil {
		return r.failuresOf(ctx, "record", nil, err)
	}
	repaired := status.Repair{ID: m.root.String(), Record: inventory.KindRoot}
	var lost []string
	if root.Path == "" {
		lost = append(lost, "its entry folder")
	}
	if root.Started.Commit == "" {
		lost = append(lost, "the commit that was applied last")
	}
	if len(lost) > 0 {
		repaired.Lost = strings.Join(lost, " and ") + " not known: the next run sets it"
	}
	r.status.Repairs = append(r.status.Repairs, repaired)
	return nil
}

// Question is what the user has to confirm.
type Question struct {
	// Lines say what is going to be done.
	Lines []string
	// Word is what the user has to type.
	Word string
}

// confirm asks the user, where somebody is to be asked.
func (r *run) confirm(ctx context.Context, q Question) []event.Failure {
	if r.sinks.Confirm == nil {
		return nil
	}
	typed, err := r.sinks.Confirm(ctx, q)
	switch {
	case ctx.Err() != nil:
		return []event.Failure{interrupted(ctx)}
	case err != nil:
		return []event.Failure{{Phase: "guard", Reason: "NotConfirmed", Text: fmt.Sprintf("it was not confirmed: %v", err), Hint: "type " + q.Word + ", or give --yes"}}
	case strings.TrimSpace(typed) != q.Word:
		return []event.Failure{{Phase: "guard", Reason: "NotConfirmed", Text: fmt.Sprintf("it was not confirmed: %q was typed, not %q; nothing was touched", strings.TrimSpace(typed), q.Word),
			Hint: "type " + q.Word + ", or give --yes"}}
	}
	return nil
}
