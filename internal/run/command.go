package run

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/discover"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
)

// Command says what is wanted, and so how far the pipeline goes.
type Command string

// The commands.
const (
	// CommandRun brings the commit into the cluster. It is also what the zero
	// value means.
	CommandRun Command = "run"
	// CommandPlan goes up to the first write: it only asks the server.
	CommandPlan Command = "plan"
	// CommandCheck judges the repository by itself.
	CommandCheck Command = "check"
	// CommandBuild is for what Kustomizations hold, CommandGraph for how they
	// depend on each other. What a run would refuse to apply is no fault for them.
	CommandBuild Command = "build"
	CommandGraph Command = "graph"
	// CommandStatus tells what is on record and how it is; with Options.Repair
	// it rebuilds records. CommandDestroy deletes all that a root has. Neither
	// is about a commit.
	CommandStatus  Command = "status"
	CommandDestroy Command = "destroy"
)

// writes says whether the command brings a commit into the cluster.
func (c Command) writes() bool { return c == "" || c == CommandRun }

// asks says whether the command is about a cluster.
func (c Command) asks() bool { return c.writes() || c == CommandPlan }

// shows says whether the command only shows what there is, and leaves it to
// others to judge whether it could be applied.
func (c Command) shows() bool { return c == CommandBuild || c == CommandGraph }

// success is the verdict of a command that came to its end without a fault.
func (o *Options) success() event.Verdict {
	switch c := o.Command; {
	case c.writes():
		return event.Live
	case c == CommandDestroy && !o.DryRun:
		return event.VerdictDestroyed
	case c == CommandPlan, c == CommandDestroy:
		return event.VerdictPlanned
	}
	return event.VerdictValid
}

// result is how a Kustomization ends that was not to be applied.
func (c Command) result() event.Result {
	if c == CommandPlan {
		return event.ResultPlanned
	}
	return event.ResultValid
}

// stages are those that the command goes through.
func (r *run) stages() []stage {
	switch r.options.Command {
	case CommandStatus:
		return r.statusStages()
	case CommandDestroy:
		return r.destroyStages()
	}
	stages := []stage{
		{r.open, event.VerdictInvalid},  // the repository at one commit, read-only
		{r.build, event.VerdictInvalid}, // discover ⇄ build ⇄ substitute: every Kustomization and its objects
		{r.check, event.VerdictInvalid}, // the graph: missing dependencies, cycles
	}
	switch c := r.options.Command; {
	case c == CommandBuild:
		stages = append(stages, stage{r.readable, event.VerdictInvalid}, stage{r.complete, event.VerdictInvalid})
	case c == CommandGraph:
		stages = append(stages, stage{r.readable, event.VerdictInvalid})
	case c == CommandCheck:
		stages = append(stages, stage{r.readable, event.VerdictInvalid}, stage{r.apart, event.VerdictInvalid})
	default:
		stages = append(stages,
			stage{r.reach, event.VerdictInvalid},  // the clusters: which ones, and can they be used
			stage{r.recall, event.VerdictRefused}, // the records: what is live, whose it is, is this commit older
			stage{r.plan, event.VerdictInvalid},   // a dry run of every change
			stage{r.guard, event.VerdictRefused},  // what would be deleted, and may it be
		)
	}
	if r.options.Command == CommandPlan {
		stages = append(stages, stage{r.keep, event.VerdictInvalid}) // the plan as a file
	}
	if r.options.Command.writes() {
		stages = append(stages,
			stage{r.approved, event.VerdictRefused}, // is this what was approved
			stage{r.lock, event.VerdictRefused},     // the first write: one run of a root at a time
			stage{r.deploy, event.VerdictFailed},    // the graph: apply → health → next gate
			stage{r.prune, event.VerdictFailed},     // what left Git, in reverse order
		)
	}
	return stages
}

// statusStages are those of status.
func (r *run) statusStages() []stage {
	stages := []stage{
		{r.reachOwn, event.VerdictInvalid}, // the cluster and all records
		{r.list, event.VerdictInvalid},     // what the records and the locks tell
	}
	if !r.options.NoHealth || r.options.Repair {
		stages = append(stages, stage{r.scan, event.VerdictInvalid}) // what carries owner labels
	}
	if r.options.Repair {
		stages = append(stages, stage{r.repair, event.VerdictRefused}) // records anew
	}
	if !r.options.NoHealth {
		stages = append(stages,
			stage{r.judgeHealth, event.VerdictInvalid}, // how the objects on record are
			stage{r.findOrphans, event.VerdictInvalid}, // what is in no record
		)
	}
	if r.options.Drift {
		stages = append(stages, stage{r.compare, event.VerdictInvalid}) // a plan of the commit on record
	}
	return append(stages, stage{r.tellUnreadable, event.VerdictInvalid})
}

