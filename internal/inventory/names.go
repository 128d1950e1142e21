package inventory

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluicerun/sluice/internal/flux"
)

// Labels and annotations of everything that sluice keeps in the state namespace.
const (
	// ManagedByLabel with the value ManagedBy is on every record, so that one LIST finds them all.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagedBy      = "sluice"
	// KindLabel tells a Kustomization's record from a root's.
	KindLabel         = "sluice.run/record"
	KindKustomization = "kustomization"
	KindRoot          = "root"
	// KindPart is a part of a Kustomization's inventory.
	KindPart = "part"
	// RootLabel holds RootLabelValue of the root, so that one LIST finds the records of a root.
	RootLabel = "sluice.run/root"
	// IDAnnotation and RootAnnotation hold "namespace/name" of the Kustomization and of its root; names may be too long
	// for labels.
	IDAnnotation   = "sluice.run/id"
	RootAnnotation = "sluice.run/root-id"
)

// RecordName returns the name of the ConfigMap that holds a Kustomization's record: "sluice.<namespace>.<name>", which is
// unambiguous because a namespace has no dot. Where that would be no valid name, too long for instance, a hash takes its place.
// Different ids always have different names.
func RecordName(id flux.ID) string { return objectName("sluice", id) }

// RootName returns the name of the ConfigMap that holds a root's record, and of the root's Lease: "sluice-root.<namespace>.<name>",
// hashed as RecordName does. It is never a RecordName.
func RootName(root flux.ID) string { return objectName("sluice-root", root) }

func objectName(prefix string, id flux.ID) string {
	plain := prefix + "." + id.Namespace + "." + id.Name
	if len(validation.IsDNS1123Label(id.Namespace)) == 0 && len(validation.IsDNS1123Subdomain(plain)) == 0 {
		return plain
	}
	return hashedName(prefix, id)
}

// hashedName has another prefix than the plain one: no Kustomization's name can collide with a hash.
func hashedName(prefix string, id flux.ID) string { return prefix + "-hash." + hash(id, 40) }

// kindOf tells by its name what a ConfigMap is a record of; empty if it is not named as one.
func kindOf(name string) string {
	prefix, _, _ := strings.Cut(name, ".")
	switch prefix {
	case "sluice", "sluice-hash":
		return KindKustomization
	case "sluice-root", "sluice-root-hash":
		return KindRoot
	}
	return ""
}

// RootLabelValue returns the value of RootLabel: "<namespace>_<name>", or the beginning of that and a hash where it is too long
// or not allowed in a label. Different ids have different values: only a hash follows two underscores.
func RootLabelValue(root flux.ID) string {
	plain := root.Namespace + "_" + root.Name
	if len(validation.IsDNS1123Label(root.Namespace)) == 0 && len(validation.IsDNS1123Subdomain(root.Name)) == 0 &&
		len(plain) <= validation.LabelValueMaxLength {
		return plain
	}
	readable := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		}
		return '-'
	}, strings.ToLower(plain))
	return "h" + readable[:min(len(readable), 30)] + "__" + hash(root, 28)
}

// hash is over both parts with a separator that neither can hold.
func hash(id flux.ID, length int) string {
	sum := sha256.Sum256([]byte(id.Namespace + "\x00" + id.Name))
	return hex.EncodeToString(sum[:])[:length]
}
