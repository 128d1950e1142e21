package build

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/resource"
	kustypes "sigs.k8s.io/kustomize/api/types"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/safe"
)

// Notice tells the user something that is no failure.
type Notice struct {
	// Code is a stable name: "extension-field", "deprecated-field",
	// "dropped-field", "renamed-namespace" or "kustomize".
	Code string
	// Object and File say what it is about, as far as known.
	Object string
	File   string
	Text   string
	Hint   string
}

// Result is what a build gives.
type Result struct {
	// Objects are the built objects before substitution, in kustomize's
	// order.
	Objects []flux.Object
	// Files are the files of the tree that were read, sorted.
	Files []string
	// Notices are sorted by file and text.
	Notices []Notice
	// Took is how long the build took when it was made, which Cached says was
	// in an earlier run.
	Took   time.Duration
	Cached bool
}

// Options are what a run can choose. The zero value is what Flux does.
type Options struct {
	// NoRemoteBases fails builds that would fetch anything from a network
	// or from another repository (S2.34).
	NoRemoteBases bool

	// Cache, if set, has the results of earlier builds, and keeps those of this
	// one; see cached.go. Program tells this program from all others: an entry
	// of another one is never used, since it might build differently.
	Cache   Cache
	Program string
}

// Build builds the folder k.Path() of the tree. The objects are what Flux
// would have before substitution (S0.13); each knows its file. The error joins
// every problem that was found, each a *flux.Problem (see flux.Problems).
//
// Kustomize cannot be interrupted: when ctx ends, Build returns at once, while
// a download that kustomize has begun ends by itself and keeps its place among
// the builds that run until then. Build is safe for concurrent use; the tree must
// not change while it runs, and must be safe for concurrent use itself if builds
// share it.
func Build(ctx context.Context, tree fs.FS, k *flux.Kustomization, options Options) (Result, error) {
	stopped := func(what string) (Result, error) {
		return Result{}, &flux.Problem{Kustomization: k.ID, File: k.File, Line: k.Line, Err: fmt.Errorf("%s: %w", what, context.Cause(ctx))}
	}
	if err := turns.Acquire(ctx, 1); err != nil {
		return stopped("not built")
	}
	type outcome struct {
		result Result
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() { done <- o }()
		defer safe.Recover(&o.err)
		result, err, alone := newBuilder(tree, k, options).inTurn(1)
		if alone {
			if turns.Acquire(ctx, allTurns) != nil {
				// Rarely read, but it must not pass for a build of nothing.
				o.result, o.err = stopped("not built")
				return
			}
			b := newBuilder(tree, k, options)
			b.alone = true
			result, err, _ = b.inTurn(allTurns)
		}
		o = outcome{result, err}
	}()
	watched, end := context.WithCancel(ctx)
	defer end()
	select {
	case o := <-done:
		return o.result, o.err
	case <-exhausted(watched, maxMemory):
		return Result{}, &flux.Problem{Kustomization: k.ID, File: k.File, Line: k.Line,
			Err: fmt.Errorf("build stopped: building needs more memory than %s, passed while this one was being built", mebibytes(int64(maxMemory))),
			Remedy: "look for what multiplies in it, or in another that is built at the same time: overlays of overlays, long prefixes, replacements that repeat what they replace; " +
				"if it is really that large, allow more by the environment variable GOMEMLIMIT"}
	case <-ctx.Done():
		return stopped("build stopped")
	}
}

// builder is one build.
type builder struct {
	k       *flux.Kustomization // what shapes the build, and no more
	source  fs.FS
	asked   *recorder // what was asked of source
	tree    *overlay
	options Options

	// manifest is what is built, once it is known.
	manifest kustypes.Kustomization

	// file is the kustomization file of the folder, as a path in the tree;
	// generated says that the tree does not have it.
	file      string
	generated bool

	// metadata is the effective buildMetadata, before ours is added.
	metadata []string

	// alone says that no other build runs, so that this one may change what is
	// global (see turns.go). customSchema is set when a file that was read sets
	// "openapi".
	alone        bool
	customSchema bool
	silenced     func()

	// floors is how many bases stand on each other above a folder, at most, as
	// far as kustomize has come (limits.go).
	floors  map[string]int
	notices []Notice
}

