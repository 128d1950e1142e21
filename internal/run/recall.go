package run

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/lock"
	"github.com/sluicerun/sluice/internal/source"
	"github.com/sluicerun/sluice/internal/substitute"
)

// remembered is what the cluster remembers of this root.
type remembered struct {
	store inventory.Store
	state *inventory.State
	facts *inventory.Facts
	held  atomic.Pointer[lock.Lock]
	// abandoned is set for good before the lock is freed though a stage still runs.
	abandoned atomic.Bool
	// busyRoot is set if another run of the root may have been at work when
	// state was read.
	busyRoot bool
	// left are records of Kustomizations that left Git before sluice's first
	// run, to be stored before anything is written.
	left []*inventory.Record
	// renames are roots whose place this one takes, with their records;
	// distinct says of others, in parentheses, why it does not.
	renames  []*inventory.State
	distinct map[flux.ID]string
	// ensure makes the state namespace.
	ensure func(context.Context) error
}

// reach connects to the cluster, and to those of spec.kubeConfig.
func (r *run) reach(ctx context.Context) []event.Failure {
	if _, err := r.connect(ctx); err != nil {
		return []event.Failure{r.failure(ctx, "cluster", nil, err)}
	}
	return r.reachHomes(ctx)
}

// unserved refuses objects of Flux's APIs that the cluster they go to does not
// know: nothing here could stand in for their controllers.
func (r *run) unserved(toolkit []toolkitObject) []event.Failure {
	var failures []event.Failure
	for _, t := range toolkit {
		n := r.nodes.get(t.node)
		to := r.homes.at(n.Cluster())
		if to == nil {
			continue // left out of the run, or told already
		}
		gvk := t.object.GroupVersionKind()
		if r.defines(to.place, gvk.GroupKind()) {
			continue // the plan knows that it comes
		}
		if _, err := to.Mapper().RESTMapping(gvk.GroupKind(), gvk.Version); err != nil {
			where := "the cluster"
			if n.remote() {
				where += " of " + n.Cluster().String()
			}
			failures = append(failures, event.Failure{Phase: "cluster", Reason: "KindNotServed", Node: t.node.String(),
				Object: t.object.Ref().String(), File: t.object.File,
				Text: fmt.Sprintf("%s: %s does not serve %s of %s, which one of Flux's controllers would run", t.object.Ref(), where, gvk.Kind, gvk.GroupVersion()),
				Hint: "install that controller and its definitions, or leave the object out of what sluice runs"})
		}
	}
	return failures
}

// defines says whether this run applies the definition of a kind to a cluster.
func (r *run) defines(place flux.ClusterRef, kind schema.GroupKind) bool {
	for _, n := range r.sorted() {
		if at, ok := r.placeOf(n); !ok || at != place {
			continue
		}
		for _, o := range n.objects {
			if o.GetKind() != "CustomResourceDefinition" {
				continue
			}
			group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
			name, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
			if group == kind.Group && name == kind.Kind {
				return true
			}
		}
	}
	return false
}

var clusterReasons = map[cluster.Problem]string{
	cluster.NoKubeconfig: "NoKubeconfig", cluster.BadKubeconfig: "BadKubeconfig", cluster.NoContext: "NoContext",
	cluster.Unreachable: "Unreachable", cluster.Unauthorized: "Unauthorized", cluster.Forbidden: "Forbidden",
	cluster.NotKubernetes: "NotKubernetes",
}

// recall reads what is recorded of this root and refuses what must not happen:
// a Kustomization of another root, another entry folder, a live controller, an
// older commit.
func (r *run) recall(ctx context.Context) []event.Failure {
	c, err := r.cluster.Client("")
	if err != nil {
		return r.failuresOf(ctx, "cluster", nil, err)
	}
	store := inventory.NewClusterStore(c, r.options.StateNamespace)
	r.store, r.ensure = store, store.EnsureNamespace
	r.left = nil
	if r.state, err = store.Load(ctx, r.root); err != nil {
		return r.failuresOf(ctx, "record", nil, err)
	}
	r.busyRoot = r.options.Command.writes() && r.contended(ctx, r.state)
	var nodes []*node
	for _, n := range r.sorted() {
		if !n.excluded { // what this run leaves out may be run by anybody
			nodes = append(nodes, n)
		}
	}
	if err := r.renamed(ctx, nodes); err != nil {
		return r.failuresOf(ctx, "record", nil, err)
	}
	failures := r.claims(ctx, nodes)
	if err := r.state.CheckOrigin(r.path); err != nil {
		f := r.failure(ctx, "guard", nil, err)
		f.Reason = "OtherEntryFolder"
		f.Text += r.distinct[r.root]
		failures = append(failures, f)
	}
	if failures = r.postponed(failures); len(failures) > 0 {
		return failures
	}
	for _, n := range r.sorted() {
		r.recordOf(n)
	}
	r.reachRecorded(ctx, r.records())
	failures = append(failures, r.unready(ctx)...)
	return r.postponed(append(failures, r.history(ctx)...))
}

