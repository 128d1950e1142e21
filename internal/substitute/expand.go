package substitute

import (
	"errors"
	"regexp"
	"strings"

	"github.com/drone/envsubst/v2"
	"github.com/drone/envsubst/v2/parse"
)

// expansion is a text with its variables filled in.
type expansion struct {
	text string
	// used are the names that the text refers to, unknown the ones that
	// are neither known nor have a default (S3.17), each once, in the order
	// in which they are evaluated.
	used, unknown []string
}

// errSubstring stands for the one thing that is known to make the library
// panic, and Flux's too.
var errSubstring = errors.New("a substring has a length that no text can have")

// expand fills variables into a text (S3.30 to S3.41). In strict mode the text
// is empty if there are unknown variables.
//
// The library's mapping cannot say "unknown", so strict mode looks at the
// parse tree first (S3.47). The library panics on some input (S3.48); that
// becomes an error. Errors hold no value.
func expand(text string, vars map[string]Variable, strict bool) (e expansion, err error) {
	defer func() {
		if recover() != nil {
			// The panic's own text may hold a value.
			err = errSubstring
		}
	}()
	if strings.Count(text, "${") > maxExpressions {
		return expansion{}, beyond("it holds more than %d expressions", maxExpressions)
	}
	tree, err := parse.Parse(text)
	if err != nil {
		return expansion{}, err
	}
	if nested(tree.Root) > maxNested {
		return expansion{}, beyond("its expressions lie more than %d deep in each other", maxNested)
	}
	seen := map[string]bool{}
	missing := map[string]bool{}
	cuts, most := false, len(text)
	walk(tree.Root, func(f *parse.FuncNode) {
		if !seen[f.Param] {
			seen[f.Param], e.used = true, append(e.used, f.Param)
		}
		value := vars[f.Param].Value
		cuts = cuts || lengths(f) || replaces(f, value)
		most += 3 * len(value) // a letter in upper case may have more bytes
		if _, known := vars[f.Param]; !known && !hasDefault(f.Name) && !missing[f.Param] {
			missing[f.Param], e.unknown = true, append(e.unknown, f.Param)
		}
	})
	if len(e.used) > maxNames {
		return expansion{}, beyond("it uses more than %d different variables", maxNames)
	}
	if strict && len(e.unknown) > 0 {
		return e, nil
	}
	value := func(name string) string { return vars[name].Value }
	if cuts || most > maxText {
		e.text, err = (&evaluator{value: value}).evaluate(tree.Root)
		return e, err
	}
	template, err := envsubst.Parse(text)
	if err != nil {
		return expansion{}, err
	}
	e.text, err = template.Execute(value)
	return e, err
}

// walk visits the functions of a parse tree in the order of evaluation:
// arguments before the function itself (S3.19).
func walk(n parse.Node, visit func(*parse.FuncNode)) {
	// A text is a list in a list for each of its variables; following the
	// last item in a loop keeps the stack short.
	for {
		switch node := n.(type) {
		case *parse.FuncNode:
			for _, arg := range node.Args {
				walk(arg, visit)
			}
			visit(node)
			return
		case *parse.ListNode:
			if len(node.Nodes) == 0 {
				return
			}
			last := len(node.Nodes) - 1
			for _, child := range node.Nodes[:last] {
				walk(child, visit)
			}
			n = node.Nodes[last]
		default:
			return
		}
	}
}

// hasDefault reports whether an operator stands for a default, so that the
// variable need not be known (S3.18).
func hasDefault(operator string) bool {
	switch operator {
	case "-", "+", "=", "?", ":-", ":+", ":=", ":?":
		return true
	}
	return false
}

// validName is Flux's rule for names (S3.9).
var validName = regexp.MustCompile(`^[_[:alpha:]][_[:alpha:][:digit:]]*$`)

// offending returns the first line of the text that cannot be parsed by
// itself, counted from 1, and its text from the "$" on, cut short; 0 if the
// trouble spans lines.
func offending(text string) (line int, expression string) {
	parsed := 0
	for i, l := range strings.Split(text, "\n") {
		at := strings.Index(l, "${")
		if at < 0 {
			continue
		}
		if parsed += len(l) * strings.Count(l, "${"); parsed > maxProduced {
			return 0, ""
		}
		for at >= 0 {
			if _, err := parse.Parse(l[at:]); err == nil {
				break
			}
			next := strings.Index(l[at+2:], "${")
			if next < 0 {
				return i + 1, excerpt(l[at:])
			}
			if _, err := parse.Parse(l[at : at+2+next]); err != nil {
				return i + 1, excerpt(l[at:])
			}
			at += 2 + next
		}
	}
	return 0, ""
}

// excerpt cuts an expression at its end or after 40 characters.
func excerpt(s string) string {
	const most = 40
	if end := strings.IndexByte(s, '}'); end >= 0 {
		s = s[:end+1]
	}
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}
