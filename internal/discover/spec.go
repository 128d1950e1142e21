package discover

import (
	"maps"
	"regexp"
)

// anyText is a string without limits.
var anyText = &schema{kind: text}

// duration is Flux's form of a duration, stricter than Go's (S1.4).
var duration = &schema{
	kind:    text,
	pattern: regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`),
	wants:   `a duration such as "90s", "5m" or "1h30m"`,
}

func enum(values ...string) *schema  { return &schema{kind: text, enum: values} }
func length(least, most int) *schema { return &schema{kind: text, min: least, max: most} }
func listOf(items *schema) *schema   { return &schema{kind: list, items: items} }
func named(fields ...string) *schema { return texts([]string{"name"}, append(fields, "name")...) }
func texts(required []string, fields ...string) *schema {
	s := &schema{kind: object, required: required, fields: map[string]*schema{}}
	for _, f := range fields {
		s.fields[f] = anyText
	}
	return s
}

var selectorSchema = texts(nil, "group", "version", "kind", "name", "namespace", "labelSelector", "annotationSelector")

// specFields are the fields of v1's spec (section 1.2 of the semantics), plus
// sluice's own extension.
var specFields = map[string]*schema{
	"sourceRef": {kind: object, required: []string{"kind", "name"}, fields: map[string]*schema{
		"apiVersion": anyText,
		"kind":       enum("OCIRepository", "GitRepository", "Bucket", "ExternalArtifact"),
		"name":       anyText,
		"namespace":  anyText,
	}},
	"path":               anyText,
	"interval":           duration,
	"retryInterval":      duration,
	"timeout":            duration,
	"prune":              {kind: boolean},
	"deletionPolicy":     enum("MirrorPrune", "Delete", "WaitForTermination", "Orphan"),
	"suspend":            {kind: boolean},
	"force":              {kind: boolean},
	"wait":               {kind: boolean},
	"targetNamespace":    length(1, 63),
	"namePrefix":         length(1, 200),
	"nameSuffix":         length(1, 200),
	"serviceAccountName": anyText,
	"commonMetadata": {kind: object, fields: map[string]*schema{
		"labels":      {kind: textMap},
		"annotations": {kind: textMap},
	}},
	"patches": listOf(&schema{kind: object, required: []string{"patch"}, fields: map[string]*schema{
		"patch":  anyText,
		"target": selectorSchema,
	}}),
	"images":                  listOf(named("newName", "newTag", "digest")),
	"components":              listOf(anyText),
	"ignoreMissingComponents": {kind: boolean},
	"buildMetadata":           listOf(enum("originAnnotations", "transformerAnnotations")),
	"postBuild": {kind: object, fields: map[string]*schema{
		"substituteStrategy": enum("WithVariables", "Always"),
		"substitute":         {kind: textMap},
		"substituteFrom": listOf(&schema{kind: object, required: []string{"kind", "name"}, fields: map[string]*schema{
			"kind":     enum("Secret", "ConfigMap"),
			"name":     length(1, 253),
			"optional": {kind: boolean},
		}}),
	}},
	"healthChecks":     listOf(texts([]string{"kind", "name"}, "apiVersion", "kind", "name", "namespace")),
	"healthCheckExprs": listOf(texts([]string{"apiVersion", "current"}, "apiVersion", "kind", "current", "inProgress", "failed")),
	"dependsOn":        listOf(named("namespace", "readyExpr")),
	"kubeConfig": {kind: object, fields: map[string]*schema{
		"configMapRef": named(),
		"secretRef":    named("key"),
	}, rule: func(m map[string]any) string {
		if (m["configMapRef"] == nil) == (m["secretRef"] == nil) {
			return "exactly one of configMapRef and secretRef must be set"
		}
		return ""
	}},
	"decryption": {kind: object, required: []string{"provider"}, fields: map[string]*schema{
		"provider":           enum("sops"),
		"serviceAccountName": anyText,
		"secretRef":          named(),
	}},
	"ignore": listOf(&schema{kind: object, required: []string{"paths"}, fields: map[string]*schema{
		"paths":  listOf(anyText),
		"target": selectorSchema,
	}}),

	// An extension (S14.1); build checks the entries.
	"configMapGenerator": listOf(&schema{kind: freeMap}),
}

// betaFields are the fields that v1beta1 and v1beta2 have and v1 has not
// (S1.18, S1.19).
var betaFields = map[string]*schema{
	"patchesStrategicMerge": listOf(&schema{kind: freeMap}),
	"patchesJson6902": listOf(&schema{kind: object, required: []string{"patch", "target"}, fields: map[string]*schema{
		"patch": listOf(&schema{kind: object, required: []string{"op", "path"}, fields: map[string]*schema{
			"op":    enum("test", "remove", "add", "replace", "move", "copy"),
			"path":  anyText,
			"from":  anyText,
			"value": {kind: anything},
		}}),
		"target": selectorSchema,
	}}),
	"validation": enum("none", "client", "server"),
}

// specRequired are the fields without which there is no spec (S1.5).
var specRequired = []string{"interval", "prune", "sourceRef"}

// kustomizationSchema is the whole of a Kustomization.
func kustomizationSchema(beta bool) *schema {
	fields := specFields
	if beta {
		fields = maps.Clone(specFields)
		maps.Copy(fields, betaFields)
	}
	return &schema{kind: object, required: []string{"spec"}, fields: map[string]*schema{
		"apiVersion": anyText,
		"kind":       anyText,
		"metadata":   {kind: freeMap},
		"status":     {kind: freeMap},
		"spec":       {kind: object, required: specRequired, fields: fields},
	}}
}

var (
	stableSchema = kustomizationSchema(false)
	betaSchema   = kustomizationSchema(true)
)
