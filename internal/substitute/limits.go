package substitute

import (
	"fmt"
	"strings"

	"github.com/drone/envsubst/v2/parse"
	"go.yaml.in/yaml/v3"
)

// What a text may ask of substitution. The grammar lets a few characters make very
// long texts, ${a//x/${a//x/${a}}} for one, and the library goes one call deeper for
// each expression, in a stack that cannot be caught when it is full. So limits are
// looked at before. They are far from what manifests hold;
// docs/kustomizations.md lists them.
const (
	// maxExpressions is how many ${…} an object may hold, maxNames how many
	// different variables, and maxNested how deep they may lie in each other's
	// defaults and patterns.
	maxExpressions, maxNames, maxNested = 50_000, 1_000, 50
	// maxText is how long an object's text may become, maxProduced all that is
	// made on the way to it, and maxTotal all objects of a Kustomization; in bytes.
	maxText, maxProduced, maxTotal = 8 << 20, 64 << 20, 256 << 20
	// maxObject is the size of an object in JSON that API servers take.
	maxObject = 3 << 20
	// maxWork is how many comparisons patterns may cost in one object.
	maxWork = 1 << 30
	// maxNesting and maxValues are what the YAML of a filled object may hold: a
	// value can be YAML itself.
	maxNesting, maxValues = 500, 1_000_000
	// maxProblems is how many problems are told, and maxScanned how many bytes
	// are looked through for their lines.
	maxProblems, maxScanned = 1_000, 256 << 20
)

// limitError says that a limit is passed.
type limitError struct{ text string }

func (e *limitError) Error() string { return e.text }

func beyond(format string, args ...any) error { return &limitError{fmt.Sprintf(format, args...)} }

// limitRemedy is what to do about it.
const limitRemedy = "use fewer or shorter variables, or set the annotation " + switchKey + ": disabled on what holds none"

// nested returns how deep the functions of a parsed text lie in each other's
// arguments.
func nested(n parse.Node) int {
	deepest := 0
	for { // as in walk
		switch node := n.(type) {
		case *parse.FuncNode:
			below := 0
			for _, arg := range node.Args {
				below = max(below, nested(arg))
			}
			return max(deepest, below+1)
		case *parse.ListNode:
			if len(node.Nodes) == 0 {
				return deepest
			}
			last := len(node.Nodes) - 1
			for _, child := range node.Nodes[:last] {
				deepest = max(deepest, nested(child))
			}
			n = node.Nodes[last]
		default:
			return deepest
		}
	}
}

// replaces reports whether a function's result can be longer than its value and
// arguments together, or take long to find.
func replaces(f *parse.FuncNode, value string) bool {
	switch f.Name {
	case "/", "//", "/#", "/%":
		return true
	case "#", "##", "%", "%%":
		return len(f.Args) > 0 && len(value) > 256
	}
	return false
}

// evaluator counts what filling in one text costs.
type evaluator struct {
	value    func(name string) string
	produced int
	work     int
}

// made counts a text that was made, and refuses one that is too long.
func (e *evaluator) made(size int) error {
	if e.produced += size; size > maxText || e.produced > maxProduced {
		return beyond("the text becomes longer than %d MiB by the values that are filled in", maxText>>20)
	}
	return nil
}

// affordable refuses a call before it is made.
func (e *evaluator) affordable(f *parse.FuncNode, value string, args []string) error {
	if len(args) == 0 {
		return nil
	}
	switch f.Name {
	case "/", "//", "/#", "/%":
		if len(args) > 1 {
			times := 1
			if f.Name == "//" {
				times = strings.Count(value, args[0])
			}
			return e.made(len(value) + times*len(args[1]))
		}
	case "#", "##", "%", "%%":
		if e.work += len(value) * len(value) * (len(args[0]) + 1); e.work > maxWork || len(value) > 1<<16 || len(args[0]) > 1<<16 {
			return beyond("the pattern of ${%s%s…} is compared with a value that is too long for it", f.Param, f.Name)
		}
	}
	return nil
}

// brackets is how many brackets of lists and maps are open at once in a text, at
// most.
func brackets(text string) int {
	open, most := 0, 0
	for _, c := range []byte(text) {
		switch c {
		case '[', '{':
			open++
			most = max(most, open)
		case ']', '}':
			open = max(0, open-1)
		}
	}
	return most
}

// tame refuses the YAML of a filled object that a parser would need too much for.
// What does not parse is left to the one that reads it.
func tame(text string) error {
	if commas := strings.Count(text, ","); commas > 2*maxValues {
		return beyond("after substitution it holds more than %d commas, too many for its YAML to be read", 2*maxValues)
	} else if commas < maxValues/4 && brackets(text) <= maxNesting/4 && !(strings.Contains(text, "&") && strings.Contains(text, "*")) {
		return nil // as nearly every one: the object was not too much before, and values hold no line ends
	}
	var doc yaml.Node
	if yaml.Unmarshal([]byte(text), &doc) != nil {
		return nil
	}
	type weight struct{ values, levels int }
	known := map[*yaml.Node]weight{}
	var weigh func(n *yaml.Node) weight
	weigh = func(n *yaml.Node) weight {
		switch {
		case n.Kind == yaml.ScalarNode:
			return weight{values: 1}
		case n.Kind == yaml.AliasNode:
			return weigh(n.Alias)
		}
		if w, ok := known[n]; ok {
			return w
		}
		known[n] = weight{values: maxValues} // while it is being counted: it has no end within itself
		w := weight{values: 1}
		for _, child := range n.Content {
			below := weigh(child)
			w.values, w.levels = min(w.values+below.values, maxValues), max(w.levels, below.levels+1)
		}
		known[n] = w
		return w
	}
	switch w := weigh(&doc); {
	case w.values >= maxValues:
		return beyond("after substitution its YAML holds more than %d values, aliases counted as what they stand for", maxValues)
	case w.levels > maxNesting:
		return beyond("after substitution its maps and lists lie more than %d deep within each other", maxNesting)
	}
	return nil
}
