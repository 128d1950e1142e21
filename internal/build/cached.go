package build

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"

	"github.com/sluicerun/sluice/internal/flux"
)

// Cache keeps what builds gave. It must be safe for concurrent use.
type Cache interface {
	// Find offers what was kept under a key to take, until it accepts one
	// and Find returns true. An error of take says that an entry is damaged.
	Find(key []byte, take func(head, body []byte) (bool, error)) bool
	// Keep stores a body under a key and a head. It does not hold on to them.
	Keep(key, head, body []byte)
}

// Of a cached build the key is what shapes it besides its tree, the head is what
// it asked of the tree, and the body is its result. It is what the build gave
// before variables, so that no variable, and nothing of the cluster, is in it.
//
// Only what succeeded is kept, and only what the tree alone decides on: no build
// that fetches something.

// format is the version of head and body.
const format = "1"

// shape returns what of a Kustomization the build may look at. Nothing else gets
// to it, so nothing else can change what it gives.
func shape(k *flux.Kustomization) *flux.Kustomization {
	return &flux.Kustomization{
		ID:   k.ID,
		File: k.File,
		Line: k.Line,
		Spec: kustomizev1.KustomizationSpec{
			Path:                    k.Spec.Path,
			SourceRef:               k.Spec.SourceRef,
			TargetNamespace:         k.Spec.TargetNamespace,
			NamePrefix:              k.Spec.NamePrefix,
			NameSuffix:              k.Spec.NameSuffix,
			Patches:                 k.Spec.Patches,
			Images:                  k.Spec.Images,
			Components:              k.Spec.Components,
			IgnoreMissingComponents: k.Spec.IgnoreMissingComponents,
			BuildMetadata:           k.Spec.BuildMetadata,
		},
		Extra: k.Extra,
	}
}

// key says what a build is of, but for its tree.
func key(k *flux.Kustomization, options Options) ([]byte, error) {
	k = shape(k)
	k.Line = 0 // only failures have it
	return json.Marshal(struct {
		Format, Program string
		Kustomization   *flux.Kustomization
		NoRemoteBases   bool
	}{format, options.Program, k, options.NoRemoteBases})
}

// stored is the body of an entry.
type stored struct {
	Took time.Duration `json:"took"`
	// Content and File are of each object.
	Content []map[string]any `json:"content"`
	File    []string         `json:"file"`
	Files   []string         `json:"files"`
	Notices []Notice         `json:"notices"`
}

// recall returns the result that an earlier run kept, if the tree still gives the
// answers that it came from.
func (b *builder) recall() (result Result, ok bool) {
	if b.options.Cache == nil {
		return Result{}, false
	}
	key, err := key(b.k, b.options)
	if err != nil {
		return Result{}, false // it is not kept either
	}
	tree := b.source
	if p, ok := tree.(interface{ Peek() fs.FS }); ok {
		tree = p.Peek() // of an entry that does not fit, nothing shall be seen
	}
	var looks []look
	found := b.options.Cache.Find(key, func(head, body []byte) (bool, error) {
		looks = nil
		if err := direct.Unmarshal(head, &looks); err != nil {
			return false, fmt.Errorf("its head cannot be read: %w", err)
		}
		if !same(tree, looks) {
			return false, nil
		}
		result, err = unstore(body)
		return err == nil, err
	})
	if !found {
		return Result{}, false
	}
	replay(b.source, looks)
	return result, true
}

// keep stores a result if it comes from nothing but the tree. What cannot be
// stored as it is will be built again.
func (b *builder) keep(result Result) {
	if b.options.Cache == nil || b.fetches(b.manifest) || b.asked.err != nil {
		return
	}
	key, err := key(b.k, b.options)
	if err != nil {
		return
	}
	head, err := direct.Marshal(b.asked.all())
	if err != nil {
		return
	}
	body, err := store(result)
	if err != nil {
		return
	}
	b.options.Cache.Keep(key, head, body)
}

func store(result Result) ([]byte, error) {
	s := stored{Took: result.Took, Files: result.Files, Notices: result.Notices}
	for _, o := range result.Objects {
		s.Content, s.File = append(s.Content, o.Object), append(s.File, o.File)
	}
	return direct.Marshal(s)
}

func unstore(body []byte) (Result, error) {
	var s stored
	if err := direct.Unmarshal(body, &s); err != nil {
		return Result{}, fmt.Errorf("its body cannot be read: %w", err)
	}
	if len(s.Content) != len(s.File) {
		return Result{}, fmt.Errorf("its body has %d objects from %d files", len(s.Content), len(s.File))
	}
	result := Result{Files: s.Files, Notices: s.Notices, Took: s.Took, Cached: true}
	for i, content := range s.Content {
		result.Objects = append(result.Objects, flux.Object{Unstructured: &unstructured.Unstructured{Object: content}, File: s.File[i]})
	}
	return result, nil
}
