package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/safe"
)

// readers is how many requests Check has in flight at once.
const readers = 8

// Kinds tells which kinds a server has; discovery clients do.
type Kinds interface {
	ServerPreferredNamespacedResources() ([]*metav1.APIResourceList, error)
}

// Findings are what Check saw in the cluster.
type Findings struct {
	// Doomed are the objects that exist and would be deleted, in the order of deletion.
	Doomed []Object
	// Kept are those that Delete would leave alone because of what the live object says (S5.8, S5.9), or that are being deleted
	// already; Gone those that do not exist.
	Kept []Kept
	Gone []Object
	// Refusals are sorted by Kustomization, then guard. Any of them is a reason not to begin.
	Refusals []*Refusal
}

// Object is an object of a Kustomization.
type Object struct {
	Node    flux.ID
	Cluster flux.ClusterRef
	Ref     flux.Ref
}

// Access gives what Check needs of a cluster, as Input.Where named it.
type Access func(flux.ClusterRef) (Client, Kinds, error)

// Check looks at the live objects of a plan and holds what would be deleted against the guards, for each cluster by itself. It only
// reads, with the permissions of the clients: get on the objects, list on what Namespaces and CustomResourceDefinitions hold if any
// is to be deleted. It is meant for before the first write, and once more before Delete if Kustomizations were built in between.
//
// The error joins all objects that could not be read, in the order of deletion within a cluster.
func Check(ctx context.Context, access Access, plan *Plan, g Guards) (*Findings, error) {
	all := &Findings{}
	var errs []error
	for _, cluster := range plan.clusters() {
		found, err := checkIn(ctx, access, plan.in(cluster), cluster, g)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all.Doomed = append(all.Doomed, found.Doomed...)
		all.Kept = append(all.Kept, found.Kept...)
		all.Gone = append(all.Gone, found.Gone...)
		all.Refusals = append(all.Refusals, found.Refusals...)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	position := map[Object]int{} // of a Kustomization's deletion in a cluster
	for i, d := range plan.Deletions {
		position[Object{Node: d.Node, Cluster: d.Cluster}] = i
	}
	sort.SliceStable(all.Doomed, func(i, j int) bool {
		a, b := all.Doomed[i], all.Doomed[j]
		return position[Object{Node: a.Node, Cluster: a.Cluster}] < position[Object{Node: b.Node, Cluster: b.Cluster}]
	})
	sort.SliceStable(all.Refusals, func(i, j int) bool {
		a, b := all.Refusals[i], all.Refusals[j]
		if a.Node != b.Node {
			return a.Node.String() < b.Node.String()
		}
		return a.Guard < b.Guard
	})
	return all, nil
}

// clusters are those of the deletions, the run's own first.
func (p *Plan) clusters() []flux.ClusterRef {
	var clusters []flux.ClusterRef
	for _, d := range p.Deletions {
		if !slices.Contains(clusters, d.Cluster) {
			clusters = append(clusters, d.Cluster)
		}
	}
	slices.SortFunc(clusters, compareClusters)
	return clusters
}

// in is the plan's share of one cluster, as far as Check looks at it.
func (p *Plan) in(cluster flux.ClusterRef) *Plan {
	share := &Plan{owned: map[inventory.Key][]flux.ID{}}
	for _, d := range p.Deletions {
		if d.Cluster == cluster {
			share.Deletions = append(share.Deletions, d)
		}
	}
	for key, owners := range p.owned {
		if key.Cluster == cluster {
			share.owned[key] = owners
		}
	}
	return share
}

// checkIn is Check for the share of one cluster.
func checkIn(ctx context.Context, access Access, plan *Plan, cluster flux.ClusterRef, g Guards) (*Findings, error) {
	c, kinds, err := access(cluster)
	if err != nil {
		return nil, err
	}
	k := &check{client: c, kinds: kinds, plan: plan, guards: g, findings: &Findings{}, gone: map[string]bool{}}
	if err := k.read(ctx); err != nil {
		return nil, err
	}
	k.amounts()
	if err := k.volumes(ctx); err != nil {
		return nil, err
	}
	if err := k.namespaces(ctx); err != nil {
		return nil, err
	}
	if err := k.definitions(ctx); err != nil {
		return nil, err
	}
	if !cluster.IsOwn() {
		for _, r := range k.findings.Refusals {
			r.Text += fmt.Sprintf(" (in the cluster of %s)", cluster)
		}
	}
	return k.findings, nil
}

// check is the work of checkIn in progress.
type check struct {
	client   Client
	kinds    Kinds
	plan     *Plan
	guards   Guards
	findings *Findings
	// live are the objects to be deleted, per deletion of the plan.
	live [][]victim
	// gone are the identities of all of them; ids their inventory ids.
	gone map[string]bool
	ids  map[string]bool
}

// victim is a live object that is to be deleted.
type victim struct {
	ref  flux.Ref
	meta *metav1.PartialObjectMetadata
}

// read looks at every object of the plan.
func (k *check) read(ctx context.Context) error {
	type answer struct {
		ref flux.Ref
		found
		twin string
		err  error
	}
	answers := make([][]answer, len(k.plan.Deletions))
	group := errgroup.Group{}
	group.SetLimit(readers)
	for i, d := range k.plan.Deletions {
		answers[i] = make([]answer, len(d.Entries))
		for j, e := range d.Entries {
			group.Go(func() (err error) {
				defer safe.Recover(&err)
				a := &answers[i][j]
				if a.err = context.Cause(ctx); a.err != nil {
					return nil
				}
				if a.ref, a.err = e.Ref(); a.err == nil {
					a.found, a.err = lookup(ctx, k.client, a.ref)
				}
				if a.err == nil && !a.gone {
					a.twin, a.err = twinOf(ctx, k.client, d, e, a.live)
				}
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var errs []error
	k.live = make([][]victim, len(answers))
	k.ids = map[string]bool{}
	for i, d := range k.plan.Deletions {
		for j, a := range answers[i] {
			if a.err != nil {
				errs = append(errs, fmt.Errorf("prune of Kustomization %q: %w", d.Node, a.err))
				continue
			}
			if a.gone {
				k.findings.Gone = append(k.findings.Gone, Object{Node: d.Node, Cluster: d.Cluster, Ref: a.ref})
				k.ids[d.Entries[j].ID] = true
				continue
			}
			why := cmp.Or(protected(a.live, d), a.twin)
			if why == "" && a.live.DeletionTimestamp != nil {
				// It goes, or hangs, whatever a guard says.
				k.ids[d.Entries[j].ID] = true
				why = going(a.live)
			}
			if why != "" {
				k.findings.Kept = append(k.findings.Kept, Kept{Node: d.Node, Entry: d.Entries[j], Reason: why})
				continue
			}
			k.findings.Doomed = append(k.findings.Doomed, Object{Node: d.Node, Cluster: d.Cluster, Ref: a.ref})
			k.live[i] = append(k.live[i], victim{ref: a.ref, meta: a.live})
			k.gone[identity(a.ref, a.live)] = true
			k.ids[d.Entries[j].ID] = true
		}
	}
	return errors.Join(errs...)
}

func (k *check) refuse(r Refusal) {
	slices.SortFunc(r.Objects, flux.CompareRefs)
	k.findings.Refusals = append(k.findings.Refusals, &r)
}

// amounts refuses builds that are empty and deletions that are too many.
func (k *check) amounts() {
	for i, d := range k.plan.Deletions {
		n := len(k.live[i])
		if n == 0 {
			continue
		}
		var refs []flux.Ref
		for _, v := range k.live[i] {
			refs = append(refs, v.ref)
		}
		slices.SortFunc(refs, flux.CompareRefs)
		if d.Empty {
			if !k.guards.AllowEmpty {
				k.refuse(Refusal{Guard: EmptyBuild, Node: d.Node, Objects: refs, Override: "--allow-empty",
					Text: fmt.Sprintf("the build of Kustomization %q is empty, which would delete %s: %s", d.Node, plural(n, "object"), someOf(refs))})
			}
			continue
		}
		if d.Tracked <= k.guards.MinObjects || n*100 <= k.guards.MaxPrunePercent*d.Tracked {
			continue
		}
		// Rounded up, so that the flag that the hint names is enough.
		percent := (n*100 + d.Tracked - 1) / d.Tracked
		what := fmt.Sprintf("Kustomization %q would lose", d.Node)
		if d.Left {
			what = fmt.Sprintf("Kustomization %q has left Git and would lose", d.Node)
		}
		k.refuse(Refusal{Guard: MaxPrune, Node: d.Node, Objects: refs, Override: fmt.Sprintf("--max-prune=%d", percent),
			Text: fmt.Sprintf("%s %d of its %d objects, more than the %d%% that --max-prune allows: %s",
				what, n, d.Tracked, k.guards.MaxPrunePercent, someOf(refs))})
	}
}

// volumes refuses to delete what holds data, by itself or with its Namespace.
func (k *check) volumes(ctx context.Context) error {
	for i, d := range k.plan.Deletions {
		for _, kind := range []string{"PersistentVolume", claimKind} {
			if k.guards.allows(kind) {
				continue
			}
			var refs []flux.Ref
			for _, v := range k.live[i] {
				if v.ref.Group == "" && v.ref.Kind == kind {
					refs = append(refs, v.ref)
				}
			}
			if len(refs) == 0 {
				continue
			}
			slices.SortFunc(refs, flux.CompareRefs)
			k.refuse(Refusal{Guard: Volume, Node: d.Node, Objects: refs, Override: "--allow-delete " + kind,
				Text: fmt.Sprintf("Kustomization %q would delete data: %s", d.Node, someOf(refs))})
		}
	}
	if k.guards.allows(claimKind) {
		return nil
	}
	return k.is(namespaceKind, "", func(d Deletion, v victim) error { return k.claimsIn(ctx, d, v) })
}

// ownedIn returns, sorted, the objects that Kustomizations of the run own and that match.
func (k *check) ownedIn(match func(flux.Ref) bool) []flux.Ref {
	var refs []flux.Ref
	for key := range k.plan.owned {
		ref, err := inventory.Entry{ID: key.ID}.Ref()
		if err == nil && match(ref) {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, flux.CompareRefs)
	return refs
}

func (k *check) is(kind, group string, visit func(d Deletion, v victim) error) error {
	for i, d := range k.plan.Deletions {
		for _, v := range k.live[i] {
			if v.ref.Kind == kind && v.ref.Group == group {
				if err := visit(d, v); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
