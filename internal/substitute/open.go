package substitute

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Without a cluster nobody can tell what the objects that only it has would
// set. A variable that nothing else sets and that has no default may then stay
// in the text as it is.

// keep doubles the dollar before each use of the names, which the grammar turns
// back into the expression itself (S3.31).
func keep(text string, names []string) string {
	for _, name := range names {
		use := regexp.MustCompile(`\$+\{#?` + regexp.QuoteMeta(name) + `[^A-Za-z0-9_]`)
		text = use.ReplaceAllStringFunc(text, func(expression string) string {
			dollars := len(expression) - len(strings.TrimLeft(expression, "$"))
			if dollars%2 == 0 {
				return expression // escaped already
			}
			return "$" + expression
		})
	}
	return text
}

// expandOpen fills in a text and leaves the names in it as they are.
func expandOpen(text string, vars map[string]Variable, names []string, strict bool) (expansion, error) {
	e, err := expand(keep(text, names), vars, strict)
	if err != nil || len(e.unknown) == 0 {
		return e, err
	}
	// One stands in the default of another, where nothing can be escaped.
	vars = maps.Clone(vars)
	for _, name := range e.unknown {
		vars[name] = Variable{Name: name, Value: "${" + name + "}"}
	}
	rest := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(e.unknown, name) })
	return expand(keep(text, rest), vars, strict)
}

// holdsAny reports whether a value holds one of the variables that were left
// open.
func holdsAny(value string, names []string) bool {
	return len(names) > 0 && keep(value, names) != value
}

// leave notes variables that stay as they are.
func (a *application) leave(names []string) {
	if a.open == nil {
		a.open = map[string]bool{}
	}
	for _, name := range names {
		a.open[name] = true
	}
}

// assume notes the variables whose default is taken, though the cluster may
// know a value.
func (a *application) assume(e expansion) {
	if a.assumed == nil {
		a.assumed = map[string]bool{}
	}
	for _, name := range e.used {
		if _, known := a.vars.byName[name]; !known && !slices.Contains(e.unknown, name) {
			a.assumed[name] = true
		}
	}
}

// tellOpen says in one notice what a cluster may know better.
func (a *application) tellOpen() {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(a.open)) {
		names = append(names, name+" (left as it is)")
	}
	for _, name := range slices.Sorted(maps.Keys(a.assumed)) {
		names = append(names, name+" (its default is used)")
	}
	if len(names) == 0 {
		return
	}
	a.notices = append(a.notices, Notice{
		Code:   "open-variables",
		Object: "Kustomization/" + a.k.ID.String(),
		File:   a.k.File,
		Line:   a.k.Line,
		Text:   fmt.Sprintf("%s may set %s", strings.Join(a.vars.unreachable, " or "), strings.Join(names, ", ")),
		Hint:   "give their values with --var or --vars-file, or name the cluster with --context",
	})
}
