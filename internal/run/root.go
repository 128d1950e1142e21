package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/sluicerun/sluice/internal/discover"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
)

// plant makes the root node: the Kustomization that the entry folder holds of
// itself, as flux bootstrap writes it, or one that sluice makes up.
func (r *run) plant(ctx context.Context) (*node, []event.Failure) {
	entry, fail := r.entry()
	if fail != nil {
		return nil, []event.Failure{*fail}
	}
	r.path = entry
	madeUp := discover.DefaultRoot(entry, r.options.StateNamespace)
	root := r.rootNode(madeUp)
	r.root = madeUp.ID
	if failures := r.render(ctx, root)[root]; len(failures) > 0 {
		r.nodes.add(root)
		return nil, failures
	}
	// The first look decides only which Kustomization is the root, and what
	// its source leaves out (see ownTree). Its faults are those that the second
	// one, in fill, reports, so they neither count here nor keep a root from
	// being found: with another root the folder would be built twice, and each
	// fault told twice.
	first, _ := discover.Split(madeUp.ID, root.tree, root.rendered)
	if self := discover.SelfReference(first, entry); self != nil {
		self.Parent = flux.ID{}
		for _, s := range first.Sources {
			r.sources[s.Source] = s
		}
		root = r.rootNode(self)
		r.root, r.rootWritten, r.ownSource = self.ID, true, self.Source()
		if fail := r.crossNamespace(root); fail != nil {
			r.nodes.add(root)
			return nil, []event.Failure{*fail}
		}
		tree, _, fail := r.ownTree(ctx, root)
		if fail != nil {
			r.nodes.add(root)
			return nil, []event.Failure{*fail}
		}
		root.tree = tree
		if failures := r.render(ctx, root)[root]; len(failures) > 0 {
			r.nodes.add(root)
			return nil, failures
		}
	}
	r.nodes.add(root)
	return root, r.readSpec(ctx, root)
}

// rootNode is a root that sees what is in the artifact of a source without
// spec.ignore.
func (r *run) rootNode(k *flux.Kustomization) *node {
	n := r.newNode(k)
	n.tree, n.revision = r.tree, r.commit.Revision
	return n
}

// noKustomization says that the entry folder leads to nothing.
func (r *run) noKustomization() event.Failure {
	f := event.Failure{Phase: "discover", Reason: "NoKustomization", File: r.path,
		Text: fmt.Sprintf("no Flux Kustomization found in the build of %q", r.path)}
	if names, _ := r.candidates(); len(names) > 0 { // only for the hint
		f.Hint = "give --path one of: " + list(names, 20)
	} else {
		f.Hint = "no folder of the repository holds one (apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization); " +
			"if the last one has left on purpose, --allow-empty prunes what it had"
	}
	return f
}

// entry decides on the entry folder.
func (r *run) entry() (string, *event.Failure) {
	given := r.options.Path
	if given == "" {
		names, err := r.candidates()
		if err != nil {
			return "", &event.Failure{Phase: "discover", Reason: "PathUnreadable",
				Text: fmt.Sprintf("no entry folder given, and the repository cannot be searched for one: %v", err), Hint: "give --path"}
		}
		if len(names) == 1 {
			return names[0], nil
		}
		f := &event.Failure{Phase: "discover", Reason: "PathRequired", Text: "no entry folder given"}
		if len(names) == 0 {
			f.Reason, f.Text = "NoKustomization", "the repository holds no Flux Kustomization"
			f.Hint = "give --path, or add a manifest with apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization"
			return "", f
		}
		f.Hint = "give --path one of: " + list(names, 20)
		return "", f
	}
	if outside(given) {
		return "", &event.Failure{Phase: "discover", Reason: "PathOutside", Text: fmt.Sprintf("--path %q lies outside the repository", given),
			Hint: "give the folder relative to the root of the repository, such as clusters/production"}
	}
	entry := flux.CleanPath(given)
	info, err := fs.Stat(r.tree, entry)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f := &event.Failure{Phase: "discover", Reason: "PathNotFound", Text: fmt.Sprintf("--path %q does not exist at %s", given, r.commit.Revision)}
		if at, ok := as[*fs.PathError](err); ok && strings.Contains(at.Err.Error(), "symbolic link") {
			f.Text += strings.TrimPrefix(at.Err.Error(), fs.ErrNotExist.Error())
		}
		if names, _ := r.candidates(); len(names) > 0 { // only for the hint
			f.Hint = "folders that hold Kustomizations: " + list(names, 20)
		} else {
			f.Hint = "no folder of the repository holds a Kustomization"
		}
		return "", f
	case err != nil:
		return "", &event.Failure{Phase: "discover", Reason: "PathUnreadable", Text: fmt.Sprintf("--path %q: %v", given, err)}
	case !info.IsDir():
		return "", &event.Failure{Phase: "discover", Reason: "PathNotFolder", Text: fmt.Sprintf("--path %q is a file", given),
			Hint: "give the folder that it lies in"}
	}
	return entry, nil
}

func (r *run) candidates() ([]string, error) {
	found, err := discover.Candidates(r.tree)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range found {
		names = append(names, c.Path)
	}
	return names, nil
}
