package discover

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// kind is the type of a value in a schema.
type kind int

const (
	object kind = iota
	list
	text
	boolean
	textMap // a map of strings
	freeMap // a map of anything
	anything
)

// schema says what a value must be. It holds what Flux's CRD says about a
// field (S1.1), as far as that can fail.
type schema struct {
	kind     kind
	required []string           // of an object
	fields   map[string]*schema // of an object
	items    *schema            // of a list
	enum     []string           // of a text
	pattern  *regexp.Regexp     // of a text
	wants    string             // the pattern in words
	min, max int                // length of a text in characters; 0 for none
	rule     func(map[string]any) string
}

// finding is a place where a value is not what the schema says.
type finding struct {
	field  string
	what   string
	remedy string
}

// check compares a value with the schema, in a fixed order. Null is the same
// as absent.
func (s *schema) check(field string, value any) []finding {
	if value == nil {
		return nil
	}
	wrong := func(want string) []finding {
		remedy := ""
		if want == "a string" && typeName(value) != "a list" && typeName(value) != "a map" {
			remedy = "put the value in quotes"
		}
		return []finding{{field, fmt.Sprintf("must be %s, not %s", want, typeName(value)), remedy}}
	}
	switch s.kind {
	case text:
		v, ok := value.(string)
		if !ok {
			return wrong("a string")
		}
		return s.text(field, v)
	case boolean:
		if _, ok := value.(bool); !ok {
			found := wrong("true or false")
			found[0].remedy = "write true or false without quotes"
			return found
		}
	case textMap:
		m, ok := value.(map[string]any)
		if !ok {
			return wrong("a map of strings")
		}
		var found []finding
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if _, ok := m[key].(string); !ok && m[key] != nil {
				found = append(found, finding{field + "." + key, fmt.Sprintf("must be a string, not %s", typeName(m[key])), "put the value in quotes"})
			}
		}
		return found
	case freeMap:
		if _, ok := value.(map[string]any); !ok {
			return wrong("a map")
		}
	case list:
		l, ok := value.([]any)
		if !ok {
			return wrong("a list")
		}
		var found []finding
		for i, item := range l {
			at := fmt.Sprintf("%s[%d]", field, i)
			if item == nil {
				found = append(found, finding{at, "must not be empty", "remove the entry"})
			}
			found = append(found, s.items.check(at, item)...)
		}
		return found
	case object:
		m, ok := value.(map[string]any)
		if !ok {
			return wrong("a map")
		}
		return s.object(field, m)
	}
	return nil
}

func (s *schema) text(field, v string) []finding {
	n := utf8.RuneCountInString(v)
	switch {
	case len(s.enum) > 0 && !slices.Contains(s.enum, v):
		return []finding{{field, fmt.Sprintf("%q is not one of %s", v, strings.Join(s.enum, ", ")), meant(v, s.enum)}}
	case s.pattern != nil && !s.pattern.MatchString(v):
		return []finding{{field, fmt.Sprintf("%q is not %s", v, s.wants), ""}}
	case n < s.min:
		return []finding{{field, fmt.Sprintf("must have at least %d character", s.min), "remove the field or give it a value"}}
	case s.max > 0 && n > s.max:
		return []finding{{field, fmt.Sprintf("has %d characters, at most %d are allowed", n, s.max), ""}}
	}
	return nil
}

func (s *schema) object(field string, m map[string]any) []finding {
	var found []finding
	join := func(name string) string {
		if field == "" {
			return name
		}
		return field + "." + name
	}
	for _, name := range s.required {
		if m[name] == nil {
			found = append(found, finding{join(name), "is required", ""})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if f, known := s.fields[name]; known {
			found = append(found, f.check(join(name), m[name])...)
			continue
		}
		remedy := meant(name, slices.Sorted(maps.Keys(s.fields)))
		if special := instead[join(name)]; special != "" {
			remedy = special
		} else if remedy == "" {
			remedy = "remove the field"
		}
		found = append(found, finding{join(name), "unknown field: Flux's Kustomization has no such field", remedy})
	}
	if s.rule != nil {
		if what := s.rule(m); what != "" {
			found = append(found, finding{field, what, ""})
		}
	}
	return found
}

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
	best, least := "", max(2, len(name)/3)+1
	for _, n := range names {
		d := distance(strings.ToLower(name), strings.ToLower(n))
		if d < least {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// typeName says in YAML's words what a value is.
func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return fmt.Sprintf("the boolean %t", v)
	case int64, float64, int:
		return fmt.Sprintf("the number %v", v)
	case string:
		return fmt.Sprintf("the string %q", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return fmt.Sprintf("a %T", v)
}
