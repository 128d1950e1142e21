package substitute

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
)

// switchKey is the label or annotation that turns substitution off for one
// object when its value is "disabled" (S3.2).
const switchKey = flux.Group + "/substitute"

func disabled(o flux.Object) bool {
	return o.GetLabels()[switchKey] == kustomizev1.DisabledValue || o.GetAnnotations()[switchKey] == kustomizev1.DisabledValue
}

// Apply returns the objects with the variables filled in; objects that nothing
// changes in are returned as they are. What is left open is told in one notice. Without spec.postBuild, and without any
// variable unless substituteStrategy is Always, that is all of them (S3.1,
// S3.6).
//
// The error joins a *flux.Problem for each bad variable name (S3.9), each unknown
// variable of each object (S3.17), each object that is no longer valid
// afterwards (S3.22, S3.26), and each two objects that became one (S3.12).
func Apply(k *flux.Kustomization, objects []flux.Object, v Variables, opts Options) ([]flux.Object, []Notice, error) {
	if !Wanted(k, objects) {
		return objects, nil, nil
	}
	if len(v.byName) == 0 && len(v.unreachable) == 0 && k.Spec.PostBuild.SubstituteStrategy != kustomizev1.SubstituteStrategyAlways {
		return objects, nil, nil
	}
	a := &application{k: k, vars: v, opts: opts, lines: finder{tree: opts.Tree}}
	if a.names(); len(a.problems) > 0 {
		return nil, nil, flux.JoinProblems(a.problems)
	}
	out := make([]flux.Object, len(objects))
	changed := make([]bool, len(objects))
	for i, o := range objects {
		out[i] = o
		if disabled(o) {
			continue
		}
		if filled, ok := a.object(o); ok {
			out[i], changed[i] = filled, true
		}
		if a.total > maxTotal {
			a.fail(o, 0, limitRemedy, beyond("with it the objects become larger than %d MiB by the values that are filled in", maxTotal>>20))
			return nil, nil, flux.JoinProblems(a.problems)
		}
	}
	a.collisions(objects, out, changed)
	if a.more > 0 {
		a.problems = append(a.problems, &flux.Problem{Kustomization: a.k.ID, File: a.k.File, Line: a.k.Line,
			Err: fmt.Errorf("variable substitution has %d more problems, which are not listed", a.more)})
	}
	if err := flux.JoinProblems(a.problems); err != nil {
		return nil, nil, err
	}
	a.tellOpen()
	return out, a.notices, nil
}

// application is one call of Apply.
type application struct {
	k        *flux.Kustomization
	vars     Variables
	opts     Options
	lines    finder
	noted    map[string]bool
	open     map[string]bool // left as they are
	assumed  map[string]bool // of which the default was taken, though they may be set
	problems []*flux.Problem
	more     int // problems that are not in the list
	total    int // bytes of all filled objects
	notices  []Notice
}

func (a *application) fail(o flux.Object, line int, remedy string, err error) {
	if len(a.problems) >= maxProblems {
		a.more++
		return
	}
	a.problems = append(a.problems, &flux.Problem{
		Kustomization: a.k.ID, File: o.File, Line: line, Object: o.Ref().String(), Err: err, Remedy: remedy,
	})
}

// names checks every known name, used or not.
func (a *application) names() {
	for _, name := range a.vars.Names() {
		if validName.MatchString(name) {
			continue
		}
		a.problems = append(a.problems, &flux.Problem{
			Kustomization: a.k.ID,
			File:          a.k.File,
			Line:          a.k.Line,
			Err:           fmt.Errorf("'%s' var name is invalid, must match '%s' (set by %s)", name, validName, a.vars.byName[name].From),
			Remedy:        "rename the key: every key of a substituteFrom object is a variable name, used or not",
		})
	}
}

// object fills the variables into one object; false if it stays as it is or
// cannot be filled.
func (a *application) object(o flux.Object) (flux.Object, bool) {
	text, err := yaml.Marshal(o.Object)
	if err != nil {
		a.fail(o, 0, "", fmt.Errorf("writing it as YAML: %w", err))
		return o, false
	}
	if !strings.Contains(string(text), "$") {
		return o, false
	}
	e, err := expand(string(text), a.vars.byName, a.opts.Strict)
	if err != nil {
		a.unparsable(o, string(text), err)
		return o, false
	}
	var open []string
	if len(a.vars.unreachable) > 0 {
		a.assume(e)
		if a.opts.KeepOpen && len(e.unknown) > 0 {
			open = e.unknown
			a.leave(open)
			if e, err = expandOpen(string(text), a.vars.byName, open, a.opts.Strict); err != nil {
				a.unparsable(o, string(text), err)
				return o, false
			}
		}
	}
	if a.opts.Strict && len(e.unknown) > 0 {
		a.unset(o, e.unknown)
		return o, false
	}
	if e.text == string(text) {
		o.Open = open
		return o, len(open) > 0
	}
	a.total += len(e.text)
	if err := tame(e.text); err != nil {
		a.unparsable(o, string(text), err)
		return o, false
	}
	filled, err := parseObject(e.text)
	if limit := (*limitError)(nil); errors.As(err, &limit) {
		a.unparsable(o, string(text), err)
		return o, false
	}
	if err != nil {
		a.invalid(o, string(text), e, err)
		return o, false
	}
	out := flux.Object{Unstructured: filled, File: o.File, Open: open}
	if !a.retyped(o, out, e) {
		return o, false
	}
	a.newlines(e.used)
	return out, true
}

