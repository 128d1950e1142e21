package flux

import "strings"

// PruneMarker returns the marker, as "key: value", that protects an object with
// these labels and annotations from pruning; "" if there is none. It may be a
// label or an annotation, and the case of its value does not matter (S4.25,
// S5.9).
func PruneMarker(labels, annotations map[string]string) string {
	for _, m := range []struct{ key, value string }{
		{Group + "/prune", "disabled"},
		{Group + "/reconcile", "disabled"},
		{Group + "/ssa", "ignore"},
	} {
		if strings.EqualFold(labels[m.key], m.value) || strings.EqualFold(annotations[m.key], m.value) {
			return m.key + ": " + m.value
		}
	}
	return ""
}
