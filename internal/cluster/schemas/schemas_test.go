package schemas

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Of a document only what the wanted kinds are made of is kept, and one that
// cannot be made sense of is an error.
func TestParse(t *testing.T) {
	const kind = `"x-kubernetes-group-version-kind":[{"group":"g","version":"v1","kind":"A"}]`
	const whole = `{"components":{"schemas":{
		"a":{` + kind + `,"properties":{"b":{"allOf":[{"$ref":"#/components/schemas/b"}]},"c":{"items":{"$ref":"#/components/schemas/c"}}}},
		"b":{"additionalProperties":{"$ref":"#/components/schemas/d"}},
		"c":{"properties":{"again":{"$ref":"#/components/schemas/a"}}}, "d":{"type":"string"},
		"other":{"x-kubernetes-group-version-kind":[{"group":"g","version":"v1","kind":"Other"},{"group":"g","version":"v2","kind":"A"}]}}}}`
	gv := schema.GroupVersion{Group: "g", Version: "v1"}
	for _, c := range []struct {
		name, text string
		kinds      []string
		want, fail string
	}{
		{"whole", whole, []string{"A"}, "a b c d", ""},
		{"a kind that is not there", whole, []string{"A", "B"}, "", "does not describe B"},
		{"no document", "<html>", []string{"A"}, "", "cannot read"},
		{"empty", "{}", []string{"A"}, "", "does not describe A"},
		{"a part is missing", strings.Replace(whole, `"d":{"type":"string"}`, `"e":{}`, 1), []string{"A"}, "", "does not describe d"},
		{"a part is odd", strings.Replace(whole, `"d":{"type":"string"}`, `"d":[1]`, 1), []string{"A"}, "", "description of d"},
		{"twice", strings.Replace(whole, `"other":{`, `"twice":{`+kind+`},"other":{`, 1), []string{"A"}, "", "twice"},
	} {
		models, err := parse([]byte(c.text), gv, c.kinds)
		if c.fail != "" {
			if err == nil || !strings.Contains(err.Error(), c.fail) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if got := strings.Join(slices.Sorted(maps.Keys(models)), " "); err != nil || got != c.want {
			t.Errorf("%s: got %q, %v", c.name, got, err)
		}
	}
}
