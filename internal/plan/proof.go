package plan

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/utils"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// provenUnchanged reports whether an apply of desired would change nothing, as
// far as that can be told without the server and without its schemas. It says
// true only if all of this holds:
//
//   - the manager's last apply set exactly the fields that desired has: its
//     entry in the managed fields covers every field of desired and no other;
//   - each of these fields has the desired value in the live object, literally,
//     in lists also in the desired order;
//   - there is nothing to take over or clean up (S4.24).
//
// Whoever changes a field that an applier owns takes it away from that entry,
// so what the first two miss between them is only a value that the server
// writes differently from the manifest (a quantity "1000m", which it keeps as
// "1"). That, and everything else that is not plain, is not proven: then the
// server's dry run decides.
func provenUnchanged(desired, live *unstructured.Unstructured, o ssa.ApplyOptions, manager string) bool {
	switch {
	case live.GetDeletionTimestamp() != nil:
		return false // it will be gone, whatever it holds now
	case utils.AnyInMetadata(desired, o.ExclusionSelector), utils.AnyInMetadata(live, o.ExclusionSelector),
		utils.AnyInMetadata(desired, o.IfNotPresentSelector):
		return false // skipped, which needs no proof
	case o.MigrateAPIVersion && needsMigration(desired, live), needsCleanup(desired, live, o, manager):
		return false
	}
	owned, ok := ownFields(live, desired.GetAPIVersion(), manager)
	if !ok {
		return false
	}
	want := withoutIdentity(desired)
	if _, kept := owned["f:status"]; !kept && utils.IsCRD(desired) {
		// The server ignores a CRD's status outside its subresource, and
		// normalisation keeps it (S4.6).
		delete(want, "status")
	}
	fillDefaults(desired.GroupVersionKind().GroupKind(), want, live.Object)
	return covers(granularEmpty[desired.GroupVersionKind().GroupKind()], nil, want, live.Object, owned)
}

// needsMigration reports whether any managed fields are of another version.
func needsMigration(desired, live *unstructured.Unstructured) bool {
	return slices.ContainsFunc(live.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool {
		return e.APIVersion != desired.GetAPIVersion()
	})
}

// needsCleanup reports whether the apply would first clean up metadata.
func needsCleanup(desired, live *unstructured.Unstructured, o ssa.ApplyOptions, manager string) bool {
	c := o.Cleanup
	if utils.AnyInMetadata(desired, c.Exclusions) || utils.AnyInMetadata(live, c.Exclusions) {
		return false
	}
	if len(ssa.PatchRemoveAnnotations(live, c.Annotations)) > 0 || len(ssa.PatchRemoveLabels(live, c.Labels)) > 0 {
		return true
	}
	patch, err := ssa.PatchReplaceFieldsManagers(live, c.FieldManagers, manager)
	return err != nil || len(patch) > 0
}

// ownFields returns what the manager's one apply entry holds, if it is of the
// version that is applied.
func ownFields(live *unstructured.Unstructured, apiVersion, manager string) (map[string]any, bool) {
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
	var fields map[string]any
	if err := json.Unmarshal(own.FieldsV1.GetRawBytes(), &fields); err != nil {
		return nil, false
	}
	return fields, true
}

