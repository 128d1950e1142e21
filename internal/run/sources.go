package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/source"
)

// source returns the tree that a Kustomization is built from, and its
// revision. The run's own commit serves every GitRepository of the same URL,
// whatever its ref says: the commit is what the run is for. It also serves the
// source of the root, since bootstrap made that one for this repository, and a
// GitRepository that is defined nowhere.
//
// The tree is what Flux's artifact would hold (S10.35): the source's spec.ignore
// is taken from its manifest in this run, else from the cluster.
func (r *run) source(ctx context.Context, n *node) (fs.FS, string, *event.Failure) {
	ref := n.Source()
	if place, ok := r.options.Sources[ref.String()]; ok {
		return r.servedFrom(ctx, n, ref, place)
	}
	fail := func(reason, text, hint string) (fs.FS, string, *event.Failure) {
		return nil, "", &event.Failure{Phase: "source", Reason: reason, Node: n.ID.String(), File: n.File, Line: n.Line,
			Text: fmt.Sprintf("%s: source %s %s", n.ID, ref, text), Hint: hint}
	}
	serve := fmt.Sprintf("serve it from a local folder or repository with --source %s=PATH", ref)
	if ref.Kind != "GitRepository" {
		return fail("SourceKind", "is not a Git repository and cannot be fetched", serve)
	}
	if ref == r.ownSource {
		return r.ownTree(ctx, n)
	}
	spec, defined, err := r.lookUp(ctx, ref)
	switch {
	case err != nil:
		return fail("SourceUnreadable", "cannot be looked up: "+err.Error(), mayRead)
	case !defined && r.connectErr != nil:
		return r.artifact(ctx, n, r.commit, nil) // reported once, for the whole run, by reach
	case !defined:
		r.noticeOnce("source-undefined "+ref.String(), event.Notice{Level: event.Info, Code: "source-undefined", Node: n.ID.String(), File: n.File, Line: n.Line,
			Text: fmt.Sprintf("source %s is defined neither in this run nor in the cluster: this repository serves it", ref)})
		return r.artifact(ctx, n, r.commit, nil)
	}
	normal, err := source.NormalizeURL(spec.URL)
	if err != nil {
		return fail("SourceURL", fmt.Sprintf("has a URL that cannot be read: %v", err), "correct spec.url")
	}
	if r.commit.URL != "" && normal == r.commit.URL {
		r.tellSuspended(n, ref, spec)
		return r.artifact(ctx, n, r.commit, spec.Ignore)
	}
	if r.commit.URL == "" {
		return fail("SourceUnknown", fmt.Sprintf("has the URL %s, and this checkout has no remote to compare it with", normal),
			fmt.Sprintf("if it is this repository, say --source %s=.; otherwise %s", ref, serve))
	}
	return fail("SourceForeign", fmt.Sprintf("is another repository (%s; this one is %s)", normal, r.commit.URL), serve)
}

// crossNamespace refuses a source in another namespace where that is forbidden,
// in Flux's words (S1.6). It is the reference that counts, whatever serves it.
func (r *run) crossNamespace(n *node) *event.Failure {
	ref := n.Source()
	if !r.options.NoCrossNamespaceRefs || ref.Namespace == n.Namespace {
		return nil
	}
	return &event.Failure{Phase: "source", Reason: "AccessDenied", Node: n.ID.String(), File: n.File, Line: n.Line,
		Text: fmt.Sprintf("%s: can't access '%s', cross-namespace references have been blocked", n.ID, ref),
		Hint: fmt.Sprintf("declare the source in namespace %s, or leave out --no-cross-namespace-refs", n.Namespace)}
}

// mayRead is what to do about a source that cannot be read in the cluster.
const mayRead = "allow the account that sluice runs as to get it, or add its manifest to the entry folder"

// ownTree is what the root is built from, and what uses the root's source: the
// run's commit, whatever the source's URL. The source's manifest is in the
// root's own build as a rule, so the root is built twice: plant looks once
// without a spec.ignore, and what this first look finds holds from then on.
func (r *run) ownTree(ctx context.Context, n *node) (fs.FS, string, *event.Failure) {
	spec, _, err := r.lookUp(ctx, r.ownSource)
	if err != nil {
		return nil, "", &event.Failure{Phase: "source", Reason: "SourceUnreadable", Node: n.ID.String(), File: n.File, Line: n.Line,
			Text: fmt.Sprintf("%s: source %s cannot be looked up: %v", n.ID, r.ownSource, err), Hint: mayRead}
	}
	r.tellSuspended(n, r.ownSource, spec)
	return r.artifact(ctx, n, r.commit, spec.Ignore)
}

