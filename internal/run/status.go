package run

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/health"
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

// seen is a live object, or why there is none.
type seen struct {
	object *unstructured.Unstructured
	err    error
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

// places are the clusters that were looked at, the run's own first.
func (r *run) places() []flux.ClusterRef {
	return slices.SortedFunc(maps.Keys(r.scanned), compareRefs)
}

// scan looks in each cluster for what carries the owner labels, one list for each
// kind, and reads by name what is on record and in no list.
func (r *run) scan(ctx context.Context) []event.Failure {
	var records []*inventory.Record
	for _, root := range r.surveyed.Roots() {
		records = append(records, r.recordsOf(root)...)
	}
	r.reachRecorded(ctx, records)
	places := []flux.ClusterRef{{}}
	wanted := map[flux.ClusterRef]map[schema.GroupKind]bool{{}: {}}
	for _, record := range records {
		for _, e := range record.Entries {
			at := r.homes.where(e.Cluster)
			if at.Lost != "" {
				continue
			}
			if wanted[at.Cluster] == nil {
				wanted[at.Cluster] = map[schema.GroupKind]bool{}
				places = append(places, at.Cluster)
			}
			if ref, err := e.Ref(); err == nil && slices.Contains(r.roots, record.Root) {
				wanted[at.Cluster][ref.GVK().GroupKind()] = true
			}
		}
	}
	slices.SortFunc(places, compareRefs)
	r.scanned = map[flux.ClusterRef]*owned.Found{}
	for _, place := range places {
		found, err := r.scanIn(ctx, place, wanted[place])
		if err != nil {
			return r.failuresOf(ctx, "cluster", nil, err)
		}
		r.scanned[place] = found
	}
	return nil
}

func (r *run) scanIn(ctx context.Context, place flux.ClusterRef, wanted map[schema.GroupKind]bool) (*owned.Found, error) {
	to := r.homes.at(place)
	c, err := to.Client("")
	if err != nil {
		return nil, err
	}
	kinds, err := to.Discovery()
	if err != nil {
		return nil, err
	}
	return owned.Find(ctx, c, kinds, func(kind schema.GroupKind) bool { return wanted[kind] && health.NeedsContent(kind) })
}

// judgeHealth tells how the objects on record are.
func (r *run) judgeHealth(ctx context.Context) []event.Failure {
	type key struct {
		place flux.ClusterRef
		ref   flux.Ref
	}
	listed := map[key]*unstructured.Unstructured{}
	for place, found := range r.scanned {
		for i := range found.Objects {
			listed[key{place, found.Objects[i].Ref.Key()}] = found.Objects[i].Content
		}
	}
	var mu sync.Mutex
	byName := map[key]seen{}
	var reads []func() error
	r.eachEntry(func(_ *status.Kustomization, e inventory.Entry, ref flux.Ref) {
		place := r.homes.where(e.Cluster)
		k := key{place.Cluster, ref.Key()}
		if place.Lost != "" || listed[k] != nil {
			return
		}
		reads = append(reads, func() error {
			o, err := r.readLive(ctx, place.Cluster, ref)
			mu.Lock()
			defer mu.Unlock()
			byName[k] = seen{o, err}
			return nil
		})
	})
	_ = inParallel(lookers, reads) // the errors are in byName
	if ctx.Err() != nil {
		return []event.Failure{interrupted(ctx)}
	}
	for i := range r.status.Roots {
		for j := range r.status.Roots[i].Kustomizations {
			r.status.Roots[i].Kustomizations[j].Health = &status.Health{}
		}
	}
	r.eachEntry(func(k *status.Kustomization, e inventory.Entry, ref flux.Ref) {
		place := r.homes.where(e.Cluster)
		at := key{place.Cluster, ref.Key()}
		state := health.Status{Ref: ref, Status: health.Unknown, Message: place.Lost}
		if o := listed[at]; place.Lost == "" && o != nil {
			state = health.Judge(ctx, o)
		} else if place.Lost == "" {
			state = judgeRead(ctx, ref, byName[at])
		}
		if state.Ready() {
			k.Health.Current++
			return
		}
		if state.Err != nil {
			state.Message = state.Err.Error()
		}
		k.Health.Objects = append(k.Health.Objects, status.Unready{Object: ref.String(), Cluster: e.Cluster.String(), Status: state.Status, Message: state.Message})
	})
	for i := range r.status.Roots {
		for j := range r.status.Roots[i].Kustomizations {
			h := r.status.Roots[i].Kustomizations[j].Health
			slices.SortStableFunc(h.Objects, func(a, b status.Unready) int {
				return cmp.Or(strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.Object, b.Object))
			})
			h.Judge()
		}
	}
	return nil
}