// destroyStages are those of destroy.
func (r *run) destroyStages() []stage {
	stages := []stage{
		{r.reachOwn, event.VerdictInvalid}, // the cluster and all records
		{r.target, event.VerdictInvalid},   // the root
		{r.condemn, event.VerdictRefused},  // what goes, in which order, and may it
	}
	if r.options.DryRun {
		return stages
	}
	return append(stages,
		stage{r.approve, event.VerdictRefused},    // the user
		stage{r.lockDoomed, event.VerdictRefused}, // the first write: one run of a root at a time
		stage{r.mark, event.VerdictFailed},        // the records say that it is being destroyed
		stage{r.demolish, event.VerdictFailed},    // delete → wait → next
	)
}

// apart reports objects that two Kustomizations hold; a plan looks for them too.
func (r *run) apart(context.Context) []event.Failure { return r.shared() }

// readable reports a cluster that was to be read for variables and sources and
// could not be.
func (r *run) readable(ctx context.Context) []event.Failure {
	if r.connectErr == nil || r.options.Offline {
		return nil
	}
	return append(r.reach(ctx), r.unserved(r.toolkit)...)
}

// Built is a Kustomization with the objects of its build.
type Built struct {
	ID flux.ID
	// Objects are rendered, substituted and labelled, in the order of the
	// build; not normalised (S12.7). They may hold secret values.
	Objects []flux.Object
}

// complete refuses to show a part for the whole.
func (r *run) complete(context.Context) []event.Failure {
	var failures []event.Failure
	for _, n := range r.sorted() {
		if n.deferred != "" && !n.excluded {
			failures = append(failures, event.Failure{Phase: "build", Reason: "BuiltLater", Node: n.ID.String(), File: n.File, Line: n.Line,
				Text: fmt.Sprintf("%s can only be built when its turn comes: it %s", n.ID, n.deferred),
				Hint: "give its variables with --var and leave the cluster out, or leave variables as they are with --keep-open"})
		}
	}
	return failures
}

// output keeps what build shows of a node: all of its objects, or those that a
// run would apply.
func (r *run) output(ctx context.Context, n *node, all []flux.Object, found discover.Found) []event.Failure {
	if r.options.AppliedOnly {
		all = slices.Concat(found.Objects, found.Toolkit)
	}
	labelled, err := build.Label(n.Kustomization, all)
	if err != nil {
		return r.failuresOf(ctx, "build", n, err)
	}
	n.objects, n.built = labelled, true
	r.index(n, labelled)
	r.learnSecrets(labelled)
	return nil
}

// outputs are the builds that were asked for, in the order of a run.
func (r *run) outputs() []Built {
	var built []Built
	for _, n := range r.inOrder() {
		if n.built && !n.excluded {
			built = append(built, Built{ID: n.ID, Objects: n.objects})
		}
	}
	return built
}

// split is discover.Split, except that what cannot be read because of open
// variables is no fault.
func (r *run) split(n *node, objects []flux.Object) (discover.Found, error) {
	if n.remote() {
		return discover.SplitRemote(n.ID, objects), nil
	}
	found, err := discover.Split(n.ID, n.tree, objects)
	if err == nil || !r.options.KeepOpen {
		return found, err
	}
	var firm []flux.Object
	for _, o := range objects {
		if len(o.Open) > 0 && o.GroupVersionKind().Group != "" {
			if _, err := discover.Split(n.ID, n.tree, []flux.Object{o}); err != nil {
				r.notice(event.Notice{Level: event.Warning, Code: "open-unread", Node: n.ID.String(), Object: o.Ref().String(), File: o.File,
					Text: fmt.Sprintf("%s is left out: it cannot be read while variables in it are open: %s", o.Ref(), list(o.Open, 10)),
					Hint: "give their values with --var or --vars-file, or name the cluster with --context"})
				continue
			}
		}
		firm = append(firm, o)
	}
	return discover.Split(n.ID, n.tree, firm)
}

// openSpec says why a Kustomization cannot be built whose manifest holds open
// variables: what it is built from is not known. It is empty if they are only in
// its own variables.
func openSpec(k *flux.Kustomization) string {
	if len(k.Open) == 0 {
		return ""
	}
	decisive := []string{k.Spec.Path, k.Spec.SourceRef.Name, k.Spec.SourceRef.Namespace, k.Name, k.Namespace}
	decisive = append(decisive, k.Spec.Components...)
	for _, value := range decisive {
		for _, name := range k.Open {
			if strings.Contains(value, "${"+name) {
				return fmt.Sprintf("has open variables in its path, source, name or components: %s", list(k.Open, 10))
			}
		}
	}
	return ""
}

// hasChanges says whether a run would change something, as far as can be told.
func (r *run) hasChanges() bool {
	return r.anyDeferred() || slices.ContainsFunc(r.sorted(), func(n *node) bool { return n.willChange() }) || r.doomed() > 0
}
