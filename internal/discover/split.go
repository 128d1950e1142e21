package discover

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/flux"
)

// partOf is the label of Flux's own components (S16.3).
const partOf = "app.kubernetes.io/part-of"

// Notice tells the user something that is no failure.
type Notice struct {
	// Code is a stable name: "flux-components", "marked-kustomization",
	// "old-api-version" or "remote-kustomizations".
	Code string
	// Object, File and Line say what it is about, as far as known.
	Object string
	File   string
	Line   int
	Text   string
	Hint   string
	// Warning says that what the user meant may be something else.
	Warning bool
}

// Source is a source object of a build. The runner resolves it; it is not
// applied.
type Source struct {
	flux.Source

	// URL is spec.url; empty for kinds that have none.
	URL string
	// Ref is spec.ref of a GitRepository or OCIRepository (S10).
	Ref Reference
	// Ignore is spec.ignore; nil if it is not set.
	Ignore *string
	// Suspend is spec.suspend.
	Suspend bool
	// Object is the object as built, with all other fields.
	Object flux.Object
	// Line is the first line of its document in Object.File, 0 if unknown.
	Line int
}

// Reference is what of a source is wanted. At most one matters; which one
// wins is the source's own rule.
type Reference struct {
	Branch, Tag, SemVer, Name, Commit, Digest string
}

// Found is what a build holds, each part in the order of the build.
type Found struct {
	// Kustomizations are run, never applied.
	Kustomizations []*flux.Kustomization
	// Sources are GitRepository, OCIRepository, Bucket and
	// ExternalArtifact: resolved by the runner, not applied.
	Sources []Source
	// FluxComponents belong to Flux itself (label
	// app.kubernetes.io/part-of: flux): left out and never pruned (S16.3).
	FluxComponents []flux.Object
	// Toolkit are objects of Flux's other kinds, such as HelmRelease: they
	// can be applied if the cluster serves them (S16.2).
	Toolkit []flux.Object
	// Objects are all others: to apply.
	Objects []flux.Object
	// Notices are in the order of the build.
	Notices []Notice
}

// Split sorts the built, substituted objects of a Kustomization. The parent is
// that Kustomization; the tree is the one it was built from, for the lines in
// messages, and may be nil. The error joins a *flux.Problem for everything that is
// wrong; Found then still holds what is right.
//
// The objects are not copied.
func Split(parent flux.ID, tree fs.FS, objects []flux.Object) (Found, error) {
	s := &splitter{parent: parent, tree: tree}
	var found Found
	declared := map[flux.ID]*flux.Kustomization{}
	for _, o := range objects {
		gvk := o.GroupVersionKind()
		switch {
		case gvk.Group == flux.Group && gvk.Kind == flux.KustomizationKind:
			k := s.decode(o)
			if k == nil {
				continue
			}
			if other := declared[k.ID]; other != nil {
				s.fail(o, "", "rename or remove one of them", fmt.Errorf("is declared twice: also in %s", place(other.File, other.Line)))
				continue
			}
			declared[k.ID] = k
			found.Kustomizations = append(found.Kustomizations, k)
		case flux.IsSource(o.Ref()):
			if source, ok := s.source(o); ok {
				found.Sources = append(found.Sources, source)
			}
		case o.GetLabels()[partOf] == "flux":
			found.FluxComponents = append(found.FluxComponents, o)
		case strings.HasSuffix(gvk.Group, flux.GroupSuffix):
			found.Toolkit = append(found.Toolkit, o)
		default:
			found.Objects = append(found.Objects, o)
		}
	}
	if n := len(found.FluxComponents); n > 0 {
		s.notices = append(s.notices, Notice{
			Code:   "flux-components",
			Object: "Kustomization/" + parent.String(),
			File:   found.FluxComponents[0].File,
			Text:   fmt.Sprintf("%d objects are Flux's own components (%s: flux): left as they are in the cluster, neither applied nor pruned", n, partOf),
			Hint:   "nothing needs to be done; remove the files once no cluster runs Flux any more",
		})
	}
	found.Notices = s.notices
	return found, flux.JoinProblems(s.problems)
}

