package build

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	fluxkustomize "github.com/fluxcd/pkg/apis/kustomize"
	"sigs.k8s.io/kustomize/api/provider"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
)

// placeholder keeps kustomize from refusing an empty folder (S2.7).
const placeholder = "_placeholder"

// generate returns the kustomization that is built: the folder's own or a
// generated one, with the spec's fields put in (S2.1 to S2.29). It sets file,
// generated and metadata.
func (b *builder) generate() (kustypes.Kustomization, error) {
	k, err := b.find()
	if err != nil {
		return k, err
	}
	if !b.generated && len(k.Resources) == 0 {
		k.BuildMetadata = []string{kustypes.OriginAnnotations} // S2.11
	}
	spec := b.k.Spec
	if spec.TargetNamespace != "" {
		k.Namespace = spec.TargetNamespace
	}
	if spec.NamePrefix != "" {
		k.NamePrefix = spec.NamePrefix
	}
	if spec.NameSuffix != "" {
		k.NameSuffix = spec.NameSuffix
	}
	for _, p := range spec.Patches {
		k.Patches = append(k.Patches, kustypes.Patch{Patch: p.Patch, Target: selector(p.Target)})
	}
	var problems []*flux.Problem
	fail := func(format string, args ...any) {
		e := &flux.Problem{Kustomization: b.k.ID, File: b.k.File, Line: b.k.Line, Err: fmt.Errorf(format, args...)}
		problems = append(problems, e)
	}
	for i, c := range spec.Components {
		switch exists := b.tree.Exists(path.Join(mount, b.k.Path(), c)); {
		case !localAndRelative(c):
			fail("spec.components[%d]: component path '%s' must be local and relative", i, c) // S2.27
		case exists:
			k.Components = append(k.Components, c)
		case spec.IgnoreMissingComponents: // S2.28
		case outsideOf(path.Join(b.k.Path(), c)):
			fail("spec.components[%d]: %q is outside of the repository", i, c)
			problems[len(problems)-1].Remedy = "a build can only read files of its own repository"
		default:
			fail("spec.components[%d]: %q does not exist: looked for %q", i, c, path.Join(b.k.Path(), c))
			problems[len(problems)-1].Remedy = "correct the path, or set ignoreMissingComponents: true"
		}
	}
	for i, p := range b.k.Extra.PatchesStrategicMerge { // S1.19
		text, err := json.Marshal(p)
		if err != nil {
			fail("spec.patchesStrategicMerge[%d]: %w", i, err)
			continue
		}
		//lint:ignore SA1019 as Flux does: the order of the transformers depends on the field
		k.PatchesStrategicMerge = append(k.PatchesStrategicMerge, kustypes.PatchStrategicMerge(text))
	}
	for i, p := range b.k.Extra.PatchesJSON6902 {
		patch, err := jsonPatch(p)
		if err != nil {
			fail("spec.patchesJson6902[%d]: %w", i, err)
			continue
		}
		//lint:ignore SA1019 as Flux does: the order of the transformers depends on the field
		k.PatchesJson6902 = append(k.PatchesJson6902, patch)
	}
	for _, image := range spec.Images {
		k.Images = mergeImage(k.Images, image)
	}
	for i, g := range b.k.Extra.ConfigMapGenerator {
		args, err := configMapArgs(g)
		if err != nil {
			fail("spec.configMapGenerator[%d]: %w", i, err)
			continue
		}
		k.ConfigMapGenerator = append(k.ConfigMapGenerator, args)
	}
	if len(b.k.Extra.ConfigMapGenerator) > 0 {
		b.notices = append(b.notices, Notice{
			Code:   "extension-field",
			Object: "Kustomization/" + b.k.ID.String(),
			File:   b.k.File,
			Text:   "spec.configMapGenerator is understood by sluice only; Flux refuses the field",
			Hint:   fmt.Sprintf("to stay usable with Flux, move it to %q", path.Join(b.k.Path(), "kustomization.yaml")),
		})
	}
	if len(spec.BuildMetadata) > 0 { // S2.17
		k.BuildMetadata = nil
		for _, m := range spec.BuildMetadata {
			k.BuildMetadata = append(k.BuildMetadata, string(m))
		}
	}
	b.metadata = slices.Clone(k.BuildMetadata)
	return k, flux.JoinProblems(problems)
}

