package substitute

import (
	"strconv"
	"strings"

	"github.com/drone/envsubst/v2"
	"github.com/drone/envsubst/v2/parse"
)

// lengths reports whether a parsed text cuts a substring of a given length,
// which may be negative.
func lengths(f *parse.FuncNode) bool { return f.Name == ":" && len(f.Args) == 2 }

// evaluate fills variables into a parsed text as the library does, except that
// a negative length of a substring counts from the end, as in Flux's copy of
// the library (S3.36); the library itself panics. Every other function is the
// library's own.
func (e *evaluator) evaluate(n parse.Node) (string, error) {
	var b strings.Builder
	add := func(text string) error {
		if err := e.made(len(text)); err != nil {
			return err
		}
		if b.Len()+len(text) > maxText {
			return e.made(maxText + 1)
		}
		b.WriteString(text)
		return nil
	}
	for { // as in walk
		switch node := n.(type) {
		case *parse.TextNode:
			err := add(node.Value)
			return b.String(), err
		case *parse.FuncNode:
			var args []string
			for _, arg := range node.Args {
				text, err := e.evaluate(arg)
				if err != nil {
					return "", err
				}
				args = append(args, text)
			}
			value := e.value(node.Param)
			if err := e.affordable(node, value, args); err != nil {
				return "", err
			}
			text, err := call(node, value, args)
			if err == nil {
				err = add(text)
			}
			return b.String(), err
		case *parse.ListNode:
			if len(node.Nodes) == 0 {
				return b.String(), nil
			}
			last := len(node.Nodes) - 1
			for _, child := range node.Nodes[:last] {
				text, err := e.evaluate(child)
				if err == nil {
					err = add(text)
				}
				if err != nil {
					return "", err
				}
			}
			n = node.Nodes[last]
		default:
			return b.String(), nil
		}
	}
}

// call applies a function to the value of its variable.
func call(f *parse.FuncNode, value string, args []string) (string, error) {
	if lengths(f) {
		if text, ok := fromEnd(value, args[0], args[1]); ok {
			return text, nil
		}
	}
	var text string
	switch f.Name {
	case "":
		return value, nil
	case ",", ",,", "^", "^^":
		text = "${v" + f.Name + "}"
	case "/", "//", "/#", "/%":
		text = "${v" + f.Name + "${a}/}"
		if len(args) == 2 {
			text = "${v" + f.Name + "${a}/${b}}"
		}
	case ":":
		text = "${v:${a}}"
		if len(args) == 2 {
			text = "${v:${a}:${b}}"
		}
	case "#", "##", "%", "%%":
		text = "${v" + f.Name + "${a}}"
		if len(args) == 0 {
			text = "${#v}"
		}
	default: // the defaults, whose arguments are the parts of one
		text, args = "${v:=${a}}", []string{strings.Join(args, "")}
	}
	template, err := envsubst.Parse(text)
	if err != nil {
		return "", err
	}
	return template.Execute(func(name string) string {
		switch name {
		case "v":
			return value
		case "a":
			return args[0]
		default:
			return args[1]
		}
	})
}

// fromEnd cuts a substring whose length is negative: as many bytes are left
// out at the end. A negative position counts from the end too, and what ends
// before it begins is empty. False if the length is no negative number.
func fromEnd(value, position, length string) (string, bool) {
	pos, err := strconv.Atoi(position)
	if err != nil {
		return "", false
	}
	n, err := strconv.Atoi(length)
	if err != nil || n >= 0 {
		return "", false
	}
	if pos < 0 {
		pos = max(0, len(value)+pos)
	}
	end := len(value) + n
	if end < pos {
		return "", true
	}
	return value[pos:end], true
}
