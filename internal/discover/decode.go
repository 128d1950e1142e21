package discover

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/flux"
)

// stableVersion is the one version that Flux still serves (S1.17).
const stableVersion = "v1"

// decode makes a Kustomization of an object, or says all that is wrong with it.
func (s *splitter) decode(o flux.Object) *flux.Kustomization {
	gvk := o.GroupVersionKind()
	beta := gvk.Version != stableVersion
	schema := stableSchema
	if beta {
		schema = betaSchema
	}
	before := len(s.problems)
	for _, f := range schema.check("", o.Object) {
		s.fail(o, f.field, f.remedy, errors.New(f.what))
	}
	for _, field := range []string{"labels", "annotations"} {
		values, _, _ := unstructured.NestedFieldNoCopy(o.Object, "metadata", field)
		for _, f := range (&schemaText).check("metadata."+field, values) {
			s.fail(o, f.field, f.remedy, errors.New(f.what))
		}
	}
	typed := true
	for _, field := range []string{"name", "namespace"} {
		value, _, _ := unstructured.NestedFieldNoCopy(o.Object, "metadata", field)
		for _, f := range anyText.check("metadata."+field, value) {
			typed = false
			s.fail(o, f.field, f.remedy, errors.New(f.what))
		}
	}
	if typed && o.GetNamespace() == "" { // S16.4, S4.48
		s.fail(o, "metadata.namespace", "set metadata.namespace, or targetNamespace in "+s.parent.String(), errors.New("namespace not specified"))
	}
	if len(s.problems) > before {
		return nil
	}
	k := &flux.Kustomization{
		ID:          flux.ID{Namespace: o.GetNamespace(), Name: o.GetName()},
		APIVersion:  o.GetAPIVersion(),
		Labels:      o.GetLabels(),
		Annotations: o.GetAnnotations(),
		Parent:      s.parent,
		File:        o.File,
		Line:        Line(s.tree, o.File, o.Ref()),
	}
	spec, ok := o.Object["spec"].(map[string]any)
	if !ok {
		s.fail(o, "spec", "", errors.New("is required"))
		return nil
	}
	text, err := json.Marshal(spec)
	if err == nil {
		err = json.Unmarshal(text, &k.Spec)
	}
	if err != nil {
		s.fail(o, "spec", "", errors.New(strings.TrimPrefix(err.Error(), "json: ")))
		return nil
	}
	k.Extra.ConfigMapGenerator = mapsOf(spec["configMapGenerator"])
	if beta {
		k.Extra.PatchesStrategicMerge = mapsOf(spec["patchesStrategicMerge"])
		k.Extra.PatchesJSON6902 = mapsOf(spec["patchesJson6902"])
		s.notices = append(s.notices, Notice{
			Code:   "old-api-version",
			Object: o.Ref().String(),
			File:   o.File,
			Line:   k.Line,
			Text:   fmt.Sprintf("%s is no longer served by Flux; it is read as %s/%s", o.GetAPIVersion(), flux.Group, stableVersion),
			Hint:   fmt.Sprintf("write apiVersion: %s/%s", flux.Group, stableVersion),
		})
	}
	return k
}

var schemaText = schema{kind: textMap}

// mapsOf returns the maps of a list whose type the schema has checked.
func mapsOf(value any) []map[string]any {
	l, _ := value.([]any)
	var out []map[string]any
	for _, item := range l {
		if m, ok := item.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}