// eachEntry visits all objects on record of the roots, in a fixed order.
func (r *run) eachEntry(visit func(*status.Kustomization, inventory.Entry, flux.Ref)) {
	for i, root := range r.roots {
		for j, record := range r.recordsOf(root) {
			for _, e := range record.Entries {
				if ref, err := e.Ref(); err == nil { // reading the record has checked it
					visit(&r.status.Roots[i].Kustomizations[j], e, ref)
				}
			}
		}
	}
}

// readLive reads an object by name, no more of it than its health needs.
func (r *run) readLive(ctx context.Context, place flux.ClusterRef, ref flux.Ref) (*unstructured.Unstructured, error) {
	to := r.homes.at(place)
	c, err := to.Client("")
	if err != nil {
		return nil, err
	}
	mapping, err := to.Mapper().RESTMapping(ref.GVK().GroupKind())
	if err != nil {
		return nil, err
	}
	name := client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}
	if health.NeedsContent(ref.GVK().GroupKind()) {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(mapping.GroupVersionKind)
		return o, c.Get(ctx, name, o)
	}
	head := &metav1.PartialObjectMetadata{}
	head.SetGroupVersionKind(mapping.GroupVersionKind)
	if err := c.Get(ctx, name, head); err != nil {
		return nil, err
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(head)
	if err != nil {
		return nil, err
	}
	o := &unstructured.Unstructured{Object: content}
	o.SetGroupVersionKind(mapping.GroupVersionKind)
	return o, nil
}

// judgeRead judges an object that no list had: it is gone, or has lost its owner
// labels, or its kind cannot be listed.
func judgeRead(ctx context.Context, ref flux.Ref, read seen) health.Status {
	switch {
	case apierrors.IsNotFound(read.err) && ref.Group == "batch" && ref.Kind == "Job":
		// Records do not say whether a Job deletes itself (S6.12).
		return health.Status{Ref: ref, Status: health.Current}
	case apierrors.IsNotFound(read.err):
		return health.Status{Ref: ref, Status: health.NotFound, Message: "the object does not exist"}
	case meta.IsNoMatchError(read.err):
		return health.Status{Ref: ref, Status: health.NotFound, Message: "the cluster does not serve its kind"}
	case read.err != nil:
		return health.Status{Ref: ref, Status: health.Unknown, Err: read.err}
	}
	return health.Judge(ctx, read.object)
}

// findOrphans tells what carries owner labels and is in no record. What Flux itself runs
// in the same cluster is none.
func (r *run) findOrphans(ctx context.Context) []event.Failure {
	recorded := map[flux.ClusterRef]map[flux.Ref]bool{}
	for _, root := range r.surveyed.Roots() {
		for _, record := range r.recordsOf(root) {
			for _, e := range record.Entries {
				place := r.homes.where(e.Cluster).Cluster
				if recorded[place] == nil {
					recorded[place] = map[flux.Ref]bool{}
				}
				if ref, err := e.Ref(); err == nil {
					recorded[place][ref.Key()] = true
				}
			}
		}
	}
	controlled, err := r.controlled(ctx)
	if err != nil {
		return r.failuresOf(ctx, "cluster", nil, err)
	}
	r.status.Orphans = []status.Orphan{}
	for _, place := range r.places() {
		found := r.scanned[place]
		for i := range found.Objects {
			o := &found.Objects[i]
			if o.Derived || recorded[place][o.Ref.Key()] || place.IsOwn() && o.Flux() || !r.concerns(o.Owner, controlled) {
				continue
			}
			r.status.Orphans = append(r.status.Orphans, status.Orphan{Object: o.Ref.String(), APIVersion: o.Ref.GVK().GroupVersion().String(),
				Kustomization: o.Owner.String(), Cluster: place.String()})
		}
		for _, u := range found.Unlisted {
			reason := "not allowed to list it"
			if !u.Forbidden {
				reason = u.Err.Error()
			}
			r.status.Unlisted = append(r.status.Unlisted, status.Unlisted{Kind: u.Kind, Cluster: place.String(), Reason: reason})
		}
	}
	return nil
}

// concerns says whether an object of a Kustomization that is in no record is to be
// told: not if its record is there but cannot be read, nor if it is one that Flux
// runs, nor one of another root than was asked for.
func (r *run) concerns(owner flux.ID, controlled map[flux.ID]bool) bool {
	root, known := r.surveyed.Owner(owner)
	if !known {
		for _, id := range r.surveyed.Roots() {
			if state := r.surveyed.States[id]; state != nil && state.Root != nil && slices.Contains(state.Root.Nodes, owner) {
				root, known = id, true
			}
		}
	}
	for i := range r.surveyed.Unreadable {
		if u := &r.surveyed.Unreadable[i]; u.Kind == inventory.KindKustomization && u.ID == owner {
			return false
		}
	}
	if !known && controlled[owner] {
		return false
	}
	return r.wanted() == "" || known && slices.Contains(r.roots, root)
}

