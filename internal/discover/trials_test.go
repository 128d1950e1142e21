package discover_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// full is a Kustomization of v1 with every field of the definition.
const full = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: apps
  namespace: flux-system
  labels: {l: v}
  annotations: {a: v}
spec:
  sourceRef: {apiVersion: source.toolkit.fluxcd.io/v1, kind: GitRepository, name: repo, namespace: other}
  path: ./apps/production
  interval: 1h30m
  retryInterval: 90s
  timeout: 1.5h
  prune: true
  deletionPolicy: WaitForTermination
  suspend: true
  force: true
  wait: true
  targetNamespace: t
  namePrefix: p-
  nameSuffix: -s
  serviceAccountName: sa
  commonMetadata: {labels: {a: b}, annotations: {c: d}}
  patches: [{patch: "x", target: {group: g, version: v, kind: k, name: nn, namespace: ns, labelSelector: a=b, annotationSelector: c=d}}]
  images: [{name: i, newName: j, newTag: k, digest: l}]
  components: [../c]
  ignoreMissingComponents: true
  buildMetadata: [originAnnotations, transformerAnnotations]
  postBuild:
    substitute: {a: b}
    substituteFrom: [{kind: ConfigMap, name: c}, {kind: Secret, name: s, optional: true}]
    substituteStrategy: Always
  healthChecks: [{apiVersion: apps/v1, kind: Deployment, name: d, namespace: ns}]
  healthCheckExprs: [{apiVersion: x/v1, kind: X, current: "true", inProgress: "false", failed: "false"}]
  dependsOn: [{name: one}, {name: two, namespace: other, readyExpr: "true"}]
  kubeConfig: {secretRef: {name: k, key: v}}
  decryption: {provider: sops, secretRef: {name: s}, serviceAccountName: d}
  ignore: [{paths: [/spec/replicas], target: {group: g, version: v, kind: Deployment, name: nn, namespace: ns, labelSelector: a, annotationSelector: b}}]
`

// old are the fields that only v1beta1 and v1beta2 have.
const old = `  validation: client
  patchesStrategicMerge: [{kind: Deployment, spec: {a: 1}}]
  patchesJson6902: [{patch: [{op: add, path: /a, from: /b, value: {a: 1}}], target: {group: g, version: v, kind: k, name: nn, namespace: ns, labelSelector: a, annotationSelector: b}}]
