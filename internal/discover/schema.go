package discover

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"

	"github.com/google/cel-go/cel"
)

// published holds, of each version of Kustomization that Flux ever served, the
// schema of the last release that served it. testdata/crds/generate.go makes
// the files.
//
//go:embed published/*.json
var published embed.FS

// schema is what a definition says about one value (S1.1): the keywords of
// OpenAPI that Flux's definitions use. The loader refuses any other, so that a
// rule of a new release is never passed over.
type schema struct {
	Type       string             `json:"type"`
	Properties map[string]*schema `json:"properties"`
	Required   []string           `json:"required"`
	Items      *schema            `json:"items"`
	// Values is the schema of the values of a map with free keys.
	Values    *schema  `json:"additionalProperties"`
	Enum      []string `json:"enum"`
	Pattern   *pattern `json:"pattern"`
	MinLength int      `json:"minLength"`
	MaxLength int      `json:"maxLength"` // 0 for none
	Default   any      `json:"default"`
	Rules     []*rule  `json:"x-kubernetes-validations"`
	Nullable  bool     `json:"nullable"`
	// Open is set where any value and any field may stand.
	Open bool `json:"x-kubernetes-preserve-unknown-fields"`

	// Format and Minimum are only used in the status, which nobody writes.
	Format  string   `json:"format"`
	Minimum *float64 `json:"minimum"`
}

// rule is an expression of the definition that must be true of the value self.
type rule struct {
	Rule    string `json:"rule"`
	Message string `json:"message"`

	once    sync.Once
	program cel.Program
	err     error
}

// pattern is a regular expression that reads itself.
type pattern struct{ *regexp.Regexp }

func (p *pattern) UnmarshalText(text []byte) (err error) {
	p.Regexp, err = regexp.Compile(string(text))
	return err
}

// stableVersion is the one version that Flux still serves (S1.17).
const stableVersion = "v1"

// versions are those that there is a schema of, the newest first.
var versions = []string{stableVersion, "v1beta2", "v1beta1"}

// schemas returns the schema of each version, read once. Nobody changes them.
var schemas = sync.OnceValues(func() (map[string]*schema, error) {
	all := map[string]*schema{}
	for _, version := range versions {
		s, _, err := load(version)
		if err != nil {
			return nil, err
		}
		all[version] = s
	}
	for _, version := range versions {
		adapt(all[version], all[stableVersion], version)
	}
	return all, nil
})

// load reads a published schema, and the release that it is from.
func load(version string) (s *schema, from string, err error) {
	text, err := published.ReadFile("published/" + version + ".json")
	if err != nil {
		return nil, "", err
	}
	var file struct {
		From   string  `json:"from"`
		Schema *schema `json:"schema"`
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return nil, "", fmt.Errorf("the schema of %s: %w", version, err)
	}
	return file.Schema, file.From, nil
}

// adapt turns what an API server checks into what sluice checks.
func adapt(s, stable *schema, version string) {
	// A server accepts an object without a spec, and Flux then finds no
	// source. Here it is told at once.
	s.Required = []string{"spec"}
	// The rules for metadata are those of every object; see metadata.
	s.Properties["metadata"] = &schema{Type: "object", Open: true}
	// The status is Flux's to write: a server drops it, but not without a
	// look at its fields and their types.
	shape(s.Properties["status"])

	spec := s.Properties["spec"]
	// An extension (S14.1); build checks the entries.
	spec.Properties["configMapGenerator"] = &schema{Type: "array", Items: &schema{Type: "object", Open: true}}
	// Any value may stand there, but only objects are patches (S1.19).
	if list := spec.Properties["patchesStrategicMerge"]; list != nil {
		list.Items.Type = "object"
	}
	if version != stableVersion {
		// v1beta1 left the form of durations to the controller. They are
		// read as v1's (S1.17), whose form is given (S1.4).
		for _, field := range []string{"interval", "retryInterval", "timeout"} {
			spec.Properties[field].Pattern = stable.Properties["spec"].Properties[field].Pattern
		}
	}
}

// shape leaves of a schema only types and fields.
func shape(s *schema) {
	s.Required, s.Enum, s.Pattern, s.MinLength, s.MaxLength, s.Rules = nil, nil, nil, 0, 0, nil
	for _, field := range s.Properties {
		shape(field)
	}
	for _, inner := range []*schema{s.Items, s.Values} {
		if inner != nil {
			shape(inner)
		}
	}
}

// has reports whether the schema has a field at a path such as
// "spec.dependsOn[0].readyExpr".
func (s *schema) has(field string) bool {
	for _, step := range steps(field) {
		switch {
		case s.Properties[step] != nil:
			s = s.Properties[step]
		case s.Items != nil:
			s = s.Items
		default:
			return false
		}
	}
	return true
}

// defaulted returns the value with the defaults of the schema set where there
// is none; null is none. It copies the maps that it changes.
func (s *schema) defaulted(value any) any {
	switch value := value.(type) {
	case map[string]any:
		out := maps.Clone(value)
		for name, field := range s.Properties {
			if out[name] == nil && field.Default != nil {
				out[name] = field.Default
			}
			if out[name] != nil {
				out[name] = field.defaulted(out[name])
			}
		}
		return out
	case []any:
		if s.Items == nil {
			return value
		}
		out := slices.Clone(value)
		for i := range out {
			out[i] = s.Items.defaulted(out[i])
		}
		return out
	}
	return value
}
