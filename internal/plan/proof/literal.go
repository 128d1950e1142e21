package proof

import (
	"encoding/json"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Literal compares manifest, managed fields and object as they are written. It
// is the cheap proof: no request, no schema.
//
// Whoever changes a field that an applier owns takes it away from that entry,
// so where the entry covers exactly the manifest's fields, all that is left to
// see is whether the values are the manifest's.
func Literal(desired, live *unstructured.Unstructured, r Rules) Verdict {
	c, ok := r.claim(desired, live)
	if !ok {
		return Open
	}
	w := &walker{empties: granularEmpty[desired.GroupVersionKind().GroupKind()]}
	verdict := w.compare(c, nil, live)
	if verdict == Doubtful {
		// What the server makes of a built-in kind costs a little to find
		// out, so only now.
		if settled, ok := settle(desired.GroupVersionKind(), desired.Object); ok {
			verdict = w.compare(c, settled, live)
		}
	}
	if verdict == Unchanged && !emptyStatus(c.status) {
		return Doubtful
	}
	return verdict
}

// emptyStatus reports whether the status of a definition's manifest is none, or
// the empty one that generators write.
func emptyStatus(status any) bool {
	known := map[string][]string{"acceptedNames": {"kind", "plural"}, "conditions": nil, "storedVersions": nil}
	fields, ok := status.(map[string]any)
	for field, value := range fields {
		names, isKnown := known[field]
		if !isKnown || !isZero(value) {
			return false
		}
		parts, _ := value.(map[string]any)
		for name := range parts {
			if !slices.Contains(names, name) {
				return false
			}
		}
	}
	return ok || status == nil
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

// walker goes through a manifest along the managed fields. The keys of those
// are "f:<field>", "k:<keys of a list's item>", "v:<value of a set>", and "."
// for the item itself.
//
// Its methods return false as soon as something cannot be as it was applied,
// and note a doubt where the literal look does not tell.
type walker struct {
	empties []string
	// settled is set if it is known what the server makes of the manifest.
	settled bool
	doubt   bool
}

// none stands for a value that is not there, as null is one that is.
type none struct{}

func (w *walker) compare(c *claim, settled map[string]any, live *unstructured.Unstructured) Verdict {
	w.doubt, w.settled = false, settled != nil
	var canon any = none{}
	if w.settled {
		canon = settled
	}
	switch ok := len(c.want) > 0 && w.covers(nil, c.want, canon, live.Object, c.owned); {
	case !ok:
		return Open
	case w.doubt:
		return Doubtful
	}
	return Unchanged
}

// doubtful notes a doubt.
func (w *walker) doubtful() bool {
	w.doubt = true
	return true
}

// covers compares one value. settled is what the server is known to make of
// want; [none] where that is not known, or where it leaves it out.
func (w *walker) covers(path []string, want, settled, have any, owned map[string]any) bool {
	if len(owned) == 0 {
		return w.leaf(path, want, settled, have)
	}
	switch want := want.(type) {
	case map[string]any:
		haveMap, ok := have.(map[string]any)
		if !ok {
			return w.doubtful()
		}
		return w.fields(path, want, settled, haveMap, owned)
	case []any:
		haveList, ok := have.([]any)
		switch {
		case !ok:
			return w.doubtful()
		case len(want) != len(owned):
			return false
		}
		for key := range owned {
			if strings.HasPrefix(key, "v:") {
				return w.set(want, haveList, owned)
			}
			break
		}
		return w.items(path, want, settled, haveList, owned)
	}
	return false
}

// fields compares maps. Where the server has no schema, an entry names the map
// itself beside its fields; to own that adds nothing to owning the fields.
func (w *walker) fields(path []string, want map[string]any, settled any, have, owned map[string]any) bool {
	fields := len(owned)
	if _, itself := owned["."]; itself {
		fields--
	}
	if fields == 0 || len(want) != fields {
		return false
	}
	for field, value := range want {
		sub, ok := owned["f:"+field].(map[string]any)
		if !ok || !w.covers(append(slices.Clip(path), field), value, at(settled, field), at(have, field), sub) {
			return false
		}
	}
	return true
}

// at returns a field of what is a map, and none for one that is not there.
func at(of any, field string) any {
	if m, ok := of.(map[string]any); ok {
		if v, ok := m[field]; ok {
			return v
		}
	}
	return none{}
}

// set is for lists whose items are their own keys.
func (w *walker) set(want, have []any, owned map[string]any) bool {
	next := 0
	for _, value := range want {
		key, err := json.Marshal(value)
		if err != nil {
			return false
		}
		if _, ok := owned["v:"+string(key)]; !ok {
			return false
		}
		i := indexFrom(have, next, func(v any) bool { return EqualJSON(v, value) })
		if i < 0 {
			return false
		}
		next = i + 1
	}
	return true
}

// items is for lists whose items have keys, such as containers by name. Each
// owned key must be that of one desired item; the live items of these keys must
// come in the same order. A key that the manifest leaves to its default is more
// than a literal look can tell.
func (w *walker) items(path []string, want []any, settled any, have []any, owned map[string]any) bool {
	next := 0
	used := map[string]bool{}
	settledItems, _ := settled.([]any)
	for n, value := range want {
		item, ok := value.(map[string]any)
		if !ok {
			return w.doubtful()
		}
		name, keys, ok := itemKey(item, owned)
		if !ok || used[name] {
			return w.doubtful()
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
		var settledItem any = none{}
		if len(settledItems) == len(want) {
			settledItem = settledItems[n]
		}
		if !w.fields(append(slices.Clip(path), "[]"), item, settledItem, have[i].(map[string]any), sub) {
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
		if got, ok := item[k]; !ok || !EqualJSON(got, v) {
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

// leaf compares what server-side apply sets as a whole.
func (w *walker) leaf(path []string, want, settled, have any) bool {
	if m, ok := want.(map[string]any); ok && len(m) == 0 && slices.Contains(w.empties, strings.Join(path, ".")) {
		if _, ok := have.(map[string]any); ok {
			return true
		}
	}
	_, absent := have.(none)
	switch {
	case want != nil && EqualJSON(want, have):
		return true
	case w.settled && equalSettled(settled, have): // also if neither is there
		return true
	case absent:
		have = nil
	}
	return mayBecome(want, have) && w.doubtful()
}