func newBuilder(tree fs.FS, k *flux.Kustomization, options Options) *builder {
	asked := newRecorder(tree)
	return &builder{k: shape(k), source: tree, asked: asked, tree: newOverlay(asked.record(), !options.NoRemoteBases), options: options, floors: map[string]int{}}
}

func (b *builder) build() (result Result, err error) {
	defer func() {
		r := recover()
		if _, ok := r.(needsToBeAlone); ok {
			panic(r)
		}
		if limit, ok := r.(*tooMuch); ok {
			err = b.beyond(limit)
		} else if r != nil {
			err = b.problem(fmt.Errorf("recovered from kustomize build panic: %v", r))
		}
	}()
	manifest, err := b.generate()
	if err != nil {
		return Result{}, err
	}
	b.manifest = manifest
	if b.options.NoRemoteBases {
		if err := b.remoteBases(manifest); err != nil {
			return Result{}, err
		}
	}
	if err := b.write(manifest, true); err != nil {
		return Result{}, err
	}
	b.tree.onRead = b.inspect
	objects, err := b.run()
	if err == nil && b.originMatters(manifest, objects) {
		objects, err = b.exact(manifest, objects)
	}
	if err != nil {
		return Result{}, b.diagnose(manifest, err)
	}
	b.renamed(manifest.Namespace, objects)
	slices.SortStableFunc(b.notices, func(x, y Notice) int {
		if c := strings.Compare(x.File, y.File); c != 0 {
			return c
		}
		return strings.Compare(x.Text, y.Text)
	})
	return Result{Objects: objects, Files: b.tree.files(), Notices: slices.Compact(b.notices)}, nil
}

// beyond is the problem of a limit that is passed.
func (b *builder) beyond(limit *tooMuch) *flux.Problem {
	e := b.problem(limit.err)
	e.Remedy = limit.remedy
	switch {
	case limit.file == "":
	case limit.file == b.file && b.generated:
		e.File, e.Line = b.k.File, b.k.Line
	default:
		e.File, e.Line = limit.file, 0
	}
	return e
}

// problem makes an *flux.Problem of this build, placed at the kustomization file or,
// if that was generated, where the Kustomization is declared.
func (b *builder) problem(err error) *flux.Problem {
	e := &flux.Problem{Kustomization: b.k.ID, File: b.k.File, Line: b.k.Line, Err: err}
	if b.file != "" && !b.generated {
		e.File, e.Line = b.file, 0
	}
	return e
}

// run runs kustomize on the overlay and takes the objects from its result.
func (b *builder) run() (objects []flux.Object, err error) {
	b.tree.meter = meter{} // of each run: what is wrong may take several to find
	said := b.listen()
	defer func() {
		panicked := recover()
		for _, line := range said(panicked != nil) {
			b.notices = append(b.notices, Notice{Code: "kustomize", File: b.file, Text: oneLine(line)})
		}
		switch panicked.(type) {
		case needsToBeAlone, *tooMuch:
			panic(panicked)
		}
		if panicked != nil {
			err = fmt.Errorf("recovered from kustomize build panic: %v", panicked)
		}
	}()
	kustomizer := krusty.MakeKustomizer(&krusty.Options{
		Reorder:          krusty.ReorderOptionNone,
		LoadRestrictions: kustypes.LoadRestrictionsNone,   // S2.33
		PluginConfig:     kustypes.DisabledPluginConfig(), // S2.31
	})
	built, err := kustomizer.Run(b.tree, path.Join(mount, b.k.Path()))
	if err != nil {
		return nil, err
	}
	return b.objects(built)
}

// objects reads the result of a build as Flux reads the text of one.
func (b *builder) objects(built resmap.ResMap) ([]flux.Object, error) {
	resources := built.Resources()
	files := make([]string, len(resources))
	for i, r := range resources {
		origin, err := r.GetOrigin()
		if err != nil {
			return nil, fmt.Errorf("origin of %s: %w", r.CurId(), err)
		}
		files[i] = b.origin(origin)
	}
	if !slices.Contains(b.metadata, kustypes.OriginAnnotations) {
		// What kustomize itself does when nobody asked for them, so that
		// not even an empty map stays behind.
		if err := built.RemoveOriginAnnotations(); err != nil {
			return nil, fmt.Errorf("removing origin annotations: %w", err)
		}
	}
	var objects []flux.Object
	for i, r := range resources {
		decoded, err := decode(r)
		if err != nil {
			return nil, &unreadableObject{file: files[i], err: err}
		}
		for _, o := range decoded {
			objects = append(objects, flux.Object{Unstructured: o, File: files[i]})
		}
	}
	return objects, nil
}

