package run

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/source"
)

// What status and destroy have in common: they are about what is on record, not
// about a commit, and need no repository.

// reachOwn connects to the cluster that the records are in.
func (r *run) reachOwn(ctx context.Context) []event.Failure {
	c, err := r.connect(ctx)
	if err != nil {
		return []event.Failure{r.failure(ctx, "cluster", nil, err)}
	}
	own, err := c.Client("")
	if err != nil {
		return r.failuresOf(ctx, "cluster", nil, err)
	}
	store := inventory.NewClusterStore(own, r.options.StateNamespace)
	r.store, r.ensure = store, store.EnsureNamespace
	if r.surveyed, err = store.Survey(ctx); err != nil {
		return r.failuresOf(ctx, "record", nil, err)
	}
	return nil
}

// chosen are the roots that the options name: by id or name, by the entry folder
// they were last run from, by the repository; all if they name none.
func (r *run) chosen() ([]flux.ID, []event.Failure) {
	all := r.surveyed.Roots()
	var roots []flux.ID
	for _, id := range all {
		if r.isChosen(id) {
			roots = append(roots, id)
		}
	}
	if r.wanted() == "" || len(roots) > 0 {
		return roots, nil
	}
	f := event.Failure{Phase: "record", Reason: "RootNotFound",
		Text: fmt.Sprintf("no root of %s is on record in namespace %q", r.wanted(), r.options.StateNamespace),
		Hint: "nothing is on record there at all: check --context and --state-namespace"}
	if len(all) > 0 {
		f.Hint = "on record are: " + r.rootNames(all)
	}
	return nil, []event.Failure{f}
}

// wanted describes what the options ask for; empty if that is everything.
func (r *run) wanted() string {
	var parts []string
	if r.options.Root != "" {
		parts = append(parts, fmt.Sprintf("name %q", r.options.Root))
	}
	if r.options.Path != "" {
		parts = append(parts, fmt.Sprintf("--path %q", r.options.Path))
	}
	if url, ok := r.remoteURL(); ok {
		parts = append(parts, fmt.Sprintf("--repo %q", url))
	}
	return strings.Join(parts, " and ")
}

// remoteURL is the repository that the options name by a URL.
func (r *run) remoteURL() (string, bool) {
	if !r.options.RepoChosen {
		return "", false
	}
	url, err := source.NormalizeURL(r.options.Source.Repo)
	return url, err == nil
}

func (r *run) isChosen(id flux.ID) bool {
	if !r.isNamed(id) {
		return false
	}
	root := r.recordedRoot(id)
	if r.options.Path != "" && (root == nil || flux.CleanPath(root.Path) != flux.CleanPath(r.options.Path)) {
		return false
	}
	if url, ok := r.remoteURL(); ok && (root == nil || root.URL != url) {
		return false
	}
	return true
}

// obscure are the roots of which nothing tells whether they are what the options
// ask for by a path or URL, since their own records cannot be read.
func (r *run) obscure() []flux.ID {
	return slices.DeleteFunc(r.surveyed.Roots(), func(id flux.ID) bool {
		return !r.isNamed(id) || r.recordedRoot(id) != nil
	})
}

// isNamed says whether a root has the name that the options ask for, if they do.
func (r *run) isNamed(id flux.ID) bool {
	name := r.options.Root
	return name == "" || name == id.String() || name == id.Name
}

// recordedRoot is the record of a root, nil if there is none that can be read.
func (r *run) recordedRoot(id flux.ID) *inventory.Root {
	if state := r.surveyed.States[id]; state != nil {
		return state.Root
	}
	return nil
}

// recordsOf are the records of a root, sorted by id.
func (r *run) recordsOf(id flux.ID) []*inventory.Record {
	if state := r.surveyed.States[id]; state != nil {
		return state.Sorted()
	}
	return nil
}

// rootNames lists roots with their entry folders.
func (r *run) rootNames(ids []flux.ID) string {
	var names []string
	for _, id := range ids {
		name := id.String()
		if root := r.recordedRoot(id); root != nil && root.Path != "" {
			name += " (--path " + root.Path + ")"
		}
		names = append(names, name)
	}
	return list(names, 20)
}

// tellReached says which cluster it is, and of which root.
func (r *run) tellReached(root flux.ID, state *inventory.State) {
	reached := event.ClusterReached{At: now(), Context: r.cluster.Context, Server: r.cluster.Server, ServerVersion: r.cluster.ServerVersion, Root: root.String()}
	if state != nil && state.Root != nil {
		reached.Previous = state.Root.Finished.Revision
	}
	r.emit(reached)
}

// unreadable are failures for the records that cannot be read: of these roots, and
// those of which nobody knows whose they are.
func (r *run) unreadable(ctx context.Context, roots []flux.ID) []event.Failure {
	var failures []event.Failure
	for i := range r.surveyed.Unreadable {
		u := &r.surveyed.Unreadable[i]
		if u.Root.IsZero() || slices.Contains(roots, u.Root) {
			failures = append(failures, r.failuresOf(ctx, "record", nil, u.Err)...)
		}
	}
	return failures
}