// claims refuses Kustomizations that somebody else runs: another root, or a
// controller in the cluster. It also reads what Flux has recorded of them.
func (r *run) claims(ctx context.Context, nodes []*node) []event.Failure {
	var question inventory.Question
	for _, n := range nodes {
		question.Run = append(question.Run, n.ID)
		if r.state.Records[n.ID] == nil && !n.Spec.Suspend {
			question.First = append(question.First, n.ID)
		}
	}
	for _, n := range r.sorted() {
		question.Commit = append(question.Commit, n.ID)
	}
	var failures []event.Failure
	for _, owned := range r.state.Owned(question.Run) {
		f := r.failure(ctx, "guard", r.nodes.get(owned.ID), owned)
		f.Reason = "OwnedByOtherRoot"
		f.Text += r.distinct[owned.Root]
		failures = append(failures, f)
	}
	c, err := r.cluster.Client("")
	if err != nil {
		return append(failures, r.failuresOf(ctx, "cluster", nil, err)...)
	}
	if r.facts, err = inventory.Adopt(ctx, c, question); err != nil {
		return append(failures, r.failuresOf(ctx, "record", nil, err)...)
	}
	if err := r.facts.Reconciling(); err != nil {
		f := r.failure(ctx, "guard", nil, err)
		f.Reason = "LiveController"
		failures = append(failures, f)
	}
	if len(failures) == 0 {
		r.adoptLeft()
	}
	return failures
}

// adoptLeft takes over Kustomizations that left Git before sluice's first run:
// what Flux would have pruned is pruned as if sluice had applied it (S5.22). One
// that only turns up when the graph runs is among them too; its node then takes
// the record, which is the one that it would have got.
func (r *run) adoptLeft() {
	for _, record := range r.facts.AdoptLeft(r.root) {
		if _, foreign := r.state.Foreign[record.ID]; foreign || r.state.Records[record.ID] != nil {
			continue
		}
		r.state.Records[record.ID] = record
		r.left = append(r.left, record)
		if !r.anyDeferred() {
			r.notice(event.Notice{Level: event.Info, Code: "adopted", Node: record.ID.String(),
				Text: fmt.Sprintf("%s is no longer in Git: took over %s that Flux had applied", record.ID, count(len(record.Entries), "object", "objects"))})
		}
	}
	for _, id := range r.facts.Pinned {
		if r.nodes.get(id) == nil && !r.anyDeferred() {
			r.notice(event.Notice{Level: event.Warning, Code: "adopted", Node: id.String(),
				Text: fmt.Sprintf("%s is no longer in Git, and is marked to stay: what Flux had applied of it is left as it is, and nobody runs it now", id)})
		}
	}
}

// saveLeft stores what adoptLeft took over, before the record of the one that held
// it: without a record, that one would be asked for it again.
func (r *run) saveLeft(ctx context.Context) []event.Failure {
	if len(r.left) > 0 {
		if failures := r.begin(ctx); len(failures) > 0 {
			return failures
		}
	}
	for ; len(r.left) > 0; r.left = r.left[1:] {
		if err := r.saveRecord(ctx, r.left[0], time.Now().UTC()); err != nil {
			return r.failuresOf(ctx, "record", nil, err)
		}
	}
	return nil
}

// recallNode is recall for a node that was found while the graph ran.
func (r *run) recallNode(ctx context.Context, n *node) []event.Failure {
	failures := r.claims(ctx, []*node{n})
	if len(failures) == 0 {
		failures = r.saveLeft(ctx)
	}
	if len(failures) == 0 {
		r.recordOf(n)
	}
	return failures
}