// SplitRemote is Split for the build of a Kustomization with spec.kubeConfig: it
// goes to another cluster as it is (S4.42). The Kustomizations and sources in it
// are for a Flux that runs there, and Flux's own components may be that Flux.
func SplitRemote(parent flux.ID, objects []flux.Object) Found {
	var found Found
	var first flux.Object
	kustomizations := 0
	for _, o := range objects {
		gvk := o.GroupVersionKind()
		if !strings.HasSuffix(gvk.Group, flux.GroupSuffix) {
			found.Objects = append(found.Objects, o)
			continue
		}
		found.Toolkit = append(found.Toolkit, o)
		if gvk.Group == flux.Group && gvk.Kind == flux.KustomizationKind {
			if kustomizations++; kustomizations == 1 {
				first = o
			}
		}
	}
	if kustomizations > 0 {
		found.Notices = []Notice{{
			Code: "remote-kustomizations", Object: first.Ref().String(), File: first.File,
			Text: fmt.Sprintf("%s is applied to the cluster of its spec.kubeConfig, and with it, as objects, the Kustomizations in it (%d): "+
				"they are run by a Flux in that cluster, not by sluice", parent, kustomizations),
			Hint: "to have sluice run them, declare them outside of it, each with its own spec.kubeConfig",
		}}
	}
	return found
}

// splitter is one call of Split.
type splitter struct {
	parent   flux.ID
	tree     fs.FS
	problems []*flux.Problem
	notices  []Notice
}

func (s *splitter) fail(o flux.Object, field, remedy string, err error) {
	id := flux.ID{Namespace: o.GetNamespace(), Name: o.GetName()}
	if o.GetKind() != flux.KustomizationKind {
		id = s.parent
	}
	s.problems = append(s.problems, &flux.Problem{
		Kustomization: id,
		File:          o.File,
		Line:          fieldLine(s.tree, o.File, o.Ref(), field),
		Object:        o.Ref().String(),
		Field:         field,
		Err:           err,
		Remedy:        remedy,
	})
}

// source reads the fields of a source object that a run needs.
func (s *splitter) source(o flux.Object) (Source, bool) {
	if o.GetNamespace() == "" {
		s.fail(o, "metadata.namespace", "set metadata.namespace, or targetNamespace in "+s.parent.String(), errors.New("namespace not specified"))
		return Source{}, false
	}
	source := Source{
		Source: flux.Source{Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()},
		Object: o,
		Line:   Line(s.tree, o.File, o.Ref()),
	}
	good := true
	read := func(path ...string) string {
		value, found, err := unstructured.NestedString(o.Object, append([]string{"spec"}, path...)...)
		if err != nil {
			good = false
			s.fail(o, "spec."+strings.Join(path, "."), "", errors.New("must be a string"))
		}
		if found && len(path) == 1 && path[0] == "ignore" {
			source.Ignore = &value
		}
		return value
	}
	read("ignore")
	suspend, _, err := unstructured.NestedBool(o.Object, "spec", "suspend")
	if err != nil {
		good = false
		s.fail(o, "spec.suspend", "", errors.New("must be true or false"))
	}
	source.Suspend = suspend
	if kind := o.GetKind(); kind == "GitRepository" || kind == "OCIRepository" {
		source.URL = read("url")
		source.Ref = Reference{
			Branch: read("ref", "branch"), Tag: read("ref", "tag"), SemVer: read("ref", "semver"),
			Name: read("ref", "name"), Commit: read("ref", "commit"), Digest: read("ref", "digest"),
		}
		if good && source.URL == "" {
			good = false
			s.fail(o, "spec.url", "", errors.New("is required"))
		}
	}
	return source, good
}

func place(file string, line int) string {
	switch {
	case file == "":
		return "a file that is not known"
	case line == 0:
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}
