package run

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/discover"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/gate"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/plan"
	"github.com/sluicerun/sluice/internal/safe"
	"github.com/sluicerun/sluice/internal/source"
	"github.com/sluicerun/sluice/internal/substitute"
)

// grown is what grow found.
type grown struct {
	nodes nodeSet
	root  flux.ID
	// rootWritten is set if the repository holds the root's manifest, and
	// ownSource is then its source: bootstrap made it for this repository.
	rootWritten bool
	ownSource   flux.Source
	sources     map[flux.Source]discover.Source
	served      map[string]*source.Commit // by what --source names
	provided    map[variableKey]provided
	liveVars    map[variableKey]liveVariables
	toolkit     []toolkitObject
	// liveSources are those that were looked up in the cluster, found or not.
	liveSources map[flux.Source]sourceSpec
	// blamed are sources that were found unusable: told once, however many
	// Kustomizations use them.
	blamed map[flux.Source]bool
	// full is set when there were more Kustomizations than a run has.
	full bool
}

// toolkitObject is an object of another of Flux's APIs, such as a HelmRelease:
// the cluster must serve its kind.
type toolkitObject struct {
	node   flux.ID
	object flux.Object
}

func (g *grown) init() {
	g.sources = map[flux.Source]discover.Source{}
	g.served = map[string]*source.Commit{}
	g.liveSources = map[flux.Source]sourceSpec{}
	g.blamed = map[flux.Source]bool{}
	g.provided = map[variableKey]provided{}
	g.liveVars = map[variableKey]liveVariables{}
}

// grow finds and builds every Kustomization: the root first, then what its
// built output holds, to any depth (S16.1). Failures are collected, so that a
// user sees all of them at once; the nodes they belong to stay in the run as
// broken ones, so that what depends on them is still checked.
func (r *run) grow(ctx context.Context) []event.Failure {
	root, failures := r.plant(ctx)
	if root == nil {
		return failures
	}
	pending := []*node{root}
	for len(pending) > 0 {
		if ctx.Err() != nil {
			return append(failures, interrupted(ctx))
		}
		if r.full {
			break // what else there is may be without end
		}
		at, how := r.choose(ctx, pending)
		n := pending[at]
		pending = slices.Delete(pending, at, at+1)
		children, faults := r.fill(ctx, n, how)
		failures = append(failures, faults...)
		pending = append(pending, children...)
	}
	if len(r.sorted()) == 1 && len(failures) == 0 && !r.rootWritten && !r.options.AllowEmpty {
		return []event.Failure{r.noKustomization()}
	}
	failures = append(failures, r.definedSince(ctx)...)
	return append(failures, r.unmatched()...)
}

// definedSince looks again at sources that were taken for this repository, or
// read from the cluster, since nothing in the run had defined them yet, and that
// the build of another node then defined: that may be another repository, and
// its spec.ignore may leave out what was built.
func (r *run) definedSince(ctx context.Context) []event.Failure {
	var failures []event.Failure
	for _, n := range r.sorted() {
		ref := n.Source()
		_, defined := r.sources[ref]
		root := n.ID == r.root
		if !defined || n.tree == nil || root && !r.rootWritten || n.excluded || n.Spec.Suspend || r.blamed[ref] {
			continue
		}
		look := r.source
		if root {
			look = r.ownTree
		}
		tree, _, fail := look(ctx, n)
		if fail == nil && tree != n.tree {
			fail = &event.Failure{Phase: "source", Reason: "SourceIgnore", Node: n.ID.String(), File: n.File, Line: n.Line,
				Text: fmt.Sprintf("%s: the spec.ignore of source %s was not known yet when %s was built", n.ID, ref, n.ID),
				Hint: "declare the source in the entry folder, with its spec.ignore written as it is to be: neither by variables nor by a patch of the Kustomization"}
		}
		if fail != nil {
			failures = append(failures, *fail)
			r.blamed[ref] = true
		}
	}
	return failures
}