// records returns what is on record of the root, as this run has it by now.
func (r *run) records() []*inventory.Record {
	records := r.state.Sorted()
	for _, n := range r.sorted() {
		if n.record != nil && !slices.Contains(records, n.record) {
			records = slices.DeleteFunc(records, func(old *inventory.Record) bool { return old.ID == n.ID })
			records = append(records, n.record)
		}
	}
	return records
}

// recordOf gives a node its record: the stored one, or a new one that takes
// over what Flux had recorded (S16.5).
func (r *run) recordOf(n *node) {
	record := r.state.Records[n.ID]
	if record == nil {
		record = inventory.NewRecord(r.root, n.Kustomization)
		if r.facts.Adopt(record) {
			r.notice(event.Notice{Level: event.Info, Code: "adopted", Node: n.ID.String(),
				Text: fmt.Sprintf("%s: took over %s that Flux had applied", n.ID, count(len(record.Entries), "object", "objects"))})
		}
	}
	n.record = record
	n.live.Remember(record)
}

// unready checks what --only and --skip leave out but others depend on: it must
// be ready already.
func (r *run) unready(ctx context.Context) []event.Failure {
	var failures []event.Failure
	for _, n := range r.sorted() {
		if n.excluded {
			continue
		}
		for i, dep := range n.Dependencies() {
			other := r.nodes.get(dep)
			if other == nil || !other.excluded || n.Spec.DependsOn[i].ReadyExpr != "" && !r.options.AdditiveCELDependencyCheck {
				continue
			}
			if other.record.Stored() && other.record.Result == inventory.Ready {
				r.tellBehind(n, other)
				continue
			}
			failures = append(failures, event.Failure{Phase: "guard", Reason: "DependencyNotReady", Node: n.ID.String(), File: n.File, Line: n.Line,
				Text: fmt.Sprintf("%s depends on %s, which --only or --skip leave out and which is not ready in the cluster", n.ID, dep),
				Hint: fmt.Sprintf("run %s first, or take it in with --only %s", dep, dep)})
		}
		for _, e := range n.gates {
			other := r.nodes.get(e.Dep)
			if other == nil || !other.excluded {
				continue
			}
			if shut := r.ask(ctx, n, other, e); shut != nil {
				f := r.shutFailure(n, shut)
				f.Phase = "guard"
				f.Hint = fmt.Sprintf("--only or --skip leave %s out, so that it will not change: run it first, or take it in with --only %s", e.Dep, e.Dep)
				failures = append(failures, f)
			}
		}
	}
	return failures
}

// tellBehind warns of a dependency that is left out and that another commit was
// applied of. Flux would wait until it has this one, if both have the same
// source (S7.5); who leaves it out means not to. If it was built to the same
// objects there is nothing to wait for.
func (r *run) tellBehind(n, dep *node) {
	if n.Source() != dep.Source() || dep.record.Revision == dep.revision {
		return
	}
	if digest, ok := dep.digest(); ok && digest == dep.record.Digest {
		return
	}
	r.notice(event.Notice{Level: event.Warning, Code: "dependency-behind", Node: n.ID.String(), File: n.File, Line: n.Line,
		Text: fmt.Sprintf("%s depends on %s, which is left out and differs at this commit; in the cluster it is at %s", n.ID, dep.ID, dep.record.Revision),
		Hint: fmt.Sprintf("if %s needs that change, take %s in with --only %s", n.ID, dep.ID, dep.ID)})
}

// history compares the commit with what is live, for the report, and with what
// was applied last, finished or not: a strict ancestor of that is refused,
// since a job that was restarted late must not undo a newer one. Ancestry
// decides, not time.
func (r *run) history(ctx context.Context) []event.Failure {
	reached := event.ClusterReached{At: now(), Context: r.cluster.Context, Server: r.cluster.Server, ServerVersion: r.cluster.ServerVersion, Root: r.root.String()}
	defer func() { r.emit(reached) }()
	root := r.state.Root
	if root == nil {
		return nil
	}
	reached.Previous = root.Finished.Revision
	relation, err := r.ancestry(ctx, root.Finished.Commit)
	if err != nil {
		return r.failuresOf(ctx, "source", nil, err)
	}
	reached.Relation, reached.Ahead, reached.Behind = relations[relation.Kind], relation.Ahead, relation.Behind
	if root.Started.Commit != root.Finished.Commit {
		if relation, err = r.ancestry(ctx, root.Started.Commit); err != nil {
			return r.failuresOf(ctx, "source", nil, err)
		}
	}
	return r.forward(relation)
}