// controlled are the Kustomization objects in the cluster, which one of Flux's
// controllers runs, or did.
func (r *run) controlled(ctx context.Context) (map[flux.ID]bool, error) {
	kind := schema.GroupKind{Group: flux.Group, Kind: flux.KustomizationKind}
	mapping, err := r.cluster.Mapper().RESTMapping(kind)
	if meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := r.cluster.Client("")
	if err != nil {
		return nil, err
	}
	page := &metav1.PartialObjectMetadataList{}
	page.SetGroupVersionKind(mapping.GroupVersionKind.GroupVersion().WithKind(kind.Kind + "List"))
	err = c.List(ctx, page)
	switch {
	case apierrors.IsForbidden(err):
		r.notice(event.Notice{Level: event.Warning, Code: "orphans-unsure",
			Text: "not allowed to list Flux's Kustomizations: what Flux has applied may be told as orphans",
			Hint: fmt.Sprintf("grant the verb list on kustomizations of API group %s", flux.Group)})
		return nil, nil
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("cannot read Flux's Kustomizations: %w", err)
	}
	ids := map[flux.ID]bool{}
	for i := range page.Items {
		ids[flux.ID{Namespace: page.Items[i].Namespace, Name: page.Items[i].Name}] = true
	}
	return ids, nil
}

// compare tells drift: what a run of the commit on record would change. That is
// what a plan of it says, so a plan is made.
func (r *run) compare(ctx context.Context) []event.Failure {
	for i, id := range r.roots {
		s := &r.status.Roots[i]
		root := r.recordedRoot(id)
		if root == nil || root.Started.Commit == "" {
			s.DriftError = "no commit is on record"
			continue
		}
		if len(r.roots) > 1 && !r.options.RepoChosen && r.options.Path == "" && r.options.Root == "" {
			return []event.Failure{{Phase: "record", Reason: "RootRequired", Text: "drift can be told of one root at a time, and there are several",
				Hint: "name one of: " + r.rootNames(r.roots)}}
		}
		o := r.options
		o.Command, o.Path, o.Wait = CommandPlan, root.Path, cmp.Or(o.Wait, health.Auto)
		o.Source.Revision = cmp.Or(o.Source.Revision, root.Started.Commit)
		watch := &planWatch{}
		outcome := Run(ctx, o, Sinks{Events: watch, Learn: r.sinks.Learn, Public: r.sinks.Public})
		if ctx.Err() != nil {
			return []event.Failure{interrupted(ctx)}
		}
		if watch.planned == nil || outcome.Verdict == event.VerdictInvalid {
			s.DriftError = watch.why()
			f := event.Failure{Phase: "plan", Reason: "DriftUnknown", Node: id.String(), Text: fmt.Sprintf("%s: the commit on record cannot be compared: %s", id, s.DriftError),
				Hint: "give --repo, and the variables that the run was given; --no-health and no --drift need no repository"}
			return []event.Failure{f}
		}
		watch.fill(s)
	}
	return nil
}

// planWatch keeps what a plan tells.
type planWatch struct {
	planned  *event.Planned
	failures []event.Failure
}

// Emit implements event.Sink.
func (w *planWatch) Emit(e event.Event) {
	switch e := e.(type) {
	case event.Planned:
		w.planned = &e
	case event.NodeFinished:
		w.failures = append(w.failures, e.Failures...)
	case event.RunFinished:
		w.failures = append(w.failures, e.Failures...)
	}
}

func (w *planWatch) why() string {
	if len(w.failures) == 0 {
		return "the plan did not come to its end"
	}
	text := w.failures[0].Text
	if more := len(w.failures) - 1; more > 0 {
		text += fmt.Sprintf(" (and %s)", count(more, "more problem", "more problems"))
	}
	return text
}

// fill counts the changes of a plan by Kustomization.
func (w *planWatch) fill(s *status.Root) {
	for i := range s.Kustomizations {
		k := &s.Kustomizations[i]
		var drifted []status.Drift
		for _, c := range w.planned.Changes {
			if c.Node != k.ID || c.Action == event.Skipped || c.Action == event.Kept {
				continue
			}
			d := status.Drift{Object: c.Object, Action: string(c.Action)}
			for _, f := range c.Fields {
				d.Fields = append(d.Fields, f.Path)
			}
			drifted = append(drifted, d)
		}
		n := len(drifted)
		k.Drift, k.Drifted = &n, drifted
	}
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
