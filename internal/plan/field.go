package plan

import (
	"slices"
	"strings"

	"github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Field is a field that differs. Old and New are values as JSON has them; nil if
// the field is not there.
type Field struct {
	Path     string
	Old, New any
}

// The masks of a Secret's values, which are Flux's own (S12.19).
const (
	masked       = "***"
	maskedBefore = "*** (before)"
	maskedAfter  = "*** (after)"
)

// finish sorts fields, each once, and masks them if the object is a Secret: all
// but its metadata and type, since data may also hold what it should not.
func finish(o *unstructured.Unstructured, fields []Field) []Field {
	slices.SortStableFunc(fields, func(a, b Field) int { return strings.Compare(a.Path, b.Path) })
	fields = slices.CompactFunc(fields, func(a, b Field) bool { return a.Path == b.Path })
	if !utils.IsSecret(o) {
		return fields
	}
	for i, f := range fields {
		if strings.HasPrefix(f.Path, "metadata.labels") || f.Path == "type" || f.Path == "immutable" {
			continue
		}
		switch {
		case f.Old != nil && f.New != nil:
			f.Old, f.New = maskedBefore, maskedAfter
		case f.Old != nil:
			f.Old = masked
		default:
			f.New = masked
		}
		fields[i] = f
	}
	return fields
}