// unset reports variables that nobody sets (S3.17).
func (a *application) unset(o flux.Object, names []string) {
	for _, name := range names {
		remedy := fmt.Sprintf("set it in postBuild, give it a default as in ${%s:=value}, pass --var %s=…, or write $${%s} if it is no variable", name, name, name)
		if len(a.vars.unreachable) > 0 {
			remedy = fmt.Sprintf("%s may set it: pass --var %s=…, name the cluster with --context, or leave it as it is with --keep-open",
				strings.Join(a.vars.unreachable, " or "), name)
		}
		a.fail(o, a.lines.variable(o, name), remedy, fmt.Errorf("variable not set (strict mode): %q", name))
	}
}

// parseObject reads a text as Flux does: YAML 1.1, by way of JSON.
func parseObject(text string) (o *unstructured.Unstructured, err error) {
	json, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return nil, err
	}
	if len(json) > maxObject {
		return nil, beyond("after substitution it has more than %d MiB, which no API server takes", maxObject>>20)
	}
	o = &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(json); err != nil {
		return nil, err
	}
	return o, nil
}

// unparsable reports a text that the grammar does not admit (S3.40), with the
// expression unless the object is a Secret.
func (a *application) unparsable(o flux.Object, text string, err error) {
	if limit := (*limitError)(nil); errors.As(err, &limit) {
		a.fail(o, 0, limitRemedy, fmt.Errorf("variable substitution refused: %w", err))
		return
	}
	_, expression := offending(text)
	line := a.lines.text(o, expression)
	what := fmt.Errorf("variable substitution failed: %w", err)
	if expression != "" && o.GetKind() != "Secret" {
		what = fmt.Errorf("variable substitution failed: %w: %q", err, expression)
	}
	a.fail(o, line, "write $${ for text that is no variable, or set the annotation "+switchKey+": disabled", what)
}

var yamlLine = regexp.MustCompile(`line (\d+)`)

// invalid reports an object that is no valid object any more. The library's
// words may quote a value, so only its line is used, to show the text as it
// was before.
func (a *application) invalid(o flux.Object, before string, e expansion, err error) {
	var names []string
	for _, name := range e.used {
		names = append(names, strconv.Quote(name))
	}
	slices.Sort(names)
	what := "the object is not valid YAML after substitution"
	if len(names) > 0 {
		what += " of " + strings.Join(names, ", ")
	}
	line := 0
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		n, _ := strconv.Atoi(m[1]) // the expression admits digits only
		lines := strings.Split(before, "\n")
		// The library counts from the start of what it was reading, so the
		// trouble is there or up to two lines on.
		for i := n - 1; i >= 0 && i < len(lines) && i < n+2; i++ {
			if at := strings.Index(lines[i], "${"); at >= 0 {
				line = a.lines.text(o, excerpt(lines[i][at:]))
				if o.GetKind() != "Secret" {
					what += fmt.Sprintf(", near %q", strings.TrimSpace(lines[i]))
				}
				break
			}
		}
	}
	a.fail(o, line, "give the value quotes of its own, as in '\"a: b\"'", fmt.Errorf("%s", what))
}

// newlines notes, once for each variable that is used, that its value arrived
// on one line.
func (a *application) newlines(used []string) {
	for _, name := range used {
		one, ok := a.vars.byName[name]
		if !ok || !one.newlines || a.noted[name] {
			continue
		}
		if a.noted == nil {
			a.noted = map[string]bool{}
		}
		a.noted[name] = true
		a.notices = append(a.notices, Notice{
			Code:   "newlines-removed",
			Object: "Kustomization/" + a.k.ID.String(),
			File:   a.k.File,
			Line:   a.k.Line,
			Text:   fmt.Sprintf("the value of variable %q (%s) has several lines; they are joined without a space, as in Flux", name, one.From),
			Hint:   "a variable cannot hold several lines: mount the ConfigMap or Secret instead",
		})
	}
}

// collisions reports objects that became the same (S3.12).
func (a *application) collisions(before, after []flux.Object, changed []bool) {
	first := map[flux.Ref]int{}
	for i, o := range after {
		j, taken := first[o.Ref()]
		if !taken {
			first[o.Ref()] = i
			continue
		}
		if !changed[i] && !changed[j] {
			continue
		}
		a.fail(after[i], 0, "give them different names", fmt.Errorf("after substitution %s (%s) and %s (%s) are the same object",
			before[j].Ref(), before[j].File, before[i].Ref(), before[i].File))
	}
}
