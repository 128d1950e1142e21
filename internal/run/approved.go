package run

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/plan"
	"github.com/sluicerun/sluice/internal/planfile"
)

// A plan can be saved, looked at, and carried out by a later run: that one makes
// its own plan, and begins only if it is the same.

// keep is the last stage of a plan that is to be saved.
func (r *run) keep(ctx context.Context) []event.Failure {
	if !r.options.SavePlan {
		return nil
	}
	drafted, err := r.draft(ctx, planfile.Salt())
	if err != nil {
		return r.failuresOf(ctx, "plan", nil, err)
	}
	r.saved = drafted
	return nil
}

// approved refuses a run that would do anything else than the plan that it is to
// carry out.
func (r *run) approved(ctx context.Context) []event.Failure {
	approved := r.options.Approved
	if approved == nil {
		return nil
	}
	drafted, err := r.draft(ctx, approved.Salt)
	if err != nil {
		return r.failuresOf(ctx, "plan", nil, err)
	}
	var failures []event.Failure
	for _, d := range planfile.Compare(approved, drafted) {
		f := event.Failure{Phase: "guard", Reason: "StalePlan", Node: d.Kustomization, Object: d.Object, Text: "the plan is stale: " + d.Text,
			Hint: "make a new plan, have it approved, and run that (docs/approval.md)"}
		if id, err := flux.ParseID(d.Kustomization); err == nil {
			if n := r.nodes.get(id); n != nil {
				f.File, f.Line = n.File, n.Line
			}
		}
		failures = append(failures, f)
	}
	return failures
}

// draft is what the run would do, as a file.
func (r *run) draft(ctx context.Context, salt string) (*planfile.File, error) {
	identity, err := r.cluster.Identity(ctx)
	if err != nil {
		return nil, err
	}
	key := planfile.NewKey(salt, identity)
	f := &planfile.File{
		Format: planfile.Format, Version: planfile.Version, Sluice: r.options.Version, Created: time.Now().UTC().Truncate(time.Second), Salt: salt,
		Cluster: key.Digest("cluster", identity), Context: r.cluster.Context, Root: r.root.String(), Path: r.path,
		Repository: r.commit.URL, Commit: r.commit.Hash, Revision: r.commit.Revision, Options: r.options.decisive(),
	}
	if root := r.state.Root; root != nil {
		f.Live, f.Healthy = root.Started.Commit, root.Finished.Commit
	}
	for name, value := range r.options.Vars {
		if f.Variables == nil {
			f.Variables = map[string]string{}
		}
		f.Variables[name] = key.Digest("variable", name, value)
	}
	for _, n := range r.inOrder() {
		k, err := r.draftOf(ctx, n, key)
		if err != nil {
			return nil, err
		}
		f.Kustomizations = append(f.Kustomizations, k)
	}
	for _, o := range r.findings.Doomed {
		f.Prune = append(f.Prune, planfile.Object{Kustomization: o.Node.String(), Object: o.Ref.String(), APIVersion: o.Ref.GVK().GroupVersion().String(),
			Cluster: o.Cluster.String(), Action: string(event.Delete)})
	}
	for _, kept := range r.findings.Kept {
		c := entryChange(kept.Node, kept.Entry, event.Kept, kept.Reason)
		f.Prune = append(f.Prune, planfile.Object{Kustomization: c.Node, Object: c.Object, APIVersion: c.APIVersion,
			Cluster: kept.Entry.Cluster.String(), Action: string(c.Action), Reason: c.Reason})
	}
	return f, nil
}

// draftOf is a node's part of a draft.
func (r *run) draftOf(ctx context.Context, n *node, key planfile.Key) (planfile.Kustomization, error) {
	spec, err := json.Marshal(n.Spec)
	if err != nil {
		return planfile.Kustomization{}, fmt.Errorf("%s: %w", n.ID, err)
	}
	state := planfile.Apply
	switch {
	case n.excluded:
		state = planfile.Excluded
	case n.Spec.Suspend:
		state = planfile.Suspended
	case n.deferred != "":
		state = planfile.Later
	}
	k := planfile.Kustomization{ID: n.ID.String(), State: state, Reason: n.deferred, Revision: n.revision, Spec: key.Digest("spec", string(spec))}
	if state != planfile.Apply {
		return k, nil
	}
	if sum, ok := n.digest(); ok {
		k.Built = key.Digest("built", sum)
	}
	if n.remote() {
		to, err := r.homeOf(n)
		if err != nil {
			return k, err
		}
		identity, err := to.Identity(ctx)
		if err != nil {
			return k, err
		}
		k.Cluster = key.Digest("cluster", identity)
	}
	if n.plan == nil {
		return k, nil // it holds no objects
	}
	for _, c := range n.plan.Of(n.ID) {
		if c.Action == plan.Unchanged {
			k.Unchanged++
			continue
		}
		o := planfile.Object{Object: c.Ref.String(), APIVersion: c.Object.GetAPIVersion(), Action: string(c.Action), Reason: why(c), Fields: c.Paths}
		if c.Live != nil {
			o.ResourceVersion = c.Live.GetResourceVersion()
		}
		if len(c.Fields) > 0 {
			values, err := json.Marshal(c.Fields)
			if err != nil {
				return k, fmt.Errorf("%s: %s: %w", n.ID, c.Ref, err)
			}
			o.Values = key.Digest("values", string(values))
		}
		k.Changes = append(k.Changes, o)
	}
	return k, nil
}

// decisive are the flags that decide on what a run does, by name: those that
// only decide on how long it takes, on what is told, or on where something is
// read from that is compared itself, are left out. Those at nothing are too.
func (o *Options) decisive() map[string]string {
	var sources, kinds []string
	for name := range o.Sources {
		sources = append(sources, name) // from where does not matter, and may be a secret
	}
	for kind := range o.CustomStageKinds {
		kinds = append(kinds, kind.String())
	}
	all := map[string]string{
		"additive-cel-dependency-check":      strconv.FormatBool(o.AdditiveCELDependencyCheck),
		"allow-delete":                       inAnyOrder(o.AllowDelete),
		"allow-empty":                        strconv.FormatBool(o.AllowEmpty),
		"allow-rollback":                     strconv.FormatBool(o.AllowRollback),
		"as":                                 o.Cluster.As,
		"custom-apply-stage-kinds":           inAnyOrder(kinds),
		"default-kubeconfig-service-account": o.DefaultKubeConfigServiceAccount,
		"default-service-account":            o.DefaultServiceAccount,
		"insecure-kubeconfig-exec":           strconv.FormatBool(o.InsecureKubeConfigExec),
		"insecure-kubeconfig-tls":            strconv.FormatBool(o.InsecureKubeConfigTLS),
		"max-prune":                          strconv.Itoa(o.MaxPrune),
		"migrate-api-version":                strconv.FormatBool(o.MigrateAPIVersion),
		"no-cross-namespace-refs":            strconv.FormatBool(o.NoCrossNamespaceRefs),
		"no-remote-bases":                    strconv.FormatBool(o.NoRemoteBases),
		"only":                               inAnyOrder(o.Only),
		"override-manager":                   inAnyOrder(o.OverrideManagers),
		"skip":                               inAnyOrder(o.Skip),
		"source":                             inAnyOrder(sources),
		"state-namespace":                    o.StateNamespace,
		"strict-substitution":                strconv.FormatBool(o.Strict),
		"substitute-precedence":              string(o.Precedence),
		"wait":                               string(o.Wait),
	}
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	return all
}

// inAnyOrder is a list whose order does not matter.
func inAnyOrder(list []string) string { return strings.Join(slices.Sorted(slices.Values(list)), ", ") }