// readSpec checks what of a spec only takes effect later: a run must not find
// out then.
func (r *run) readSpec(ctx context.Context, n *node) []event.Failure {
	if r.options.Command.shows() {
		return nil
	}
	failures := unsupported(n.Kustomization)
	expressions, err := health.ParseExpressions(n.Kustomization)
	n.expressions = expressions
	for _, f := range r.failuresOf(ctx, "health", n, err) {
		f.Reason = "InvalidCELExpression" // Flux's own word for it (S0.4)
		failures = append(failures, f)
	}
	n.gates, err = gate.Parse(n.Kustomization)
	if len(n.gates) > 0 {
		r.gated.Store(true)
	}
	for _, f := range r.failuresOf(ctx, "graph", n, err) {
		f.Reason = "InvalidCELExpression"
		f.Hint = "an expression must be true or false for sure, as a comparison is: a field alone may be anything (docs/dependencies.md)"
		failures = append(failures, f)
	}
	return failures
}

// unsupported refuses what a spec asks for and sluice does not do: a field that
// has no effect would be worse than an error.
func unsupported(k *flux.Kustomization) []event.Failure {
	var failures []event.Failure
	refuse := func(field, hint string) {
		failures = append(failures, event.Failure{Phase: "discover", Reason: "UnsupportedField", Node: k.ID.String(), File: k.File, Line: k.Line,
			Text: fmt.Sprintf("%s: %s is not supported yet", k.ID, field), Hint: hint})
	}
	if k.Spec.Decryption != nil {
		refuse("spec.decryption", "create the secrets in the cluster by other means, and leave out the encrypted ones")
	}
	return failures
}

// unmatched tells of globs of --only and --skip that match nothing: most likely
// they are misspelt, and a run that does nothing in silence looks like success.
func (r *run) unmatched() []event.Failure {
	var failures []event.Failure
	var names []string
	for _, n := range r.sorted() {
		names = append(names, n.ID.String())
	}
	for _, flag := range []struct {
		name  string
		given []string
		globs []string
	}{{"--only ", r.options.Only, r.options.Only}, {"--skip ", r.options.Skip, r.options.Skip}, {"", r.options.Names, globs(r.options.Names)}} {
		for i, glob := range flag.globs {
			if !r.anyDeferred() && !slices.ContainsFunc(names, func(name string) bool { ok, _ := path.Match(glob, name); return ok }) {
				failures = append(failures, event.Failure{Phase: "discover", Reason: "NothingSelected",
					Text: fmt.Sprintf("%s%q matches no Kustomization", flag.name, flag.given[i]),
					Hint: "a pattern is matched on namespace/name, as in */apps; this run has " + list(names, 20)})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.options.Sources)) {
		used := slices.ContainsFunc(r.sorted(), func(n *node) bool { return n.Source().String() == name })
		if !used && !r.anyDeferred() {
			failures = append(failures, event.Failure{Phase: "source", Reason: "SourceUnused",
				Text: fmt.Sprintf("--source %s: no Kustomization uses that source", name), Hint: "correct the name, or leave the flag out"})
		}
	}
	return failures
}

// render runs kustomize for nodes, side by side. The failures are in the order of
// the nodes, as if they had been built one after the other.
func (r *run) render(ctx context.Context, nodes ...*node) map[*node][]event.Failure {
	renderings := make([]struct {
		result build.Result
		err    error
	}, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			defer safe.Recover(&renderings[i].err)
			renderings[i].result, renderings[i].err = build.Build(ctx, n.tree, n.Kustomization, r.building())
		})
	}
	all.Wait()
	failures := map[*node][]event.Failure{}
	for i, n := range nodes {
		failures[n] = r.rendered(ctx, n, renderings[i].result, renderings[i].err)
	}
	r.tellCache()
	return failures
}

// rendered takes what kustomize made of a node.
func (r *run) rendered(ctx context.Context, n *node, result build.Result, err error) []event.Failure {
	for _, notice := range result.Notices {
		r.notice(event.Notice{Level: event.Warning, Code: notice.Code, Node: n.ID.String(), Object: n.other(notice.Object),
			File: notice.File, Text: notice.Text, Hint: notice.Hint})
	}
	if err != nil {
		return r.unbuilt(n, r.failuresOf(ctx, "build", n, err))
	}
	n.rendered, n.rendering = result.Objects, &rendering{took: result.Took, cached: result.Cached}
	r.sinks.Public(n.Name, n.Namespace)
	r.index(n, n.rendered)
	return nil
}