// write puts the kustomization into the overlay; with origins, every object
// will say where it is from.
func (b *builder) write(k kustypes.Kustomization, origins bool) error {
	k.BuildMetadata = slices.Clone(b.metadata)
	if origins && !slices.Contains(k.BuildMetadata, kustypes.OriginAnnotations) {
		k.BuildMetadata = append(k.BuildMetadata, kustypes.OriginAnnotations)
	}
	text, err := yaml.Marshal(k)
	if err != nil {
		return b.problem(fmt.Errorf("writing %q: %w", b.file, err))
	}
	b.tree.written[b.file] = text
	return nil
}

// find reads the folder's kustomization file or makes one.
func (b *builder) find() (kustypes.Kustomization, error) {
	k := kustypes.Kustomization{TypeMeta: kustypes.TypeMeta{
		APIVersion: kustypes.KustomizationVersion,
		Kind:       kustypes.KustomizationKind,
	}}
	dir := b.k.Path()
	info, err := b.tree.stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid):
		return k, b.missingPath()
	case err != nil:
		return k, b.problem(fmt.Errorf("spec.path %q: %w", b.k.Spec.Path, err))
	case !info.IsDir(): // S1.8
		e := b.problem(fmt.Errorf("spec.path %q is a file, not a folder", b.k.Spec.Path))
		e.Remedy = fmt.Sprintf("set spec.path to its folder, %q", strings.TrimSuffix("./"+path.Dir(dir), "."))
		return k, e
	}
	for _, name := range kustomizationFiles {
		file := path.Join(dir, name)
		if info, err := b.tree.stat(file); err != nil || info.IsDir() {
			continue
		}
		b.file = file
		data, err := b.tree.read(file)
		if err != nil {
			return k, b.problem(err)
		}
		// As Flux does it: unknown fields disappear (S2.9), and of several
		// documents the first counts.
		if err := yaml.Unmarshal(data, &k); err != nil {
			return k, b.unreadable(file, data, err)
		}
		b.dropped(data)
		return k, nil
	}
	b.file, b.generated = path.Join(dir, kustomizationFiles[0]), true
	if _, err := b.tree.stat(b.file); err == nil {
		e := b.problem(fmt.Errorf("%q is a folder, where a kustomization file is wanted", b.file))
		e.Remedy = "rename the folder"
		return k, e
	}
	k.Resources, err = b.scan(dir)
	if err == nil && len(k.Resources) == 0 {
		k.Namespace = placeholder
	}
	return k, err
}

// dropped notes the fields of the kustomization file that nothing reads.
func (b *builder) dropped(data []byte) {
	var fields map[string]any
	if err := yaml.Unmarshal(data, &fields); err != nil {
		return // it has been read once; there is nothing to say about it
	}
	for _, top := range slices.Sorted(maps.Keys(fields)) {
		var k kustypes.Kustomization
		err := strict(map[string]any{top: fields[top]}, &k)
		if err == nil {
			continue
		}
		_, quoted, _ := strings.Cut(err.Error(), "unknown field ")
		name, err := strconv.Unquote(quoted)
		if err != nil {
			continue
		}
		what := strconv.Quote(name)
		if name != top {
			what += " in " + strconv.Quote(top)
		}
		b.notices = append(b.notices, Notice{
			Code: "dropped-field",
			File: b.file,
			Text: fmt.Sprintf("the field %s is unknown to kustomize and has no effect, here as in Flux", what),
			Hint: "remove the field or correct its name",
		})
	}
}