// ancestry is how an earlier commit stands to this one; the zero value for none.
func (r *run) ancestry(ctx context.Context, earlier string) (source.Relation, error) {
	if earlier == "" {
		return source.Relation{}, nil
	}
	return r.commit.Ancestry(ctx, earlier)
}

// forward refuses to go back, and tells where the history does not answer.
func (r *run) forward(last source.Relation) []event.Failure {
	root := r.state.Root
	earlier := fmt.Sprintf("%s, which %s", short(root.Started.Commit), standing(root))
	moved := root.URL != "" && r.commit.URL != "" && root.URL != r.commit.URL
	if moved {
		r.notice(event.Notice{Level: event.Warning, Code: "repository-changed",
			Text: fmt.Sprintf("root %s was applied from %s before, and is from %s now", root.ID, root.URL, r.commit.URL),
			Hint: "make sure that it is meant: what only the other repository has is pruned"})
	}
	switch last.Kind {
	case source.Descendant:
		text := fmt.Sprintf("commit %s is older than %s", short(r.commit.Hash), earlier)
		if last.Behind > 0 {
			least := ""
			if !last.Exact {
				least = "at least "
			}
			text += fmt.Sprintf(" (%s%s behind)", least, count(last.Behind, "commit", "commits"))
		}
		if r.options.AllowRollback {
			r.notice(event.Notice{Level: event.Warning, Code: "rollback", Text: text + ": going back as --allow-rollback says"})
			return nil
		}
		return []event.Failure{{Phase: "guard", Reason: "OlderCommit", Text: text, Hint: "run the newest commit, or go back on purpose with --allow-rollback"}}
	case source.Diverged:
		r.notice(event.Notice{Level: event.Warning, Code: "diverged",
			Text: fmt.Sprintf("commit %s does not contain %s: %s left behind", short(r.commit.Hash), earlier, count(last.Behind, "commit is", "commits are"))})
	case source.Unknown:
		n := event.Notice{Level: event.Warning, Code: "ancestry-unknown",
			Text: fmt.Sprintf("cannot tell whether commit %s is older than %s: %s", short(r.commit.Hash), earlier, last.Reason),
			Hint: "check out with more history (GitHub: fetch-depth: 0; GitLab: GIT_DEPTH: 0)"}
		if last.Gone {
			why := "whose history was rewritten"
			if moved {
				why = "another repository than it was applied from"
			}
			n.Text += ", " + why
			n.Hint = "make sure that this commit is the newest; the runs to come are compared with it"
		}
		r.notice(n)
	}
	return nil
}

var relations = map[source.RelationKind]string{
	source.Same: "same", source.Ancestor: "ahead", source.Descendant: "behind", source.Diverged: "diverged", source.Unknown: "unknown",
}

// standing says what the last commit that was run is: live, if it ended well.
func standing(root *inventory.Root) string {
	if root.Started.Result == inventory.Applying {
		return "a run is applying, or was when it was cut off"
	}
	if root.Started.Commit == root.Finished.Commit {
		return "is live"
	}
	return "was applied last, without becoming healthy"
}

// short is a commit as people write it.
func short(hash string) string { return hash[:min(len(hash), 7)] }

// connect reaches the cluster at its first call; all later ones get the same.
func (r *run) connect(ctx context.Context) (*cluster.Cluster, error) {
	if r.options.Offline {
		r.connectErr = substitute.ErrUnreachable
	} else if !r.connected {
		r.connected = true
		o := r.options.Cluster
		o.Busy, o.MayWrite, o.Done = r.busy("the API server"), r.mayWrite, r.atEnd
		r.cluster, r.connectErr = cluster.Connect(ctx, o)
		if r.connectErr == nil {
			r.homes.set(flux.ClusterRef{}, &home{Cluster: r.cluster})
		}
	}
	return r.cluster, r.connectErr
}

// busy tells, once for each server, that it asked to be spared.
func (r *run) busy(server string) func(time.Duration) {
	return func(pause time.Duration) {
		r.noticeOnce("server-busy\x00"+server, event.Notice{Level: event.Warning, Code: "server-busy",
			Text: fmt.Sprintf("%s is busy (429) and asked for a pause of %s: all requests wait, and fewer are sent at once from then on", server, pause),
			Hint: "if that is often so, the server or its flow control is too small for what its users do together"})
	}
}

// reached is what is known of the run's own cluster.
type reached struct {
	connected  bool
	cluster    *cluster.Cluster
	connectErr error
}