// other is the name of an object, or empty for that of the node itself.
func (n *node) other(object string) string {
	if object == flux.KustomizationKind+"/"+n.ID.String() {
		return ""
	}
	return object
}

// fill makes a rendered node's objects: variables, labels, normalisation; and
// returns the children among them, rendered.
func (r *run) fill(ctx context.Context, n *node, how resolution) (children []*node, failures []event.Failure) {
	if n.Spec.Suspend || n.broken || len(n.Open) > 0 && n.deferred != "" {
		return nil, nil
	}
	if how == deferral {
		n.deferred = r.deferral(ctx, n)
		if n.deferred != "" {
			r.tellAwaited(ctx, n)
			return nil, nil
		}
	}
	objects, err := r.substitute(ctx, n)
	if err != nil {
		if r.connectErr != nil && errors.Is(err, r.connectErr) {
			n.broken = true
			return nil, nil // told once, for the whole run, by reach
		}
		return nil, r.unbuilt(n, r.failuresOf(ctx, "substitute", n, err))
	}
	n.rendered = nil // of thousands of objects there need not be two
	if n.sum, err = build.Digest(objects); err != nil {
		return nil, r.unbuilt(n, r.failuresOf(ctx, "build", n, err))
	}
	found, err := r.split(n, objects)
	if err != nil {
		failures = append(failures, r.failuresOf(ctx, "discover", n, err)...)
	}
	r.discovered(n, found)
	if r.options.Command.shows() {
		failures = append(failures, r.output(ctx, n, objects, found)...)
	} else {
		failures = append(failures, r.desired(ctx, n, found)...)
	}

	for _, k := range found.Kustomizations {
		if ownManifest(n, k) {
			continue
		}
		if other := r.nodes.get(k.ID); other != nil {
			failures = append(failures, duplicate(k, other))
			continue
		}
		if fail := r.overgrown(n, k); fail != nil {
			if !r.full {
				failures = append(failures, *fail)
			}
			r.full = true
			break
		}
		k.Parent = n.ID
		child := r.newNode(k)
		n.children = append(n.children, k.ID)
		r.nodes.add(child)
		children = append(children, child)
	}
	faults := map[*node][]event.Failure{}
	var buildable []*node
	for _, child := range children {
		if child.Spec.Suspend || child.deferred != "" {
			continue
		}
		ok := false
		if faults[child], ok = r.prepare(ctx, child); ok {
			buildable = append(buildable, child)
		}
	}
	built := r.render(ctx, buildable...)
	for _, child := range children {
		failures = append(failures, slices.Concat(faults[child], built[child])...)
	}
	return children, failures
}

// prepare finds out what a child is built from. It cannot be built if that is not
// ok.
func (r *run) prepare(ctx context.Context, child *node) (failures []event.Failure, ok bool) {
	if fail := r.crossNamespace(child); fail != nil {
		return r.unbuilt(child, []event.Failure{*fail}), false
	}
	if !child.excluded {
		failures = append(failures, r.readSpec(ctx, child)...)
	}
	tree, revision, fail := r.source(ctx, child)
	if fail != nil {
		faults := r.unbuilt(child, []event.Failure{*fail})
		if !r.blamed[child.Source()] {
			failures = append(failures, faults...)
		}
		r.blamed[child.Source()] = r.blamed[child.Source()] || len(faults) > 0
		return failures, false
	}
	child.tree, child.revision = tree, revision
	return failures, true
}

// unbuilt marks a node that cannot be built. One that --only or --skip leave out
// does not keep the others from running: what it owns is then not known, so
// that nothing is pruned in its stead.
func (r *run) unbuilt(n *node, failures []event.Failure) []event.Failure {
	n.broken = true
	if !n.excluded || n.Parent.IsZero() {
		return failures
	}
	for _, f := range failures {
		r.notice(event.Notice{Level: event.Warning, Code: "left-out-unbuilt", Node: n.ID.String(), Object: f.Object, File: f.File, Line: f.Line,
			Text: f.Text + "; " + leftOut(r.options.Command), Hint: f.Hint})
	}
	return nil
}

