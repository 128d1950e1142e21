package discover

import (
	"cmp"
	"slices"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluicerun/sluice/internal/flux"
)

// bootstrapName is what flux bootstrap calls its source and its Kustomization.
const bootstrapName = "flux-system"

// SelfReference returns the Kustomization of a root's build that builds the
// entry folder itself, as flux bootstrap makes it; nil if there is none. Its
// spec is the root's. The path is the entry folder, in any of the forms of
// S1.8. Of several, the one that flux bootstrap makes wins, then the first by
// id.
func SelfReference(found Found, path string) *flux.Kustomization {
	var self []*flux.Kustomization
	for _, k := range found.Kustomizations {
		if k.Path() == flux.CleanPath(path) {
			self = append(self, k)
		}
	}
	if len(self) == 0 {
		return nil
	}
	return slices.MinFunc(self, func(a, b *flux.Kustomization) int {
		rank := func(k *flux.Kustomization) int {
			if k.Name == bootstrapName {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.String(), b.String()))
	})
}

// DefaultRoot returns the Kustomization of an entry folder that has none of
// its own: it prunes, and its name is made of the path, such as
// clusters-production; "root" for the root of the repository.
func DefaultRoot(path, namespace string) *flux.Kustomization {
	clean := flux.CleanPath(path)
	k := &flux.Kustomization{
		ID:         flux.ID{Namespace: namespace, Name: rootName(clean)},
		APIVersion: flux.Group + "/" + stableVersion,
	}
	if clean == "." {
		clean = ""
	}
	k.Spec = kustomizev1.KustomizationSpec{
		Interval:  metav1.Duration{Duration: time.Hour},
		Path:      "./" + clean,
		Prune:     true,
		SourceRef: kustomizev1.CrossNamespaceSourceReference{Kind: "GitRepository", Name: bootstrapName, Namespace: namespace},
	}
	return k
}

// maxName is the length of a DNS label, which a label's value must not exceed
// either: the name becomes the value of the owner label (S4.1).
const maxName = 63

// rootName makes a DNS label of a path. What a name cannot hold becomes "-".
func rootName(path string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(path) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			b.WriteRune(c)
		} else if s := b.String(); s != "" && s[len(s)-1] != '-' {
			b.WriteByte('-')
		}
	}
	name := b.String()
	if len(name) > maxName {
		// The end of a path tells more than its beginning.
		name = name[len(name)-maxName:]
	}
	if name = strings.Trim(name, "-"); name == "" {
		return "root"
	}
	return name
}
