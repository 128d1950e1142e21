package substitute

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluicerun/sluice/internal/flux"
)

// retyped compares an object before and after substitution. A name, a label or
// an annotation that is no string any more is an error (S0.15, S3.26); another string
// field that the API certainly wants as a string is noted, since the API
// server will refuse it (S3.27). It reports whether the object is usable.
func (a *application) retyped(before, after flux.Object, e expansion) bool {
	ok := true
	compare(nil, before.Object, after.Object, func(path []string, was string, now any) {
		field := strings.Join(path, ".")
		line := a.lines.text(before, firstExpression(was))
		switch {
		case field == "metadata.name", field == "metadata.namespace", field == "kind", field == "apiVersion":
			// Flux drops such an object without a word (S0.15).
			ok = false
			a.fail(before, line, "give the value quotes of its own, as in '\"1\"': quotes in the manifest do not survive",
				fmt.Errorf("%s became %s through substitution, it must be a string", field, typeName(now)))
		case len(path) == 3 && path[0] == "metadata" && (path[1] == "labels" || path[1] == "annotations"):
			if now == nil {
				return // Flux reads null as ""
			}
			ok = false
			a.fail(before, line, "give the value quotes of its own, as in '\"1\"': quotes in the manifest do not survive",
				fmt.Errorf("%s[%q] became %s through substitution, it must be a string", strings.Join(path[:2], "."), path[2], typeName(now)))
		case wantsString(after.GetKind(), path):
			a.notices = append(a.notices, Notice{
				Code:   "type-changed",
				Object: after.Ref().String(),
				File:   after.File,
				Line:   line,
				Text:   fmt.Sprintf("%s became %s through substitution, where a string is wanted", field, typeName(now)),
				Hint:   "give the value quotes of its own, as in '\"3\"': quotes in the manifest do not survive",
			})
		}
	})
	return ok
}

// compare calls changed for every string with a variable whose new value is no
// string. Fields whose key changed are not found again, and passed over.
func compare(path []string, was, now any, changed func(path []string, was string, now any)) {
	switch was := was.(type) {
	case string:
		if _, still := now.(string); !still && strings.Contains(was, "$") {
			changed(path, was, now)
		}
	case map[string]any:
		now, ok := now.(map[string]any)
		if !ok {
			return
		}
		for _, key := range slices.Sorted(maps.Keys(was)) {
			if value, ok := now[key]; ok {
				compare(append(slices.Clip(path), key), was[key], value, changed)
			}
		}
	case []any:
		now, ok := now.([]any)
		if !ok || len(now) != len(was) {
			return
		}
		for i := range was {
			compare(append(slices.Clip(path), fmt.Sprint(i)), was[i], now[i], changed)
		}
	}
}

// wantsString reports whether a field holds strings and nothing else, as far
// as its place tells.
func wantsString(kind string, path []string) bool {
	at := func(i int) string {
		if i += len(path); i >= 0 && i < len(path) {
			return path[i]
		}
		return ""
	}
	switch {
	case kind == "ConfigMap" && len(path) == 2 && path[0] == "data",
		kind == "Secret" && len(path) == 2 && (path[0] == "data" || path[0] == "stringData"):
		return true
	case at(-3) == "env" && at(-1) == "value",
		at(-2) == "args", at(-2) == "command",
		at(-2) == "labels" && at(-3) == "metadata", at(-2) == "annotations" && at(-3) == "metadata",
		at(-2) == "matchLabels", at(-2) == "nodeSelector",
		at(-1) == "image" && strings.HasSuffix(strings.ToLower(at(-3)), "containers"):
		return true
	}
	return false
}

// firstExpression returns the first "${…}" of a text.
func firstExpression(s string) string {
	at := strings.Index(s, "${")
	if at < 0 {
		return ""
	}
	return excerpt(s[at:])
}

// typeName says in YAML's words what a value is, without showing it.
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return fmt.Sprintf("a %T", v)
}
