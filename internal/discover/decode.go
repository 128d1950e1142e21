package discover

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sluicerun/sluice/internal/flux"
)

// decode makes a Kustomization of an object, or says all that is wrong with it.
func (s *splitter) decode(o flux.Object) *flux.Kustomization {
	version := o.GroupVersionKind().Version
	known, err := schemas()
	if err != nil {
		s.fail(o, "", "", err)
		return nil
	}
	schema := known[version]
	if schema == nil {
		s.fail(o, "apiVersion", fmt.Sprintf("write apiVersion: %s/%s", flux.Group, stableVersion),
			fmt.Errorf("%q is no version of a Flux Kustomization: there are %s", version, strings.Join(versions, ", ")))
		return nil
	}
	before := len(s.problems)
	for _, f := range schema.check("", o.Object) {
		if version != stableVersion && f.what == unknownField {
			f.what = fmt.Sprintf("unknown field: %s has no such field", o.GetAPIVersion())
			if known[stableVersion].has(f.field) { // S1.18
				f.remedy = fmt.Sprintf("write apiVersion: %s/%s, which has it", flux.Group, stableVersion)
			}
		}
		s.fail(o, f.field, f.remedy, errors.New(f.what))
	}
	meta, found := s.metadata(o)
	for _, f := range found {
		s.fail(o, f.field, f.remedy, errors.New(f.what))
	}
	if len(s.problems) > before {
		return nil
	}
	k := &flux.Kustomization{
		ID:          flux.ID{Namespace: o.GetNamespace(), Name: o.GetName()},
		APIVersion:  o.GetAPIVersion(),
		Labels:      meta.Labels,
		Annotations: meta.Annotations,
		Open:        o.Open,
		Parent:      s.parent,
		File:        o.File,
		Line:        Line(s.tree, o.File, o.Ref()),
	}
	spec, ok := schema.Properties["spec"].defaulted(o.Object["spec"]).(map[string]any)
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
	if version != stableVersion {
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
	if marker := leftAlone(o); marker != "" && !k.Spec.Suspend {
		s.notices = append(s.notices, Notice{
			Code:   "marked-kustomization",
			Object: o.Ref().String(),
			File:   o.File,
			Line:   k.Line,
			Text:   "its manifest has " + marker + ", for which Flux does not apply it and so runs none that it does not know already; here it is run",
			Hint:   "set spec.suspend: true if it is not to run, else remove the marker",

			Warning: true,
		})
	}
	return k
}

// leftAlone returns the marker, as "key: value", for which Flux applies nothing
// of a manifest; "" if there is none (S4.25).
func leftAlone(o flux.Object) string {
	for _, m := range []struct{ key, value string }{{flux.Group + "/reconcile", "disabled"}, {flux.Group + "/ssa", "Ignore"}} {
		if strings.EqualFold(o.GetLabels()[m.key], m.value) || strings.EqualFold(o.GetAnnotations()[m.key], m.value) {
			return m.key + ": " + m.value
		}
	}
	return ""
}

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
