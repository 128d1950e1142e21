package substitute

import (
	"fmt"
	"strings"
	"testing"
)

// TestExpansionIsBounded: a short text must not become one that fills the memory,
// take for ever, or go so deep that the stack is full; the error says which
// limit it was.
func TestExpansionIsBounded(t *testing.T) {
	values := map[string]string{"a": strings.Repeat("x", 100), "mega": strings.Repeat("x", 1<<20), "one": "1"}
	vars := map[string]Variable{}
	for name, value := range values {
		vars[name] = variable(name, value, "inline")
	}
	// each replaces every letter of a by what stands in it: 100^n letters
	replaced := "${a}"
	for range 8 {
		replaced = "${a//x/" + replaced + "}"
	}
	names := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "${v%d:=x} ", i)
		}
		return b.String()
	}
	for name, tc := range map[string]struct{ text, want string }{
		"replacements of replacements": {replaced, "longer than 8 MiB"},
		"one value many times":         {strings.Repeat("${mega} ", 100), "longer than 8 MiB"},
		"what is not even used":        {strings.Repeat("${one:=${mega}}", 100), "longer than 8 MiB"},
		"every letter replaced":        {"${mega//x/" + strings.Repeat("y", 1000) + "}", "longer than 8 MiB"},
		"between all letters":          {"${mega//${none:=}/" + strings.Repeat("y", 1000) + "}", "longer than 8 MiB"},
		"a pattern of a long value":    {"${mega##*y*y*y*y*}", "too long for it"},
		"the shortest match":           {"${mega%*[a-z]*?}", "too long for it"},
		"as deep as can be parsed":     {strings.Repeat("${no:-", 40_000) + strings.Repeat("}", 40_000), "more than 50 deep"},
		"deeper":                       {strings.Repeat("${no:-", 5_000_000), "more than 50000 expressions"},
		"one after the other":          {strings.Repeat("${one}", 2_000_000), "more than 50000 expressions"},
		"names":                        {names(1_001), "more than 1000 different variables"},
		"as many as are allowed":       {strings.Repeat("${one}", 50_000), ""},
		"as deep as is allowed":        {strings.Repeat("${no:-", 50) + strings.Repeat("}", 50), ""},
		"ordinary patterns":            {"${a##*x} ${a%x*} ${a//x/yy} ${mega:5:10} ${a^^}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := expand(tc.text, vars, false)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("error %v", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("%d bytes, error %v", len(e.text), err)
			}
		})
	}
}

// TestFilledYAMLIsBounded: a value can be YAML.
func TestFilledYAMLIsBounded(t *testing.T) {
	bomb := "a: [&x0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]"
	for i := 1; i < 9; i++ {
		bomb += fmt.Sprintf(", &x%d [%s]", i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d,", i-1), 9), ","))
	}
	for name, tc := range map[string]struct{ text, want string }{
		"aliases":   {bomb + "]", "more than 1000000 values"},
		"in itself": {"a: &a [*a]", "more than 1000000 values"},
		"deep":      {"a: " + strings.Repeat("[", 600) + strings.Repeat("]", 600), "more than 500 deep"},
		"many":      {"a: [" + strings.Repeat("1,", 3_000_000) + "]", "more than 2000000 commas"},
		"ordinary":  {"a: &a {x: [1, 2]}\nb: *a\nc: '[[[['\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tame(tc.text); (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}