// leftOut says what comes of it that something could not be built.
func leftOut(c Command) string {
	if c.asks() {
		return "it is left out of this run, but what it owns is unknown, so nothing is pruned"
	}
	return "it is left out"
}

// substitute puts the variables into a node's objects (section 3).
func (r *run) substitute(ctx context.Context, n *node) ([]flux.Object, error) {
	if !substitute.Wanted(n.Kustomization, n.rendered) {
		return n.rendered, nil
	}
	options := substitute.Options{Strict: r.options.Strict, KeepOpen: r.options.KeepOpen, HideSecrets: r.options.HideSecrets,
		Extra: r.options.Vars, Precedence: r.options.Precedence, Tree: n.tree}
	vars, notices, err := substitute.Load(ctx, n.Kustomization, r.lookup(n), options)
	if err != nil {
		return nil, err
	}
	r.sinks.Learn(vars.Secrets()...)
	objects, more, err := substitute.Apply(n.Kustomization, n.rendered, vars, options)
	for _, notice := range slices.Concat(notices, more) {
		r.notice(event.Notice{Level: event.Warning, Code: notice.Code, Node: n.ID.String(), Object: n.other(notice.Object),
			File: notice.File, Line: notice.Line, Text: notice.Text, Hint: notice.Hint})
	}
	return objects, err
}

// discovered tells what of a build is not applied as it stands.
func (r *run) discovered(n *node, found discover.Found) {
	for _, notice := range found.Notices {
		level := event.Info
		if notice.Warning {
			level = event.Warning
		}
		r.notice(event.Notice{Level: level, Code: notice.Code, Node: n.ID.String(), Object: notice.Object,
			File: notice.File, Line: notice.Line, Text: notice.Text, Hint: notice.Hint})
	}
	for _, s := range found.Sources {
		r.sources[s.Source] = s
	}
	for _, o := range found.Toolkit {
		r.toolkit = append(r.toolkit, toolkitObject{node: n.ID, object: o})
	}
}

// desired labels and normalises what is to be applied (S0.16).
func (r *run) desired(ctx context.Context, n *node, found discover.Found) []event.Failure {
	all := slices.Concat(found.Objects, found.Toolkit)
	if err := build.Sizes(n.Kustomization, all); err != nil {
		return r.failuresOf(ctx, "build", n, err)
	}
	labelled, err := build.Label(n.Kustomization, all)
	if err != nil {
		return r.failuresOf(ctx, "build", n, err)
	}
	objects, dropped, err := plan.Normalize(labelled)
	for _, d := range dropped {
		r.notice(event.Notice{Level: event.Warning, Code: "dropped-field", Node: n.ID.String(), Object: d.Object.Ref().String(), File: d.Object.File,
			Text: fmt.Sprintf("%s: %s dropped, as Flux does: %s", d.Object.Ref(), count(len(d.Paths), "unknown field is", "unknown fields are"), strings.Join(d.Paths, ", ")),
			Hint: "correct the name or the place"})
	}
	if err != nil {
		return r.failuresOf(ctx, "build", n, err)
	}
	n.objects, n.built = objects, true
	for _, o := range objects {
		r.sinks.Public(o.GetName(), o.GetNamespace())
	}
	r.learnSecrets(objects)
	r.index(n, objects)
	return nil
}

// duplicate says that two manifests declare one Kustomization.
func duplicate(k *flux.Kustomization, other *node) event.Failure {
	return event.Failure{Phase: "discover", Reason: "DuplicateKustomization", Node: k.ID.String(), File: k.File, Line: k.Line,
		Text: fmt.Sprintf("%s is declared twice: in %s and in %s", k.ID, position(other.File, other.Line), position(k.File, k.Line)),
		Hint: "rename one of them, or remove it"}
}
