package substitute

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/sluicerun/sluice/internal/flux"
)

// Precedence says which value wins for a name that is set both in
// postBuild.substitute and in an object of postBuild.substituteFrom.
type Precedence string

const (
	// InlineFirst is Flux's rule (S3.4): substitute wins. It is also the
	// meaning of the zero value.
	InlineFirst Precedence = "inline"
	// FromFirst lets substituteFrom win (S14.2).
	FromFirst Precedence = "from"
)

// Options are what a run can choose.
type Options struct {
	Precedence Precedence
	// Extra are variables given on the command line. They win over all
	// others. They too are filled in only where spec.postBuild is set.
	Extra map[string]string
	// Strict makes a variable that is unknown and has no default an error
	// (S3.16); otherwise it becomes the empty string.
	Strict bool
	// KeepOpen leaves a variable as it is, ${NAME}, if only an object that
	// could not be asked may set it (ErrUnreachable). The objects it is in
	// say so, see flux.Object. Otherwise it counts as one that nobody sets.
	KeepOpen bool
	// HideSecrets fills in Hidden for every variable that a Secret sets, for
	// output that people read.
	HideSecrets bool
	// Tree is the tree that the objects were built from; with it, errors
	// name lines. It may be nil.
	Tree fs.FS
}

// ErrUnreachable is what a Lookup returns for an object that may exist where it
// cannot look, such as in a cluster that is not to be asked.
var ErrUnreachable = errors.New("cannot be looked up without a cluster")

// Hidden stands for a secret value. It is plain text in YAML, unlike one that
// begins with an asterisk.
const Hidden = "<secret>"

// Lookup returns the data of a ConfigMap or Secret, decoded, and whether its
// values are secret. found is false, with no error, if it does not exist.
type Lookup func(ctx context.Context, kind, namespace, name string) (data map[string]string, secret, found bool, err error)

// Variable is a name with its value.
type Variable struct {
	Name string
	// Value is the value as it is filled in: without newlines (S3.8).
	Value string
	// From is "inline", "--var", or "Kind/namespace/name".
	From string
	// Secret says that the value came from a Secret, or that one of that
	// name did and was overridden.
	Secret bool

	newlines bool
}

// Variables are the variables of one Kustomization. The zero value holds none.
type Variables struct {
	byName  map[string]Variable
	secrets map[string]bool
	// unreachable says what may set more, in the order of the spec.
	unreachable []string
}

// Names returns the known names, sorted.
func (v Variables) Names() []string { return slices.Sorted(maps.Keys(v.byName)) }

// Get returns a variable by name.
func (v Variables) Get(name string) (Variable, bool) {
	one, ok := v.byName[name]
	return one, ok
}

// Secrets returns every value that came from a Secret, as it was there and as
// it is filled in, overridden ones too, sorted: what must not be shown.
func (v Variables) Secrets() []string { return slices.Sorted(maps.Keys(v.secrets)) }

// Notice tells the user something that is no failure.
type Notice struct {
	// Code is a stable name: "shadowed-variable", "newlines-removed",
	// "type-changed" or "open-variables".
	Code string
	// Object, File and Line say what it is about, as far as known.
	Object string
	File   string
	Line   int
	Text   string
	Hint   string
}

// Wanted reports whether the Kustomization asks for substitution in any of the
// objects. If not, Flux does not even look at substituteFrom, so a missing
// object is no error (S3.1, S3.3).
func Wanted(k *flux.Kustomization, objects []flux.Object) bool {
	return k.Spec.PostBuild != nil && slices.ContainsFunc(objects, func(o flux.Object) bool { return !disabled(o) })
}