// origin turns kustomize's idea of where an object is from into a path of the
// tree; "" for objects of remote bases.
func (b *builder) origin(o *resource.Origin) string {
	if o == nil || o.Repo != "" {
		return ""
	}
	name := o.Path
	if o.ConfiguredIn != "" {
		name = o.ConfiguredIn
	}
	if name == "" {
		return ""
	}
	name = path.Join(b.k.Path(), name)
	if name == b.file && b.generated {
		// The file exists only for this build: what is in it stands in
		// the Kustomization.
		return b.k.File
	}
	if _, ok := b.tree.content[name]; !ok {
		return ""
	}
	return name
}

// exact runs the build as Flux would, with no origin annotations that nobody
// asked for, and gives its objects the files of the first run.
func (b *builder) exact(manifest kustypes.Kustomization, known []flux.Object) ([]flux.Object, error) {
	if err := b.write(manifest, false); err != nil {
		return nil, err
	}
	objects, err := b.run()
	if err != nil {
		return nil, err
	}
	files := map[flux.Ref]string{}
	for _, o := range known {
		files[o.Ref()] = o.File
	}
	for i := range objects {
		objects[i].File = files[objects[i].Ref()]
		if objects[i].File == "" && len(known) == len(objects) {
			objects[i].File = known[i].File
		}
	}
	return objects, nil
}

// touchesOrigin finds text by which a build can see the annotations that are
// there only for us: JSON patches and field paths that reach for them, and
// selectors.
var touchesOrigin = regexp.MustCompile(`(?m)/metadata/annotations|metadata\.annotations|annotationSelector|/metadata["'\s,}]|\bmetadata["']?\s*$|metadata/annotations`)

// renamed notes Namespaces that got the name of the build's namespace, since the
// ones of their own names are pruned then, with all that is in them (S2.21).
func (b *builder) renamed(namespace string, objects []flux.Object) {
	for _, o := range objects {
		if namespace == "" || o.GetKind() != "Namespace" || o.GetAPIVersion() != "v1" || o.GetName() != namespace {
			continue
		}
		docs, _ := documents(b.tree.content[o.File]) // what is not there holds none
		var own []string
		for _, d := range docs {
			if scalar(d, "kind") == "Namespace" {
				own = append(own, scalar(child(d, "metadata"), "name"))
			}
		}
		if len(own) == 0 || slices.Contains(own, namespace) {
			continue
		}
		b.notices = append(b.notices, Notice{
			Code:   "renamed-namespace",
			Object: o.Ref().String(),
			File:   o.File,
			Text: fmt.Sprintf("the target namespace %q renames the Namespace that the file calls %s, as in Flux; if that one is live it will be pruned, with all that is in it",
				namespace, strings.Join(own, ", ")),
			Hint: "keep Namespaces in a Kustomization without targetNamespace",
		})
	}
}

// originMatters reports whether the annotations added for us may have changed
// what the build does. With any buildMetadata of the user's, kustomize adds
// them while it works in any case. Manifests cannot see annotations; only what
// works on them can, and that is in all other files.
func (b *builder) originMatters(manifest kustypes.Kustomization, objects []flux.Object) bool {
	if len(b.metadata) > 0 {
		return false
	}
	//lint:ignore SA1019 Flux fills the deprecated field, so it is read here
	for _, p := range slices.Concat(manifest.Patches, manifest.PatchesJson6902) {
		if touchesOrigin.MatchString(p.Patch) || p.Target != nil && p.Target.AnnotationSelector != "" {
			return true
		}
	}
	manifests := map[string]bool{}
	for _, o := range objects {
		manifests[o.File] = !slices.Contains(kustomizationFiles, path.Base(o.File))
	}
	for name, data := range b.tree.content {
		if !manifests[name] && touchesOrigin.Match(data) {
			return true
		}
	}
	return false
}

// kustomizationFiles are the names of kustomization files, in the order in
// which they are looked for (S2.1).
var kustomizationFiles = []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}