// tellSuspended says that a suspended source is used all the same (S10.30). Flux
// would use it as it was when it was suspended, which a run cannot know: it has
// the commit that it was started for.
func (r *run) tellSuspended(n *node, ref flux.Source, spec sourceSpec) {
	if spec.Suspend {
		r.noticeOnce("source-suspended "+ref.String(), event.Notice{Level: event.Warning, Code: "source-suspended", Node: n.ID.String(), File: n.File, Line: n.Line,
			Text: fmt.Sprintf("source %s is suspended; it is used at the commit of this run", ref),
			Hint: "to hold back a Kustomization, suspend the Kustomization"})
	}
}

// artifact is what of a commit a node may see.
func (r *run) artifact(ctx context.Context, n *node, commit *source.Commit, ignore *string) (fs.FS, string, *event.Failure) {
	tree, err := commit.Artifact(ignore)
	if err != nil {
		f := r.failure(ctx, "source", n, err)
		return nil, "", &f
	}
	return tree, commit.Revision, nil
}

// sourceSpec is what of a source's spec decides on a build.
type sourceSpec struct {
	URL     string
	Ignore  *string
	Suspend bool
	defined bool
}

// lookUp finds a source in this run, else in the cluster, where it is read
// once. A cluster that cannot be reached defines nothing: reach reports that
// for the whole run.
func (r *run) lookUp(ctx context.Context, ref flux.Source) (spec sourceSpec, defined bool, err error) {
	if s, ok := r.sources[ref]; ok {
		return sourceSpec{URL: s.URL, Ignore: s.Ignore, Suspend: s.Suspend}, true, nil
	}
	if known, ok := r.liveSources[ref]; ok {
		return known, known.defined, nil
	}
	c, err := r.connect(ctx)
	if err != nil {
		return spec, false, nil // see above
	}
	reader, err := c.Client("")
	if err != nil {
		return spec, false, err
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Group: flux.SourceGroup, Version: "v1", Kind: ref.Kind})
	err = reader.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, o)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		r.liveSources[ref] = spec
		return spec, false, nil
	}
	if err != nil {
		return spec, false, err
	}
	url, _, wrongURL := unstructured.NestedString(o.Object, "spec", "url")
	ignore, found, wrongIgnore := unstructured.NestedString(o.Object, "spec", "ignore")
	suspend, _, wrongSuspend := unstructured.NestedBool(o.Object, "spec", "suspend")
	if err := errors.Join(wrongURL, wrongIgnore, wrongSuspend); err != nil {
		return spec, false, err
	}
	spec.URL, spec.Suspend, spec.defined = url, suspend, true
	if found {
		spec.Ignore = &ignore
	}
	r.liveSources[ref] = spec
	return spec, true, nil
}

// servedFrom opens what --source names; each place is opened once. It is read
// by the rules of Git sources, whatever the source's kind.
func (r *run) servedFrom(ctx context.Context, n *node, ref flux.Source, place string) (fs.FS, string, *event.Failure) {
	commit, ok := r.served[place]
	if !ok {
		opened, err := source.OpenPlace(ctx, place)
		if err != nil {
			f := r.failure(ctx, "source", n, err)
			f.Text = fmt.Sprintf("--source %s=%s: %s", ref, place, f.Text)
			return nil, "", &f
		}
		commit = opened
		r.served[place] = commit
	}
	spec, _, err := r.lookUp(ctx, ref)
	if err != nil {
		return nil, "", &event.Failure{Phase: "source", Reason: "SourceUnreadable", Node: n.ID.String(), File: n.File, Line: n.Line,
			Text: fmt.Sprintf("%s: the spec.ignore of source %s cannot be looked up: %v", n.ID, ref, err), Hint: mayRead}
	}
	r.tellSuspended(n, ref, spec)
	return r.artifact(ctx, n, commit, spec.Ignore)
}
