package discover

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/cel-go/cel"
)

// finding is a place where a value is not what the schema says.
type finding struct {
	field  string
	what   string
	remedy string
}

// check compares a value that is there with the schema, in a fixed order.
func (s *schema) check(field string, value any) []finding {
	if value == nil {
		if s.Nullable || s.Open && s.Type == "" {
			return nil
		}
		return []finding{{field, "must be " + s.wants() + ", not null", "remove it or give it a value"}}
	}
	switch s.Type {
	case "string":
		if v, ok := value.(string); ok {
			return s.text(field, v)
		}
	case "boolean":
		if _, ok := value.(bool); ok {
			return nil
		}
	case "integer":
		switch v := value.(type) {
		case int64:
			return nil
		case float64:
			if v == float64(int64(v)) {
				return nil
			}
		}
	case "array":
		if v, ok := value.([]any); ok {
			return s.list(field, v)
		}
	case "object":
		if v, ok := value.(map[string]any); ok {
			return s.object(field, v)
		}
	default:
		return nil
	}
	return []finding{{field, fmt.Sprintf("must be %s, not %s", s.wants(), typeName(value)), s.quoting(value)}}
}

// wants says in YAML's words what type the schema asks for.
func (s *schema) wants() string {
	switch s.Type {
	case "string":
		return "a string"
	case "boolean":
		return "true or false"
	case "integer":
		return "a whole number"
	case "array":
		return "a list"
	}
	if s.Values != nil && s.Values.Type == "string" {
		return "a map of strings"
	}
	return "a map"
}

// quoting says what to do about a scalar of the wrong type.
func (s *schema) quoting(value any) string {
	switch value.(type) {
	case []any, map[string]any:
		return ""
	}
	switch s.Type {
	case "string":
		return "put the value in quotes"
	case "boolean":
		return "write true or false without quotes"
	}
	return ""
}

func (s *schema) text(field, v string) []finding {
	n := utf8.RuneCountInString(v)
	switch {
	case len(s.Enum) > 0 && !slices.Contains(s.Enum, v):
		return []finding{{field, fmt.Sprintf("%q is not one of %s", v, strings.Join(s.Enum, ", ")), meant(v, s.Enum)}}
	case s.Pattern != nil && !s.Pattern.MatchString(v):
		return []finding{{field, fmt.Sprintf("%q is not %s", v, inWords(s.Pattern.String())), ""}}
	case n < s.MinLength:
		return []finding{{field, fmt.Sprintf("must have at least %s", characters(s.MinLength)), "remove the field or give it a value"}}
	case s.MaxLength > 0 && n > s.MaxLength:
		return []finding{{field, fmt.Sprintf("has %s, at most %d are allowed", characters(n), s.MaxLength), ""}}
	}
	return nil
}

func characters(n int) string {
	if n == 1 {
		return "1 character"
	}
	return fmt.Sprintf("%d characters", n)
}

// durations is Flux's form of a duration, stricter than Go's (S1.4).
const durations = `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`

// inWords says what a pattern asks for.
func inWords(pattern string) string {
	if pattern == durations {
		return `a duration such as "90s", "5m" or "1h30m"`
	}
	return "of the form " + pattern
}

func (s *schema) list(field string, l []any) []finding {
	var found []finding
	for i, item := range l {
		at := fmt.Sprintf("%s[%d]", field, i)
		problems := s.Items.check(at, item)
		if item == nil && len(problems) > 0 {
			problems = []finding{{at, "must not be empty", "remove the entry"}}
		}
		found = append(found, problems...)
	}
	return found
}

func (s *schema) object(field string, m map[string]any) []finding {
	var found []finding
	join := func(name string) string {
		if field == "" {
			return name
		}
		return field + "." + name
	}
	for _, name := range s.Required {
		if m[name] == nil {
			found = append(found, finding{join(name), "is required", ""})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		f, known := s.Properties[name]
		switch {
		case known && m[name] == nil && (f.Default != nil || slices.Contains(s.Required, name)):
			// The default holds, or it has been told above.
		case known:
			found = append(found, f.check(join(name), m[name])...)
		case s.Values != nil:
			found = append(found, s.Values.check(join(name), m[name])...)
		case !s.Open:
			found = append(found, s.unknown(join(name), name))
		}
	}
	if len(found) > 0 {
		return found // the rules expect fields that are as they should be
	}
	return s.rules(field, m)
}

func (s *schema) unknown(field, name string) finding {
	remedy := meant(name, slices.Sorted(maps.Keys(s.Properties)))
	if special := instead[field]; special != "" {
		remedy = special
	} else if remedy == "" {
		remedy = "remove the field"
	}
	return finding{field, unknownField, remedy}
}

const unknownField = "unknown field: Flux's Kustomization has no such field"

// rules evaluates the expressions of the definition, as an API server does. The
// message of each is told once.
func (s *schema) rules(field string, m map[string]any) []finding {
	var found []finding
	for _, r := range s.Rules {
		what := r.Message
		if holds, err := r.holds(m); err != nil {
			what = fmt.Sprintf("the rule %q of Flux's definition cannot be evaluated: %v", r.Rule, err)
		} else if holds {
			continue
		}
		if f := (finding{field, what, ""}); !slices.Contains(found, f) {
			found = append(found, f)
		}
	}
	return found
}

// holds evaluates the expression, which is compiled once.
func (r *rule) holds(self map[string]any) (bool, error) {
	r.once.Do(func() { r.program, r.err = compile(r.Rule) })
	if r.err != nil {
		return false, r.err
	}
	out, _, err := r.program.Eval(map[string]any{"self": self})
	if err != nil {
		return false, err
	}
	holds, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("it gives %v", out.Value())
	}
	return holds, nil
}

func compile(expression string) (cel.Program, error) {
	env, err := cel.NewEnv(cel.Variable("self", cel.DynType))
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(expression)
	if err := issues.Err(); err != nil {
		return nil, err
	}
	return env.Program(ast)
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