// Load collects the variables of a Kustomization: those of substituteFrom in
// list order, later ones over earlier ones, then substitute over them (or under
// them, see Options), then opts.Extra over all (S3.4 to S3.8). It returns none
// if spec.postBuild is not set.
//
// The error joins one *flux.Problem for each object that cannot be read; those that
// are missing and not optional hold a *MissingError, see Missing.
func Load(ctx context.Context, k *flux.Kustomization, lookup Lookup, opts Options) (Variables, []Notice, error) {
	v := Variables{byName: map[string]Variable{}, secrets: map[string]bool{}}
	if k.Spec.PostBuild == nil {
		return v, nil, nil
	}
	from, err := v.from(ctx, k, lookup, opts.HideSecrets)
	if err != nil {
		return Variables{}, nil, err
	}
	inline := map[string]Variable{}
	for name, value := range k.Spec.PostBuild.Substitute {
		if !holdsAny(value, k.Open) { // else it is not known what it is set to
			inline[name] = variable(name, value, "inline")
		}
	}
	if len(k.Open) > 0 {
		v.unreachable = append(v.unreachable, "postBuild.substitute, which holds open variables itself,")
	}
	first, last := from, inline
	if opts.Precedence == FromFirst {
		first, last = inline, from
	}
	maps.Copy(v.byName, first)
	maps.Copy(v.byName, last)
	var notices []Notice
	for _, name := range slices.Sorted(maps.Keys(inline)) {
		other, both := from[name]
		if !both || other.Value == inline[name].Value {
			continue
		}
		wins, hint := v.byName[name].From, fmt.Sprintf("as in Flux, inline values win; remove %q from one of the two", name)
		if opts.Precedence == FromFirst {
			hint = fmt.Sprintf("with --substitute-precedence=from, objects win, unlike in Flux; remove %q from one of the two", name)
		}
		notices = append(notices, Notice{
			Code:   "shadowed-variable",
			Object: "Kustomization/" + k.ID.String(),
			File:   k.File,
			Line:   k.Line,
			Text:   fmt.Sprintf("variable %q is set both in postBuild.substitute and in %s, with different values; the one from %q is used", name, other.From, wins),
			Hint:   hint,
		})
	}
	for name, value := range opts.Extra {
		v.byName[name] = variable(name, value, "--var")
	}
	for name, one := range v.byName {
		if f, ok := from[name]; ok && f.Secret {
			one.Secret = true
			v.byName[name] = one
		}
	}
	return v, notices, nil
}

// from reads the objects of substituteFrom (S3.5).
func (v *Variables) from(ctx context.Context, k *flux.Kustomization, lookup Lookup, hide bool) (map[string]Variable, error) {
	vars := map[string]Variable{}
	var problems []*flux.Problem
	fail := func(ref kustomizev1.SubstituteReference, err error, remedy string) {
		problems = append(problems, &flux.Problem{Kustomization: k.ID, File: k.File, Line: k.Line, Err: err, Remedy: remedy})
	}
	for _, ref := range k.Spec.PostBuild.SubstituteFrom {
		data, secret, found, err := lookup(ctx, ref.Kind, k.Namespace, ref.Name)
		switch {
		case errors.Is(err, ErrUnreachable):
			v.unreachable = append(v.unreachable, fmt.Sprintf("%s/%s/%s, which only the cluster has,", ref.Kind, k.Namespace, ref.Name))
		case err != nil:
			fail(ref, fmt.Errorf("substitute from '%s/%s' error: %w", ref.Kind, ref.Name, err), "")
		case !found && ref.Optional:
		case !found:
			fail(ref, &MissingError{Kind: ref.Kind, Namespace: k.Namespace, Name: ref.Name},
				fmt.Sprintf("create it in namespace %q, where substituteFrom looks, or set optional: true", k.Namespace))
		}
		for name, value := range data {
			one := variable(name, value, fmt.Sprintf("%s/%s/%s", ref.Kind, k.Namespace, ref.Name))
			if secret {
				v.secrets[value], v.secrets[one.Value] = true, true
				if hide {
					one.Value = Hidden
				}
			}
			one.Secret = secret || vars[name].Secret
			vars[name] = one
		}
	}
	delete(v.secrets, "")
	return vars, flux.JoinProblems(problems)
}

// variable makes a variable of a value as it was set; all newlines go (S3.8).
func variable(name, value, from string) Variable {
	one := Variable{Name: name, Value: strings.ReplaceAll(value, "\n", ""), From: from}
	// One at the end is only how YAML writes a block; nobody misses it.
	one.newlines = strings.Contains(strings.TrimRight(value, "\n"), "\n")
	return one
}