`

// published reads a schema as it is embedded, and nothing that discover makes of it.
func published(t *testing.T, version string) map[string]any {
	t.Helper()
	text, err := os.ReadFile("published/" + version + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Schema map[string]any }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	return file.Schema
}

// trial is one object whose verdict is asked of the API server and of discover.
type trial struct {
	name   string
	object map[string]any
}

// trials returns objects of a version that are each aimed at one rule of its
// schema: for every field, what is at and beyond the limits of the rule, and
// values of every other type.
func trials(t *testing.T, version string) []trial {
	t.Helper()
	schema := published(t, version)
	text := full
	if version != "v1" {
		text = strings.Replace(full, "/v1\n", "/"+version+"\n", 1) + old
	}
	base := parsed(t, text)
	// What the version has not is tried on its own, and the rest without it.
	var all []trial
	add := func(name string, object map[string]any) {
		all = append(all, trial{version + " " + name, object})
	}
	var lacking [][]any
	without(base, schema, nil, func(path []any) { lacking = append(lacking, path) })
	for _, path := range lacking {
		cut := clone(base)
		for _, other := range lacking {
			if !reflect.DeepEqual(other, path) {
				set(cut, other, removed)
			}
		}
		add(spell(path)+" is of another version", cut)
	}
	for _, path := range lacking {
		set(base, path, removed)
	}
	add("full", base)

	vary := func(path []any, what string, value any) {
		object := clone(base)
		set(object, path, value)
		add(spell(path)+" "+what, object)
	}
	var walk func(path []any, schema map[string]any, value any)
	walk = func(path []any, schema map[string]any, value any) {
		if schema["type"] == "object" && len(path) == 0 {
			vary([]any{"unknown"}, "unknown", "x")
		} else {
			vary(path, "removed", removed)
			vary(path, "null", nil)
			for what, other := range others(schema) {
				// The old versions have the types of v1: a few are enough.
				if version == "v1" || what == "number" || what == "text" || what == "empty map" {
					vary(path, what, other)
				}
			}
		}
		for _, member := range list(schema["enum"]) {
			vary(path, "member "+fmt.Sprint(member), member)
			vary(path, "member in lower case "+fmt.Sprint(member), strings.ToLower(fmt.Sprint(member)))
		}
		for _, limit := range []string{"minLength", "maxLength"} {
			if n, ok := schema[limit].(float64); ok {
				for _, length := range []int{int(n) - 1, int(n), int(n) + 1} {
					vary(path, fmt.Sprintf("%s %d", limit, length), strings.Repeat("x", length))
					vary(path, fmt.Sprintf("%s %d of two bytes", limit, length), strings.Repeat("é", length))
				}
			}
		}
		if path != nil && (path[len(path)-1] == "interval" || path[len(path)-1] == "timeout" || path[len(path)-1] == "retryInterval") {
			for _, text := range []string{"0s", "5m", "1h30m", "1.5h", "1.h", ".5h", "5", "1d", "-5m", "+5m", "5 m", "1us", "1µs", "1ns", "10ms", "5M", "1h 30m", "30m1h", "0", " 5m", "5m\n", "100000h"} {
				vary(path, fmt.Sprintf("%q", text), text)
			}
		}
		switch value := value.(type) {
		case map[string]any:
			vary(append(slices.Clone(path), "unknown"), "is unknown", "x")
			properties, _ := schema["properties"].(map[string]any)
			values, _ := schema["additionalProperties"].(map[string]any)
			for _, name := range slices.Sorted(maps.Keys(value)) {
				inner, ok := properties[name].(map[string]any)
				if !ok {
					inner = values
				}
				if inner != nil && !(len(path) == 0 && (name == "apiVersion" || name == "kind" || name == "metadata")) {
					walk(append(slices.Clone(path), name), inner, value[name])
				}
			}
		case []any:
			items, _ := schema["items"].(map[string]any)
			for i := range value {
				walk(append(slices.Clone(path), i), items, value[i])
			}
			vary(append(slices.Clone(path), 0), "null entry", nil)
		}
	}
	walk(nil, schema, base)
	minimal := parsed(t, strings.Replace(head, "/v1\n", "/"+version+"\n", 1)+"  interval: 5m\n  prune: true\n")
	add("minimal", minimal)
	spec := []any{"spec"}
	for name, change := range map[string]struct {
		path  []any
		value any
	}{
		"kubeConfig of both":       {append(spec, "kubeConfig"), map[string]any{"secretRef": map[string]any{"name": "a"}, "configMapRef": map[string]any{"name": "b"}}},
		"kubeConfig of ConfigMap":  {append(spec, "kubeConfig"), map[string]any{"configMapRef": map[string]any{"name": "b"}}},
		"kubeConfig of neither":    {append(spec, "kubeConfig"), map[string]any{}},
		"kubeConfig null and one":  {append(spec, "kubeConfig"), map[string]any{"secretRef": map[string]any{"name": "a"}, "configMapRef": nil}},
		"status empty":             {[]any{"status"}, map[string]any{}},
		"status of a cluster":      {[]any{"status"}, map[string]any{"observedGeneration": int64(1), "conditions": []any{map[string]any{"type": "Ready"}}}},
		"status of wrong type":     {[]any{"status"}, map[string]any{"observedGeneration": "one"}},
		"status with what is not":  {[]any{"status"}, map[string]any{"observedGenerations": int64(1)}},
		"status null":              {[]any{"status"}, nil},
		"status of text":           {[]any{"status"}, "text"},
		"metadata unknown":         {[]any{"metadata", "nmae"}, "x"},
		"label number":             {[]any{"metadata", "labels"}, map[string]any{"a": int64(1)}},
		"label null":               {[]any{"metadata", "labels"}, map[string]any{"a": nil}},
		"label with a space":       {[]any{"metadata", "labels"}, map[string]any{"a": "b c"}},
		"label long":               {[]any{"metadata", "labels"}, map[string]any{"a": strings.Repeat("x", 64)}},
		"label key":                {[]any{"metadata", "labels"}, map[string]any{"a b": "c"}},
		"labels null":              {[]any{"metadata", "labels"}, nil},
		"annotation key":           {[]any{"metadata", "annotations"}, map[string]any{"a b": "c"}},
		"annotation boolean":       {[]any{"metadata", "annotations"}, map[string]any{"a": true}},
		"annotation of any text":   {[]any{"metadata", "annotations"}, map[string]any{"a": "b c\nd"}},
		"finalizer":                {[]any{"metadata", "finalizers"}, []any{"example.com/a"}},
		"finalizer without domain": {[]any{"metadata", "finalizers"}, []any{"a"}},
		"finalizer of text":        {[]any{"metadata", "finalizers"}, "a"},
		"creationTimestamp null":   {[]any{"metadata", "creationTimestamp"}, nil},
		"owner":                    {[]any{"metadata", "ownerReferences"}, []any{map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "u"}}},
		"owner without kind":       {[]any{"metadata", "ownerReferences"}, []any{map[string]any{"apiVersion": "v1", "name": "a", "uid": "u"}}},
	} {
		object := clone(minimal)
		set(object, change.path, change.value)
		add(name, object)
	}
	for _, name := range []string{"a.b", "A", "a_b", "-a", "a-", "1", "a..b", "a/b", strings.Repeat("x", 253), strings.Repeat("x", 254)} {
		object := clone(minimal)
		set(object, []any{"metadata", "name"}, name)
		add("name "+name, object)
	}
	slices.SortFunc(all, func(a, b trial) int { return strings.Compare(a.name, b.name) })
	return all
}

// without calls found for every field of the value that the schema has not.
func without(value any, schema map[string]any, path []any, found func([]any)) {
	switch value := value.(type) {
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		if properties == nil || len(path) == 1 && path[0] == "metadata" {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(value)) {
			at := append(slices.Clone(path), name)
			if inner, ok := properties[name].(map[string]any); ok {
				without(value[name], inner, at, found)
			} else {
				found(at)
			}
		}
	case []any:
		for i := range value {
			items, _ := schema["items"].(map[string]any)
			without(value[i], items, append(slices.Clone(path), i), found)
		}
	}
}

type remove struct{}

// removed as a value takes the field away.
var removed = remove{}

// set changes one place; a place that has no parent is left.
func set(object any, path []any, value any) {
	for len(path) > 1 {
		switch step := path[0].(type) {
		case string:
			object = object.(map[string]any)[step]
		case int:
			object = object.([]any)[step]
		}
		path = path[1:]
	}
	switch parent := object.(type) {
	case map[string]any:
		if value == any(removed) {
			delete(parent, path[0].(string))
		} else {
			parent[path[0].(string)] = value
		}
	case []any:
		if value == any(removed) {
			value = map[string]any{} // an entry cannot be taken out in place
		}
		parent[path[0].(int)] = value
	}
}

func clone(object map[string]any) map[string]any { return runtime.DeepCopyJSON(object) }

// parsed reads an object with the types of numbers that a server sees.
func parsed(t *testing.T, text string) map[string]any {
	t.Helper()
	json, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var o unstructured.Unstructured
	if err := o.UnmarshalJSON(json); err != nil {
		t.Fatal(err)
	}
	return o.Object
}

// others are values of all types, and of the type itself such that are wrong
// inside.
func others(schema map[string]any) map[string]any {
	all := map[string]any{"number": int64(3), "true": true, "text": "text", "empty text": "", "empty list": []any{}, "empty map": map[string]any{}}
	switch schema["type"] {
	case "boolean":
		all["text true"] = "true"
	case "string":
		all["fraction"] = 1.5
	case "array":
		all["list of null"], all["list of text"] = []any{nil}, []any{"x"}
	case "object":
		all["map of text"], all["map of number"], all["map of null"] = map[string]any{"x": "y"}, map[string]any{"x": int64(1)}, map[string]any{"x": nil}
	}
	return all
}

func spell(path []any) string {
	var text strings.Builder
	for i, step := range path {
		if _, index := step.(int); index {
			fmt.Fprintf(&text, "[%v]", step)
			continue
		}
		if i > 0 {
			text.WriteString(".")
		}
		fmt.Fprint(&text, step)
	}
	return text.String()
}

func list(value any) []any {
	l, _ := value.([]any)
	return l
}
