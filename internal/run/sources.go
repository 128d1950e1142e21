package run

import (
	"context"
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
		return r.commit.FS, r.commit.Revision, nil
	}
	url, defined, err := r.sourceURL(ctx, ref)
	switch {
	case err != nil:
		return fail("SourceUnreadable", "cannot be looked up: "+err.Error(), serve)
	case !defined && r.connectErr != nil:
		return r.commit.FS, r.commit.Revision, nil // reported once, for the whole run, by reach
	case !defined:
		r.assumed[ref] = true
		r.noticeOnce("source-undefined "+ref.String(), event.Notice{Level: event.Info, Code: "source-undefined", Node: n.ID.String(), File: n.File, Line: n.Line,
			Text: fmt.Sprintf("source %s is defined neither in this run nor in the cluster: this repository serves it", ref)})
		return r.commit.FS, r.commit.Revision, nil
	}
	normal, err := source.NormalizeURL(url)
	if err != nil {
		return fail("SourceURL", fmt.Sprintf("has a URL that cannot be read: %v", err), "correct spec.url")
	}
	if r.commit.URL != "" && normal == r.commit.URL {
		return r.commit.FS, r.commit.Revision, nil
	}
	if r.commit.URL == "" {
		return fail("SourceUnknown", fmt.Sprintf("has the URL %s, and this checkout has no remote to compare it with", normal),
			fmt.Sprintf("if it is this repository, say --source %s=.; otherwise %s", ref, serve))
	}
	return fail("SourceForeign", fmt.Sprintf("is another repository (%s; this one is %s)", normal, r.commit.URL), serve)
}

// sourceURL finds a GitRepository in this run, else in the cluster.
func (r *run) sourceURL(ctx context.Context, ref flux.Source) (url string, defined bool, err error) {
	if s, ok := r.sources[ref]; ok {
		return s.URL, true, nil
	}
	c, err := r.connect(ctx)
	if err != nil {
		return "", false, nil // reported once, for the whole run
	}
	reader, err := c.Client("")
	if err != nil {
		return "", false, err
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Group: flux.SourceGroup, Version: "v1", Kind: ref.Kind})
	err = reader.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, o)
	switch {
	case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
		return "", false, nil
	case err != nil:
		return "", false, err
	}
	url, _, err = unstructured.NestedString(o.Object, "spec", "url")
	return url, true, err
}

// servedFrom opens what --source names; each place is opened once.
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
	return commit.FS, commit.Revision, nil
}