// withoutIdentity returns the content of an object without the fields that say
// which it is: nobody owns these.
func withoutIdentity(o *unstructured.Unstructured) map[string]any {
	out := map[string]any{}
	for key, value := range o.Object {
		switch key {
		case "apiVersion", "kind":
		case "metadata":
			all, _ := value.(map[string]any)
			rest := map[string]any{}
			for k, v := range all {
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
	return out
}

// granularEmpty are fields that normalisation leaves behind empty (S4.2) and
// that the server fills with defaults. To apply {} to them sets nothing,
// because server-side apply merges their content. For a field that it replaces
// as a whole that would not hold, so they are listed, not guessed.
var granularEmpty = map[schema.GroupKind][]string{
	{Group: "apps", Kind: "Deployment"}:  {"spec.strategy"},
	{Group: "apps", Kind: "StatefulSet"}: {"spec.updateStrategy"},
	{Group: "apps", Kind: "DaemonSet"}:   {"spec.updateStrategy"},
	{Group: "batch", Kind: "Job"}:        {"spec.template.metadata"},
	{Kind: "Namespace"}:                  {"spec"},
}

// fillDefaults puts in what the server makes of two fields that it keeps
// otherwise than they are applied, and that are in almost every repository. It
// does so only where the live object says the same, so that for any other
// default nothing is proven. want is changed, but nothing that it shares with
// the desired object.
//
//   - A Service's port without a targetPort, which normalisation writes as 0
//     (S4.2), becomes the port's own number.
//   - The volume claim templates of a StatefulSet, which are applied as a whole,
//     become complete claims.
func fillDefaults(kind schema.GroupKind, want, have map[string]any) {
	spec, _ := want["spec"].(map[string]any)
	haveSpec, _ := have["spec"].(map[string]any)
	field, fill := "", func(item, live map[string]any) {}
	switch kind {
	case schema.GroupKind{Kind: "Service"}:
		field, fill = "ports", func(port, live map[string]any) {
			if port["targetPort"] == int64(0) && live["port"] == port["port"] && live["protocol"] == port["protocol"] {
				port["targetPort"] = port["port"]
			}
		}
	case schema.GroupKind{Group: "apps", Kind: "StatefulSet"}:
		field, fill = "volumeClaimTemplates", fillClaim
	}
	list, _ := spec[field].([]any)
	live, _ := haveSpec[field].([]any)
	if len(list) == 0 || len(list) != len(live) {
		return
	}
	filled := make([]any, len(list))
	for i := range list {
		item, ok := runtime.DeepCopyJSONValue(list[i]).(map[string]any)
		liveItem, liveOK := live[i].(map[string]any)
		if !ok || !liveOK {
			return
		}
		fill(item, liveItem)
		filled[i] = item
	}
	copied := maps.Clone(spec)
	copied[field] = filled
	want["spec"] = copied
}

func fillClaim(claim, live map[string]any) {
	set := func(m map[string]any, key string, value any) {
		if _, given := m[key]; !given {
			m[key] = value
		}
	}
	set(claim, "apiVersion", "v1")
	set(claim, "kind", "PersistentVolumeClaim")
	if spec, ok := claim["spec"].(map[string]any); ok {
		set(spec, "volumeMode", "Filesystem")
	}
	if status, ok := claim["status"].(map[string]any); ok {
		set(status, "phase", "Pending")
	}
	// Whether an empty time is written as null depends on the version, of the
	// server and of the library that normalised the manifest.
	meta, ok := claim["metadata"].(map[string]any)
	liveMeta, _ := live["metadata"].(map[string]any)
	if ok && meta["creationTimestamp"] == nil {
		delete(meta, "creationTimestamp")
		if null, there := liveMeta["creationTimestamp"]; there && null == nil {
			meta["creationTimestamp"] = nil
		}
	}
}

// covers reports whether the owned fields are exactly those of want, and have
// its values. The keys of owned are those of FieldsV1: "f:<field>", "k:<keys of
// a list's item>", "v:<value of a set>", and "." for the item itself.
func covers(empties []string, path []string, want, have any, owned map[string]any) bool {
	if len(owned) == 0 {
		return equalLeaf(empties, path, want, have)
	}
	switch want := want.(type) {
	case map[string]any:
		haveMap, ok := have.(map[string]any)
		return ok && coversMap(empties, path, want, haveMap, owned)
	case []any:
		haveList, ok := have.([]any)
		if !ok || len(want) != len(owned) {
			return false
		}
		for key := range owned {
			if strings.HasPrefix(key, "v:") {
				return coversSet(want, haveList, owned)
			}
			break
		}
		return coversItems(empties, path, want, haveList, owned)
	}
	return false
}

// coversMap compares maps. Where the server has no schema, an entry names the
// map itself beside its fields; to own that adds nothing to owning the fields.
func coversMap(empties []string, path []string, want, have, owned map[string]any) bool {
	fields := len(owned)
	if _, itself := owned["."]; itself {
		fields--
	}
	if fields == 0 || len(want) != fields {
		return false
	}
	for field, value := range want {
		sub, ok := owned["f:"+field].(map[string]any)
		if !ok {
			return false
		}
		liveValue, ok := have[field]
		if !ok || !covers(empties, append(slices.Clip(path), field), value, liveValue, sub) {
			return false
		}
	}
	return true
}

// coversSet is for lists whose items are their own keys.
func coversSet(want, have []any, owned map[string]any) bool {
	next := 0
	for _, value := range want {
		key, err := json.Marshal(value)
		if err != nil {
			return false
		}
		if _, ok := owned["v:"+string(key)]; !ok {
			return false
		}
		i := indexFrom(have, next, func(v any) bool { return equalJSON(v, value) })
		if i < 0 {
			return false
		}
		next = i + 1
	}
	return true
}

// coversItems is for lists whose items have keys, such as containers by name.
// Each owned key must be that of one desired item; the live items of these
// keys must come in the same order.
func coversItems(empties []string, path []string, want, have []any, owned map[string]any) bool {
	next := 0
	used := map[string]bool{}
	for _, value := range want {
		item, ok := value.(map[string]any)
		if !ok {
			return false
		}
		name, keys, ok := itemKey(item, owned)
		if !ok || used[name] {
			return false
		}
		used[name] = true
		sub, ok := owned[name].(map[string]any)
		if !ok {
			return false
		}
		matches := func(v any) bool { m, ok := v.(map[string]any); return ok && hasKeys(m, keys) }
		i := indexFrom(have, next, matches)
		if i < 0 || indexFrom(have, i+1, matches) >= 0 {
			return false
		}
		next = i + 1
		if !coversMap(empties, append(slices.Clip(path), "[]"), item, have[i].(map[string]any), sub) {
			return false
		}
	}
	return true
}

// itemKey returns the one owned key that an item has.
func itemKey(item map[string]any, owned map[string]any) (name string, keys map[string]any, ok bool) {
	for candidate := range owned {
		raw, isKey := strings.CutPrefix(candidate, "k:")
		if !isKey {
			return "", nil, false
		}
		fields := unstructured.Unstructured{}
		// Through the decoder of Unstructured, which keeps integers as such.
		if err := fields.UnmarshalJSON([]byte(`{"apiVersion":"v1","kind":"Key","key":` + raw + `}`)); err != nil {
			return "", nil, false
		}
		m, isMap := fields.Object["key"].(map[string]any)
		if !isMap || !hasKeys(item, m) {
			continue
		}
		if ok {
			return "", nil, false // two keys fit: not plain
		}
		name, keys, ok = candidate, m, true
	}
	return name, keys, ok
}

func hasKeys(item, keys map[string]any) bool {
	for k, v := range keys {
		if got, ok := item[k]; !ok || !equalJSON(got, v) {
			return false
		}
	}
	return true
}

func indexFrom(list []any, start int, fits func(any) bool) int {
	for i := start; i < len(list); i++ {
		if fits(list[i]) {
			return i
		}
	}
	return -1
}

// equalLeaf compares what server-side apply sets as a whole.
func equalLeaf(empties []string, path []string, want, have any) bool {
	if m, ok := want.(map[string]any); ok && len(m) == 0 && slices.Contains(empties, strings.Join(path, ".")) {
		_, ok := have.(map[string]any)
		return ok
	}
	return want != nil && equalJSON(want, have)
}

// equalJSON reports whether two values are the same JSON. Readers differ in
// the type that they give a whole number.
func equalJSON(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		m, ok := b.(map[string]any)
		if !ok || len(m) != len(a) {
			return false
		}
		for k, v := range a {
			if w, ok := m[k]; !ok || !equalJSON(v, w) {
				return false
			}
		}
		return true
	case []any:
		l, ok := b.([]any)
		if !ok || len(l) != len(a) {
			return false
		}
		for i := range a {
			if !equalJSON(a[i], l[i]) {
				return false
			}
		}
		return true
	case int64:
		if f, ok := b.(float64); ok {
			return sameNumber(a, f)
		}
	case float64:
		if i, ok := b.(int64); ok {
			return sameNumber(i, a)
		}
	}
	return reflect.DeepEqual(a, b)
}

// sameNumber leaves out whole numbers that a float cannot hold exactly.
func sameNumber(i int64, f float64) bool {
	const exact = 1 << 53
	return i > -exact && i < exact && float64(i) == f
}