// scan lists what a generated file names: every manifest below the folder, and
// every folder with a kustomization file of its own (S2.3, S2.5). All files
// that are no Kubernetes YAML are reported together (S2.4).
func (b *builder) scan(dir string) ([]string, error) {
	factory := provider.NewDefaultDepProvider().GetResourceFactory()
	var resources []string
	var problems []*flux.Problem
	err := b.tree.Walk(path.Join(mount, dir), func(name string, info fs.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, _ := inTree(name)
		if rel == dir {
			return nil
		}
		entry := "./" + strings.TrimPrefix(rel, dir+"/")
		if info.IsDir() {
			for _, f := range kustomizationFiles {
				if i, err := b.tree.stat(path.Join(rel, f)); err == nil && !i.IsDir() {
					resources = append(resources, entry)
					return fs.SkipDir
				}
			}
			return nil
		}
		if ext := path.Ext(rel); ext != ".yaml" && ext != ".yml" {
			return nil
		}
		data, err := b.tree.read(rel)
		if err != nil {
			return err
		}
		if err := parses(factory, data); err != nil {
			problems = append(problems, b.notKubernetes(rel, data, err))
			return nil
		}
		resources = append(resources, entry)
		return nil
	})
	if err != nil {
		problems = append(problems, b.problem(err))
	}
	return resources, flux.JoinProblems(problems)
}

// mergeImage adds an image of the spec to those of the file (S2.29).
func mergeImage(images []kustypes.Image, image fluxkustomize.Image) []kustypes.Image {
	for i := range images {
		if images[i].Name != image.Name {
			continue
		}
		if image.NewName != "" {
			images[i].NewName = image.NewName
		}
		if image.NewTag != "" || image.Digest != "" {
			// A tag beside an old digest would lose against it.
			images[i].NewTag, images[i].Digest = image.NewTag, image.Digest
		}
		return images
	}
	return append(images, kustypes.Image{Name: image.Name, NewName: image.NewName, NewTag: image.NewTag, Digest: image.Digest})
}

func selector(s *fluxkustomize.Selector) *kustypes.Selector {
	if s == nil {
		return nil
	}
	out := &kustypes.Selector{LabelSelector: s.LabelSelector, AnnotationSelector: s.AnnotationSelector}
	out.Group, out.Version, out.Kind = s.Group, s.Version, s.Kind
	out.Name, out.Namespace = s.Name, s.Namespace
	return out
}

// remotePrefixes mark what is no local path, in any case of letters (S2.27).
var remotePrefixes = []string{"git::", "gh:", "ssh://", "http://", "https://", "git@", "github.com:", "github.com/"}

func localAndRelative(name string) bool {
	lower := strings.ToLower(name)
	if slices.ContainsFunc(remotePrefixes, func(p string) bool { return strings.HasPrefix(lower, p) && lower != p }) {
		return false
	}
	return !path.IsAbs(name) && !path.IsAbs(strings.TrimPrefix(lower, "file://"))
}

// outsideOf reports whether a clean path of the tree leads out of it (S2.32).
func outsideOf(name string) bool { return name == ".." || strings.HasPrefix(name, "../") }

// jsonPatch reads an entry of v1beta2's patchesJson6902 (S1.18).
func jsonPatch(entry map[string]any) (kustypes.Patch, error) {
	var p fluxkustomize.JSON6902Patch
	if err := strict(entry, &p); err != nil {
		return kustypes.Patch{}, err
	}
	text, err := json.Marshal(p.Patch)
	if err != nil {
		return kustypes.Patch{}, err
	}
	return kustypes.Patch{Patch: string(text), Target: selector(&p.Target)}, nil
}

// configMapArgs reads an entry of the extension spec.configMapGenerator.
func configMapArgs(entry map[string]any) (kustypes.ConfigMapArgs, error) {
	var args kustypes.ConfigMapArgs
	if err := strict(entry, &args); err != nil {
		return args, err
	}
	if args.Name == "" {
		return args, errors.New("name is required")
	}
	return args, nil
}

// strict converts a map to a struct and refuses fields it does not have.
func strict(from map[string]any, to any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}
