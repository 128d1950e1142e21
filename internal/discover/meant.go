package discover

import (
	"fmt"
	"strings"

	"github.com/xrash/smetrics"
)

// instead says what to use for fields that people expect (S1.19).
var instead = map[string]string{
	"spec.patchesStrategicMerge": "write the patches as spec.patches; the field was part of v1beta2",
	"spec.patchesJson6902":       "write the patches as spec.patches; the field was part of v1beta2",
	"spec.validation":            "remove the field; it was part of v1beta2 and the server validates now",
	"spec.secretGenerator":       "generators belong into a kustomization.yaml",
	"spec.resources":             "resources belong into a kustomization.yaml; spec.path names its folder",
	"spec.namespace":             "the field is called targetNamespace",
}

// meant suggests the name that differs least, if one is near.
func meant(name string, names []string) string {
	if len(name) > 100 {
		return "" // no field has such a name, nor one like it
	}
	best, least := "", max(2, len(name)/3)+1
	for _, n := range names {
		d := smetrics.WagnerFischer(strings.ToLower(name), strings.ToLower(n), 1, 1, 1)
		if d < least {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}
