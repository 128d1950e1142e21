package flux

import (
	"path"
	"slices"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
)

// Kinds and groups of Flux's API that a run must tell apart.
const (
	// Group is the API group of Kustomizations, and the prefix of the
	// owner labels and of the markers (S4.1, S4.25).
	Group = "kustomize.toolkit.fluxcd.io"
	// SourceGroup is the API group of GitRepository and its siblings.
	SourceGroup = "source.toolkit.fluxcd.io"
	// GroupSuffix ends the name of every API group of Flux.
	GroupSuffix = ".toolkit.fluxcd.io"
	// KustomizationKind is the kind that sluice runs.
	KustomizationKind = "Kustomization"

	// NameLabel and NamespaceLabel are the owner labels (S4.1). Pruning
	// deletes only what carries both (S5.8).
	NameLabel      = Group + "/name"
	NamespaceLabel = Group + "/namespace"

	// FieldManager is the manager of every server-side apply (S4.21). It
	// is Flux's own, so that a cluster can be handed over both ways.
	FieldManager = "kustomize-controller"
)

// SourceKinds are the kinds that a sourceRef can name (S1.2). sluice resolves
// objects of these kinds and neither applies nor deletes them.
var SourceKinds = []string{"GitRepository", "OCIRepository", "Bucket", "ExternalArtifact"}

// IsSource reports whether an object is of one of SourceKinds.
func IsSource(r Ref) bool { return r.Group == SourceGroup && slices.Contains(SourceKinds, r.Kind) }

// minTimeout is the least that Flux waits for health, whatever the spec
// says (S8.1).
const minTimeout = 30 * time.Second

// Kustomization is one Flux Kustomization as a run sees it: decoded,
// checked, with its namespace known.
type Kustomization struct {
	ID

	// APIVersion is the version it was written in; the spec is v1's in
	// any case (S1.17).
	APIVersion string

	Labels      map[string]string
	Annotations map[string]string

	// Spec is the specification with the defaults of the CRD filled in.
	Spec kustomizev1.KustomizationSpec

	// Extra holds what v1's types have no field for.
	Extra Extra

	// Open are the variables that were left in its manifest as they are;
	// see [Object].
	Open []string

	// Parent is the Kustomization whose build holds this one; zero for
	// the root of a run.
	Parent ID

	// File and Line say where it is declared: a path in the tree and the
	// first line of the document there. They are "" and 0 when unknown
	// (a root without a manifest of its own).
	File string
	Line int
}

// Extra holds fields that are not part of Flux's v1 API but that sluice
// understands.
type Extra struct {
	// ConfigMapGenerator is an extension (S14.1): kustomize's generator,
	// written in the Kustomization's spec as the entries would stand in a
	// kustomization.yaml. Flux refuses the field.
	ConfigMapGenerator []map[string]any

	// PatchesStrategicMerge and PatchesJSON6902 are v1beta2's (S1.18,
	// S1.19); they are set only for objects of v1beta1 and v1beta2.
	PatchesStrategicMerge []map[string]any
	PatchesJSON6902       []map[string]any
}

// Source names the source object of a Kustomization. It is comparable.
type Source struct {
	Kind      string
	Namespace string
	Name      string
}

// String returns "Kind/namespace/name".
func (s Source) String() string { return s.Kind + "/" + s.Namespace + "/" + s.Name }

// Source returns the source with the namespace defaulted to the
// Kustomization's own (S1.6).
func (k *Kustomization) Source() Source {
	ref := k.Spec.SourceRef
	s := Source{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
	if s.Namespace == "" {
		s.Namespace = k.Namespace
	}
	return s
}

// Path returns the folder of the build, relative to the root of the source:
// slash-separated, without "./", and never above the root (S1.8). The root
// itself is ".".
func (k *Kustomization) Path() string { return CleanPath(k.Spec.Path) }

// CleanPath makes "./a", "/a", "a/" and "a" the same, and ends "../.." at
// the root, which is "." (S1.8).
func CleanPath(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if p == "" {
		return "."
	}
	return p
}

// Dependencies returns what the Kustomization depends on, in the order of
// the spec, namespaces defaulted (S7.2).
func (k *Kustomization) Dependencies() []ID {
	ids := make([]ID, 0, len(k.Spec.DependsOn))
	for _, d := range k.Spec.DependsOn {
		id := ID{Namespace: d.Namespace, Name: d.Name}
		if id.Namespace == "" {
			id.Namespace = k.Namespace
		}
		ids = append(ids, id)
	}
	return ids
}

// Timeout returns how long health is waited for: spec.timeout, else the
// interval less 30 seconds, and never under 30 seconds (S8.1).
func (k *Kustomization) Timeout() time.Duration {
	timeout := k.Spec.Interval.Duration - 30*time.Second
	if k.Spec.Timeout != nil {
		timeout = k.Spec.Timeout.Duration
	}
	return max(timeout, minTimeout)
}

// RetryInterval returns the pause before another attempt, and false if the
// spec sets none. (Flux would then take the interval, S8.4; a job has no
// such time, so the caller chooses.)
func (k *Kustomization) RetryInterval() (time.Duration, bool) {
	if k.Spec.RetryInterval == nil {
		return 0, false
	}
	return k.Spec.RetryInterval.Duration, true
}
