// Package proof tells without a request whether the apply of an object would
// leave it as it is.
//
// A proof needs the manifest as it would be applied, the object as the server
// has it, and the managed fields of the latter. It holds that
//
//   - the manager's last apply set exactly the fields that the manifest has;
//   - to merge the manifest into the object, as server-side apply does, gives
//     the object itself, or something that the server stores as the object;
//   - there is nothing to take over or clean up (S4.24).
//
// The first two are looked at twice. [Literal] needs no schema: the managed
// fields themselves show what is merged and what is replaced, and kinds that
// Kubernetes has built in are known to the program ([settle]). What stays
// doubtful is for [BySchema], which repeats the server's own merge with the
// types of its OpenAPI. What neither of them proves, the server has to be
// asked.
//
// All functions are pure: they change no argument and are safe for concurrent
// use.
package proof

import (
	"encoding/json"
	"slices"

	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/utils"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Verdict says how much is known about an apply.
type Verdict int

// The verdicts.
const (
	// Open: the object changes, or only the server can tell.
	Open Verdict = iota
	// Doubtful: nothing is known to change, and the schema of the kind may
	// show that nothing does.
	Doubtful
	// Unchanged: the apply would change nothing.
	Unchanged
)

// Rules say how objects are applied.
type Rules struct {
	// SSA are markers and clean-up.
	SSA ssa.ApplyOptions
	// Manager is the field manager.
	Manager string
}

// claim is what an apply is compared with: the fields that it sets, and those
// that the manager's last apply has set.
type claim struct {
	// want is the manifest without what says which object it is: nobody owns
	// that.
	want map[string]any
	// status is that of a definition's manifest, which the server does not
	// set but reads all the same; nil if there is none.
	status any
	// owned is the managed fields entry, raw and decoded.
	raw   []byte
	owned map[string]any
}

// claim returns false if there cannot be a proof.
func (r Rules) claim(desired, live *unstructured.Unstructured) (*claim, bool) {
	switch {
	case live.GetDeletionTimestamp() != nil:
		return nil, false // it will be gone, whatever it holds now
	case utils.AnyInMetadata(desired, r.SSA.ExclusionSelector), utils.AnyInMetadata(live, r.SSA.ExclusionSelector),
		utils.AnyInMetadata(desired, r.SSA.IfNotPresentSelector):
		return nil, false // skipped, which needs no proof
	case r.SSA.MigrateAPIVersion && needsMigration(desired, live), r.needsCleanup(desired, live):
		return nil, false
	}
	c := &claim{}
	var ok bool
	if c.raw, ok = ownEntry(live, desired.GetAPIVersion(), r.Manager); !ok {
		return nil, false
	}
	if c.owned, ok = decode(c.raw); !ok {
		return nil, false
	}
	if c.want, ok = withoutIdentity(desired); !ok {
		return nil, false
	}
	if _, kept := c.owned["f:status"]; !kept && utils.IsCRD(desired) {
		// The server ignores a CRD's status outside its subresource, and
		// normalisation keeps it (S4.6).
		c.status = c.want["status"]
		delete(c.want, "status")
	}
	return c, true
}

// needsMigration reports whether any managed fields are of another version.
func needsMigration(desired, live *unstructured.Unstructured) bool {
	return slices.ContainsFunc(live.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool {
		return e.APIVersion != desired.GetAPIVersion()
	})
}

// needsCleanup reports whether the apply would first clean up metadata.
func (r Rules) needsCleanup(desired, live *unstructured.Unstructured) bool {
	c := r.SSA.Cleanup
	if utils.AnyInMetadata(desired, c.Exclusions) || utils.AnyInMetadata(live, c.Exclusions) {
		return false
	}
	if len(ssa.PatchRemoveAnnotations(live, c.Annotations)) > 0 || len(ssa.PatchRemoveLabels(live, c.Labels)) > 0 {
		return true
	}
	patch, err := ssa.PatchReplaceFieldsManagers(live, c.FieldManagers, r.Manager)
	return err != nil || len(patch) > 0
}

// OwnedFields returns the fields that the manager's last apply has set, as
// FieldsV1 has them. It returns false if there is not one entry of the manager,
// from an apply in that version of the kind.
func OwnedFields(live *unstructured.Unstructured, apiVersion, manager string) (map[string]any, bool) {
	raw, ok := ownEntry(live, apiVersion, manager)
	if !ok {
		return nil, false
	}
	return decode(raw)
}

func decode(fields []byte) (map[string]any, bool) {
	var decoded map[string]any
	err := json.Unmarshal(fields, &decoded)
	return decoded, err == nil
}

func ownEntry(live *unstructured.Unstructured, apiVersion, manager string) ([]byte, bool) {
	var own *metav1.ManagedFieldsEntry
	for _, e := range live.GetManagedFields() {
		if e.Manager != manager || e.Subresource != "" {
			continue
		}
		if own != nil || e.Operation != metav1.ManagedFieldsOperationApply || e.APIVersion != apiVersion || e.FieldsV1 == nil {
			return nil, false
		}
		own = &e
	}
	if own == nil {
		return nil, false
	}
	return own.FieldsV1.GetRawBytes(), true
}

// systemFields of metadata are the server's. An apply that sets one makes a
// condition of it, or is refused.
var systemFields = []string{"uid", "resourceVersion", "generation", "selfLink", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds"}

// withoutIdentity returns the content of an object without the fields that say
// which it is, and false if it sets what is not its to set. The maps above what
// is left are new.
func withoutIdentity(o *unstructured.Unstructured) (map[string]any, bool) {
	out := map[string]any{}
	for key, value := range o.Object {
		switch key {
		case "apiVersion", "kind":
		case "metadata":
			all, _ := value.(map[string]any)
			rest := map[string]any{}
			for k, v := range all {
				if slices.Contains(systemFields, k) {
					return nil, false
				}
				if k != "name" && k != "namespace" && k != "creationTimestamp" {
					rest[k] = v
				}
			}
			if len(rest) > 0 {
				out[key] = rest
			}
		default:
			out[key] = value
		}
	}
	return out, true
}
