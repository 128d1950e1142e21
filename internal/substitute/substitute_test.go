package substitute_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/substitute"
)

// object reads an object as build would give it.
func object(t testing.TB, text string) flux.Object {
	t.Helper()
	json, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o := flux.Object{Unstructured: &unstructured.Unstructured{}, File: "app/a.yaml"}
	if err := o.UnmarshalJSON(json); err != nil {
		t.Fatal(err)
	}
	return o
}

// kustomization has a postBuild with inline values.
func kustomization(inline map[string]string, from ...kustomizev1.SubstituteReference) *flux.Kustomization {
	k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "app"}, File: "clusters/app.yaml", Line: 3}
	k.Spec.PostBuild = &kustomizev1.PostBuild{Substitute: inline, SubstituteFrom: from}
	return k
}

// store answers lookups from "Kind/namespace/name".
type store map[string]map[string]string

func (s store) lookup(_ context.Context, kind, namespace, name string) (map[string]string, bool, bool, error) {
	if name == "forbidden" {
		return nil, false, false, errors.New("no rights")
	}
	data, found := s[kind+"/"+namespace+"/"+name]
	return data, kind == "Secret", found, nil
}

var strict = substitute.Options{Strict: true}

// apply loads and fills in.
func apply(t testing.TB, k *flux.Kustomization, s store, opts substitute.Options, objects ...flux.Object) ([]flux.Object, []substitute.Notice, error) {
	t.Helper()
	v, notices, err := substitute.Load(context.Background(), k, s.lookup, opts)
	if err != nil {
		return nil, notices, err
	}
	out, more, err := substitute.Apply(k, objects, v, opts)
	return out, append(notices, more...), err
}

// thing is an object of a kind without schema, with one field.
func thing(t testing.TB, field string) flux.Object {
	t.Helper()
	return object(t, "apiVersion: x.example.com/v1\nkind: Thing\nmetadata:\n  name: t\nspec:\n  f: "+field+"\n")
}

// TestTypes (S3.22 to S3.25): the value is typed anew by the text.
func TestTypes(t *testing.T) {
	for _, test := range []struct {
		field, value string
		want         any
	}{
		{`"${v}"`, "9797", int64(9797)},
		{`${v}`, "9797", int64(9797)},
		{`${v}`, "0755", int64(493)},
		{`${v}`, "0x10", int64(16)},
		{`${v}`, "1_000", int64(1000)},
		{`${v}`, "1e3", int64(1000)},
		{`${v}`, "1.10", 1.1},
		{`${v}`, "true", true},
		{`${v}`, "yes", true},
		{`${v}`, "on", true},
		{`${v}`, "y", true},
		{`${v}`, "off", false},
		{`${v}`, "null", nil},
		{`${v}`, "~", nil},
		{`${v}`, "", nil},
		{`${v}`, "2024-01-01", "2024-01-01"},
		{`${v}`, "12:30:45", "12:30:45"},
		{`${v}`, "123abc", "123abc"},
		{`${v}`, "a #b", "a"},
		{`${v}`, "[1,2]", []any{int64(1), int64(2)}},
		{`${v}`, "{a: b}", map[string]any{"a": "b"}},
		{`${v}`, `"9797"`, "9797"},
		{`${v}`, "!!str 9797", "9797"},
		{`v${v}`, "1", "v1"},                       // S3.23
		{`${v}${v}`, "1", int64(11)},               // S3.23
		{`"${v}: x"`, "1", "1: x"},                 // S3.24
		{`"*${v}"`, "1", "*1"},                     // S3.24
		{"|\n    ${v}\n    x", "1", "1\nx\n"},      // S3.23: block scalars are text
		{`"q${v}q"`, "two\nlines\n", "qtwolinesq"}, // S3.8
		{`${q}${v}${q}`, "9797", "9797"},           // S3.25
		{`'${q}${v}${q}'`, "true", "true"},         // S3.25
	} {
		out, _, err := apply(t, kustomization(map[string]string{"v": test.value, "q": `"`}), nil, strict, thing(t, test.field))
		if err != nil {
			t.Errorf("%s with %q: %v", test.field, test.value, err)
			continue
		}
		spec, _ := out[0].Object["spec"].(map[string]any)
		if got := spec["f"]; fmt.Sprintf("%T %v", got, got) != fmt.Sprintf("%T %v", test.want, test.want) {
			t.Errorf("%s with %q: got %T %v, want %T %v", test.field, test.value, got, got, test.want, test.want)
		}
	}
	for _, value := range []string{".inf", "a: b", "*x", "@x", "- x", "{a"} { // S3.22
		_, _, err := apply(t, kustomization(map[string]string{"v": value}), nil, strict, thing(t, "${v}"))
		if err == nil || !strings.Contains(err.Error(), `not valid YAML after substitution of "v"`) {
			t.Errorf("%q: error %v", value, err)
		}
	}
}

// TestGrammar (S3.30 to S3.40). The fields are block scalars, where nothing but
// the substitution changes the text.
func TestGrammar(t *testing.T) {
	vars := map[string]string{"a": "value", "empty": "", "path": "one/two/one", "n": "2", "B": "bee", "_x": "under"}
	for _, test := range []struct{ name, text, want string }{
		{"S3.30", "$a $(a) $ ${a} ${_x}", "$a $(a) $ value under"},
		{"S3.31", "$${a} $$${a} $$$$ $$", "${a} $value $$ $"},
		{"S3.32 colon minus", "${a:-d} ${no:-d} ${empty:-d}", "value d d"},
		{"S3.32 colon equals", "${a:=d} ${no:=d} ${empty:=d}", "value d d"},
		{"S3.32 equals", "${a=d} ${no=d} ${empty=d}", "value d d"},
		{"S3.33", "${a:+d} ${no:+d} ${no:?d}", "value d d"},
		{"S3.34 nested", "${no:=x${B}y} ${no:=} ${no:='q'}", "xbeey  'q'"},
		{"S3.34 dollars", "${no:=1$$2} ${no:=$${B}}", "1$$2 $bee"},
		{"S3.34 brace", `${no:=x\}y} ${no:={}}`, `x\y} {}`},
		{"S3.35", "${#a}", "5"},
		{"S3.36", "${a:1} ${a:1:2} ${a:9} ${a:1:99} ${a:x} ${a: -1} ${a:n}", "alue al  alue value value value"},
		{"S3.36 from the end", "${a:1:-1} ${a:0:-5} ${a:0:-6} ${a:4:-2} ${a:1:2} ${no:-${a:0:-4}}", "alu    al v"},
		{"S3.37", `${path/one/1} ${path//one/1} ${path/#one/1} ${path/%one/1} ${path/\//-}`, "1/two/one 1/two/1 1/two/one one/two/1 one-two/one"},
		{"S3.38", "${path#*/} ${path##*/} ${path%/*} ${path%%/*}", "two/one one one/two one"},
		{"S3.39", "${a^} ${a^^} ${B,} ${B,,}", "Value VALUE bee bee"},
		{"S3.40 templates", "{{ .Values.x }}", "{{ .Values.x }}"},
		{"S3.45", `\\ \/ a\b`, `\\ \/ a\b`},
	} {
		o := object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  text: |\n    "+test.text+"\n    end\n")
		out, _, err := apply(t, kustomization(vars), nil, strict, o)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got, _, _ := unstructured.NestedString(out[0].Object, "data", "text")
		if got != test.want+"\nend\n" {
			t.Errorf("%s: %s gave\n%q, want\n%q", test.name, test.text, got, test.want+"\nend\n")
		}
	}
}

// TestGrammarErrors (S3.33, S3.36, S3.37, S3.40, S3.41).
func TestGrammarErrors(t *testing.T) {
	for text, want := range map[string]string{
		"${}":                        "unable to parse variable name",
		"${ a}":                      "unable to parse variable name",
		"${{ a }}":                   "unable to parse variable name",
		"${!a}":                      "unable to parse variable name",
		"${a.b}":                     "missing closing brace",
		"${a }":                      "missing closing brace",
		"${a[@]}":                    "missing closing brace",
		"${a@Q}":                     "missing closing brace",
		"${a-d}":                     "missing closing brace",
		"${a":                        "missing closing brace",
		"${a:=b":                     "unable to parse substitution within function",
		"${a/x}":                     "bad substitution",
		"${a:1:9223372036854775807}": "a length that no text can have",
		"${a::2}":                    "unable to parse substitution within function",
	} {
		o := object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  text: |\n    first ${a}\n    "+text+"\n")
		opts := strict
		opts.Tree = fstest.MapFS{"app/a.yaml": {Data: []byte("kind: ConfigMap\n# " + text + "\ntext: |\n  first ${a}\n  " + text + "\n")}}
		_, _, err := apply(t, kustomization(map[string]string{"a": "value"}), nil, opts, o)
		all := flux.Problems(err)
		if len(all) != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", text, err, want)
			continue
		}
		e := all[0]
		if e.Object != "ConfigMap/c" || e.File != "app/a.yaml" || e.Remedy == "" || e.Kustomization.Name != "app" {
			t.Errorf("%s: error %+v", text, e)
		}
		if want != "a length that no text can have" && e.Line != 5 {
			t.Errorf("%s: line %d, want 5: %v", text, e.Line, err)
		}
	}
}

// TestStrict (S3.16 to S3.19): all unknown variables of all objects at once.
func TestStrict(t *testing.T) {
	a := object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: ns}\ndata: {x: '${one} ${two:=ok} ${#three}', k: '${known:-${four}}', z: '${one}'}\n")
	b := object(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: b}\nstringData: {x: '${five^^} ${six/a/b} ${known}'}\n")
	b.File = "app/b.yaml"
	opts := strict
	opts.Tree = fstest.MapFS{
		"app/a.yaml": {Data: []byte("# ${one}\nkind: ConfigMap\nx: $${one}\ny: ${one_more}\nz: ${one} ${two:=ok}\nl: ${#three}\n")},
		"app/b.yaml": {Data: []byte("kind: Secret\n---\nx: ${five^^}\n")},
	}
	_, _, err := apply(t, kustomization(map[string]string{"known": "x"}), nil, opts, b, a)
	var got []string
	for _, e := range flux.Problems(err) {
		got = append(got, e.Error())
		if e.Hint() == "" {
			t.Errorf("no hint: %v", e)
		}
	}
	want := []string{
		`flux-system/app: app/a.yaml: ConfigMap/ns/a: variable not set (strict mode): "four"`,
		`flux-system/app: app/a.yaml:5: ConfigMap/ns/a: variable not set (strict mode): "one"`,
		`flux-system/app: app/a.yaml:6: ConfigMap/ns/a: variable not set (strict mode): "three"`,
		`flux-system/app: app/b.yaml: Secret/b: variable not set (strict mode): "six"`,
		`flux-system/app: app/b.yaml:3: Secret/b: variable not set (strict mode): "five"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	out, _, err := apply(t, kustomization(map[string]string{"known": "x"}), nil, substitute.Options{}, a)
	if err != nil {
		t.Fatal(err)
	}
	data, _, _ := unstructured.NestedMap(out[0].Object, "data")
	if fmt.Sprint(data) != "map[k:x x:ok 0 z:<nil>]" {
		t.Errorf("not strict: %v", data)
	}
	_, _, err = apply(t, kustomization(map[string]string{"known": ""}), nil, strict, thing(t, "'[${known}]'"))
	if err != nil { // S3.17
		t.Errorf("known but empty: %v", err)
	}
}

// TestOperatorsOnUnknown (S3.17, S3.18): each operator on a variable that nobody
// knows, strict and not.
func TestOperatorsOnUnknown(t *testing.T) {
	for _, test := range []struct {
		text string
		// hasDefault says that strict mode passes; want is what both give then,
		// and what the other mode gives in any case.
		hasDefault bool
		want       string
	}{
		{"${no}", false, ""},
		{"${#no}", false, "0"},
		{"${no#x}", false, ""}, {"${no##x}", false, ""}, {"${no%x}", false, ""}, {"${no%%x}", false, ""},
		{"${no^}", false, ""}, {"${no^^}", false, ""}, {"${no,}", false, ""}, {"${no,,}", false, ""},
		{"${no:1}", false, ""}, {"${no:1:2}", false, ""}, {"${no:0:-1}", false, ""},
		{"${no/x/y}", false, ""}, {"${no//x/y}", false, ""}, {"${no/#x/y}", false, ""}, {"${no/%x/y}", false, ""},
		{"${no=d}", true, "d"}, {"${no:-d}", true, "d"}, {"${no:=d}", true, "d"}, {"${no:+d}", true, "d"}, {"${no:?d}", true, "d"},
		{"${no:=}", true, ""},
	} {
		for _, mode := range []substitute.Options{strict, {}} {
			o := thing(t, "'["+test.text+"]x'")
			out, _, err := apply(t, kustomization(map[string]string{"v": "x"}), nil, mode, o)
			if mode.Strict && !test.hasDefault {
				if all := flux.Problems(err); len(all) != 1 || all[0].Err.Error() != `variable not set (strict mode): "no"` {
					t.Errorf("%s: error %v", test.text, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s, strict %t: %v", test.text, mode.Strict, err)
				continue
			}
			if got, _, _ := unstructured.NestedString(out[0].Object, "spec", "f"); got != "["+test.want+"]x" {
				t.Errorf("%s, strict %t: %q", test.text, mode.Strict, got)
			}
		}
	}
	for _, text := range []string{"${no-d}", "${no+d}", "${no?d}"} { // they do not parse (S3.33)
		if _, _, err := apply(t, kustomization(map[string]string{"v": "x"}), nil, substitute.Options{}, thing(t, "'"+text+"'")); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

// TestText (S3.21): variables are filled into sorted YAML without comments,
// whose long lines are folded, so what a value does depends on where the line
// breaks.
func TestText(t *testing.T) {
	long := strings.TrimSpace(strings.Repeat("some words and ${v} then ", 12))
	o := thing(t, long+" # ${nobody}")
	for value, want := range map[string]string{
		"one":      strings.ReplaceAll(long, "${v}", "one"),
		"two  two": strings.ReplaceAll(long, "${v}", "two  two"),
	} {
		out, _, err := apply(t, kustomization(map[string]string{"v": value}), nil, strict, o)
		if err != nil {
			t.Errorf("%q: %v", value, err)
			continue
		}
		if got, _, _ := unstructured.NestedString(out[0].Object, "spec", "f"); got != want {
			t.Errorf("%q: got\n%s\nwant\n%s", value, got, want)
		}
	}
	// Of two spaces around nothing one is lost where a line breaks.
	out, _, err := apply(t, kustomization(map[string]string{"v": ""}), nil, strict, o)
	if err != nil {
		t.Fatal(err)
	}
	got, _, _ := unstructured.NestedString(out[0].Object, "spec", "f")
	if want := strings.ReplaceAll(long, "${v}", ""); !slices.Equal(strings.Fields(got), strings.Fields(want)) || len(got) != len(want)-1 {
		t.Errorf("got\n%s\nfrom\n%s", got, want)
	}
	// On one line a "#" would begin a comment and cut the rest off; in a text
	// of several lines that is an error.
	_, _, err = apply(t, kustomization(map[string]string{"v": "# x"}), nil, strict, o)
	if err == nil || !strings.Contains(err.Error(), "not valid YAML after substitution") {
		t.Errorf("error %v", err)
	}
}

// TestWhen (S3.1, S3.2, S3.3, S3.6).
func TestWhen(t *testing.T) {
	text := "x: '${v:=default}'"
	cm := func(metadata string) flux.Object {
		return object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c"+metadata+"}\ndata: {"+text+"}\n")
	}
	always := kustomization(nil)
	always.Spec.PostBuild.SubstituteStrategy = kustomizev1.SubstituteStrategyAlways
	key := "kustomize.toolkit.fluxcd.io/substitute"
	for _, test := range []struct {
		name   string
		k      *flux.Kustomization
		object flux.Object
		extra  map[string]string
		done   bool
	}{
		{"S3.1 no postBuild", &flux.Kustomization{}, cm(""), map[string]string{"v": "x"}, false},
		{"S3.6 no variables", kustomization(nil), cm(""), nil, false},
		{"S3.6 always", always, cm(""), nil, true},
		{"S3.6 one variable", kustomization(map[string]string{"other": "x"}), cm(""), nil, true},
		{"--var alone", kustomization(nil), cm(""), map[string]string{"other": "x"}, true},
		{"S3.2 label", always, cm(", labels: {" + key + ": disabled}"), nil, false},
		{"S3.2 annotation", always, cm(", annotations: {" + key + ": disabled}"), nil, false},
		{"S3.2 exactly", always, cm(", annotations: {" + key + ": Disabled}"), nil, true},
	} {
		out, _, err := apply(t, test.k, nil, substitute.Options{Strict: true, Extra: test.extra}, test.object)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got, _, _ := unstructured.NestedString(out[0].Object, "data", "x")
		if (got == "default") != test.done {
			t.Errorf("%s: %q", test.name, got)
		}
		if wanted := substitute.Wanted(test.k, []flux.Object{test.object}); wanted == strings.HasPrefix(test.name, "S3.1") && !strings.HasPrefix(test.name, "S3.2") {
			t.Errorf("%s: Wanted is %t", test.name, wanted)
		}
	}
	if substitute.Wanted(always, nil) || substitute.Wanted(always, []flux.Object{cm(", labels: {" + key + ": disabled}")}) {
		t.Error("S3.3: nothing to fill in, yet wanted")
	}
}

// TestPrecedence (S3.4, S3.5, S14.2).
func TestPrecedence(t *testing.T) {
	ref := func(kind, name string) kustomizev1.SubstituteReference {
		return kustomizev1.SubstituteReference{Kind: kind, Name: name}
	}
	k := kustomization(map[string]string{"inline": "i", "both": "i", "same": "s", "cli": "i"},
		ref("ConfigMap", "one"), ref("Secret", "two"))
	s := store{
		"ConfigMap/flux-system/one": {"both": "one", "same": "s", "from": "one", "last": "one", "over": "one"},
		"Secret/flux-system/two":    {"last": "two", "over": "secret\nvalue", "both": "hidden"},
		"ConfigMap/other/one":       {"from": "wrong namespace"},
	}
	for _, test := range []struct {
		precedence substitute.Precedence
		both       string
	}{{"", "i"}, {substitute.InlineFirst, "i"}, {substitute.FromFirst, "hidden"}} {
		v, notices, err := substitute.Load(context.Background(), k, s.lookup, substitute.Options{
			Precedence: test.precedence, Extra: map[string]string{"cli": "c", "over": "c"},
		})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, name := range v.Names() {
			one, _ := v.Get(name)
			got[name] = one.Value
		}
		want := map[string]string{"inline": "i", "both": test.both, "same": "s", "cli": "c", "from": "one", "last": "two", "over": "c"}
		if !maps.Equal(got, want) {
			t.Errorf("%q: %v, want %v", test.precedence, got, want)
		}
		if len(notices) != 1 || notices[0].Code != "shadowed-variable" || !strings.Contains(notices[0].Text, `"both"`) || strings.Contains(fmt.Sprint(notices), "hidden") {
			t.Errorf("%q: notices %v", test.precedence, notices)
		}
		if want := []string{"hidden", "secret\nvalue", "secretvalue", "two"}; !slices.Equal(v.Secrets(), want) {
			t.Errorf("secrets %q, want %q", v.Secrets(), want)
		}
		for name, from := range map[string]string{"inline": "inline", "cli": "--var", "from": "ConfigMap/flux-system/one", "last": "Secret/flux-system/two"} {
			if one, ok := v.Get(name); !ok || one.From != from || one.Secret != (name == "last") {
				t.Errorf("%s: %+v", name, one)
			}
		}
	}
}

// TestMissing (S3.7).
func TestMissing(t *testing.T) {
	k := kustomization(nil,
		kustomizev1.SubstituteReference{Kind: "Secret", Name: "b"},
		kustomizev1.SubstituteReference{Kind: "ConfigMap", Name: "a"},
		kustomizev1.SubstituteReference{Kind: "ConfigMap", Name: "c", Optional: true},
	)
	_, _, err := substitute.Load(context.Background(), k, store{}.lookup, strict)
	var m *substitute.MissingError
	if !errors.As(err, &m) {
		t.Fatalf("error %v", err)
	}
	missing := substitute.Missing(err)
	if len(missing) != 2 || *missing[0] != (substitute.MissingError{Kind: "ConfigMap", Namespace: "flux-system", Name: "a"}) || missing[1].Name != "b" {
		t.Errorf("missing %v", missing)
	}
	want := `flux-system/app: clusters/app.yaml:3: substitute from 'ConfigMap/a' error: not found in namespace "flux-system"`
	if got := flux.Problems(err)[0].Error(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	k.Spec.PostBuild.SubstituteFrom = append(k.Spec.PostBuild.SubstituteFrom, kustomizev1.SubstituteReference{Kind: "Secret", Name: "forbidden", Optional: true})
	_, _, err = substitute.Load(context.Background(), k, store{}.lookup, strict)
	if substitute.Missing(err) != nil || len(flux.Problems(err)) != 3 || !strings.Contains(err.Error(), "substitute from 'Secret/forbidden' error: no rights") {
		t.Errorf("with another error: %v", err)
	}
	if substitute.Missing(nil) != nil {
		t.Error("nothing is missing")
	}
}

// TestNames (S3.9): every known name, used or not, all at once.
func TestNames(t *testing.T) {
	k := kustomization(map[string]string{"ok": "x", "my-key": "x"}, kustomizev1.SubstituteReference{Kind: "ConfigMap", Name: "a"})
	s := store{"ConfigMap/flux-system/a": {"values.yaml": "x", "1st": "x", "_OK1": "x", "größe": "x"}}
	_, _, err := apply(t, k, s, strict, thing(t, "x"))
	var got []string
	for _, e := range flux.Problems(err) {
		got = append(got, e.Err.Error())
	}
	rule := " var name is invalid, must match '^[_[:alpha:]][_[:alpha:][:digit:]]*$'"
	want := []string{
		"'1st'" + rule + " (set by ConfigMap/flux-system/a)",
		"'größe'" + rule + " (set by ConfigMap/flux-system/a)",
		"'my-key'" + rule + " (set by inline)",
		"'values.yaml'" + rule + " (set by ConfigMap/flux-system/a)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestWholeText (S3.11, S3.12, S3.13, S3.15).
func TestWholeText(t *testing.T) {
	k := kustomization(map[string]string{"kind": "ConfigMap", "ns": "prod", "key": "k", "other": "${key}", "n": "3"})
	out, notices, err := apply(t, k, nil, strict,
		object(t, "apiVersion: v1\nkind: ${kind}\nmetadata: {name: 'c-${ns}', namespace: '${ns}', annotations: {'${key}': 'v${n}'}}\ndata: {'${key}': '${other}'}\n"),
		object(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {x: JHtrZXl9}\nstringData: {z: 'a${key}'}\n"),
		object(t, "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: child}\nspec: {path: './${ns}'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, o := range out {
		one, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		text += string(one)
	}
	want := `apiVersion: v1
data:
  k: ${key}
kind: ConfigMap
metadata:
  annotations:
    k: v3
  name: c-prod
  namespace: prod
apiVersion: v1
data:
  x: JHtrZXl9
kind: Secret
metadata:
  name: s
stringData:
  z: ak
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: child
spec:
  path: ./prod
`
	if text != want || len(notices) > 0 {
		t.Errorf("got\n%s\nwant\n%s%v", text, want, notices)
	}
	if out[0].File != "app/a.yaml" {
		t.Errorf("file %q", out[0].File)
	}
}

// TestCollision (S3.12): objects that become one.
func TestCollision(t *testing.T) {
	k := kustomization(map[string]string{"x": "same"})
	a := object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '${x}'}\n")
	b := object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: same}\n")
	b.File = "app/b.yaml"
	_, _, err := apply(t, k, nil, strict, a, b)
	want := "flux-system/app: app/b.yaml: ConfigMap/same: after substitution ConfigMap/${x} (app/a.yaml) and ConfigMap/same (app/b.yaml) are the same object"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestLabels (S3.26): a label or annotation that is no string any more.
func TestLabels(t *testing.T) {
	k := kustomization(map[string]string{"n": "1", "b": "true", "q": `"1"`, "none": ""})
	_, _, err := apply(t, k, nil, strict, object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {v: '${n}', ok: '${q}'}, annotations: {w: '${b}', z: '${none}'}}\n"))
	var got []string
	for _, e := range flux.Problems(err) {
		got = append(got, e.Err.Error())
	}
	want := []string{
		`metadata.annotations["w"] became a boolean through substitution, it must be a string`,
		`metadata.labels["v"] became a number through substitution, it must be a string`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLostName (S0.15): an object without a name would be dropped.
func TestLostName(t *testing.T) {
	for field, value := range map[string]string{"name": "1", "namespace": "true"} {
		text := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: ns}\n"
		o := object(t, text)
		if err := unstructured.SetNestedField(o.Object, "${v}", "metadata", field); err != nil {
			t.Fatal(err)
		}
		_, _, err := apply(t, kustomization(map[string]string{"v": value}), nil, strict, o)
		if err == nil || !strings.Contains(err.Error(), "metadata."+field+" became a ") {
			t.Errorf("%s: error %v", field, err)
		}
	}
}

// TestNotices: what is likely unintended is said, once, without values.
func TestNotices(t *testing.T) {
	k := kustomization(map[string]string{"n": "4711", "lines": "4711\n4712", "end": "x\n"})
	pod := object(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  replicas: ${n}\n  containers:\n  - {name: a, image: '${n}', args: ['${n}'], env: [{name: N, value: '${n}'}, {name: L, value: 'x${lines}'}]}\n  nodeSelector: {a: '${n}'}\n")
	cm := object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '${n}', b: 'x${lines}', c: 'x${end}'}\n")
	_, notices, err := apply(t, k, nil, strict, pod, cm)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range notices {
		got = append(got, n.Code+" "+n.Object+" "+n.Text)
		if strings.Contains(n.Text+n.Hint, "4711") {
			t.Errorf("a value is shown: %v", n)
		}
	}
	const became = " became a number through substitution, where a string is wanted"
	want := []string{
		"type-changed Pod/p spec.containers.0.args.0" + became,
		"type-changed Pod/p spec.containers.0.env.0.value" + became,
		"type-changed Pod/p spec.containers.0.image" + became,
		"type-changed Pod/p spec.nodeSelector.a" + became,
		`newlines-removed Kustomization/flux-system/app the value of variable "lines" (inline) has several lines; they are joined without a space, as in Flux`,
		"type-changed ConfigMap/c data.a" + became,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestSecretsStaySecret: no error or notice shows a value, whatever goes wrong.
func TestSecretsStaySecret(t *testing.T) {
	const secret = "hunter2"
	for _, value := range []string{secret + ": {", "*" + secret, "&" + secret + " [", "!!" + secret + " x", "'" + secret, secret + ": " + secret + ": x", "{" + secret + ": 1, " + secret + ": 2}", "! " + secret, "\t" + secret, "@" + secret} {
		for _, field := range []string{"${v}", "'a ${v}'", "{a: '${v}'}", "${v:1:-5}", "${v", "${x:=${v}"} {
			k := kustomization(nil, kustomizev1.SubstituteReference{Kind: "Secret", Name: "s"})
			s := store{"Secret/flux-system/s": {"v": value}}
			o := object(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {a: b}}\ndata:\n  f: x\n")
			if err := unstructured.SetNestedField(o.Object, field, "data", "f"); err != nil {
				t.Fatal(err)
			}
			_, notices, err := apply(t, k, s, strict, o)
			if err != nil && strings.Contains(err.Error(), secret) || strings.Contains(fmt.Sprint(notices), secret) {
				t.Errorf("%s with %q: %v %v", field, value, err, notices)
			}
		}
	}
}

// TestInputStays: the objects given are not changed.
func TestInputStays(t *testing.T) {
	o := thing(t, "'${v}'")
	before := o.DeepCopy()
	if _, _, err := apply(t, kustomization(map[string]string{"v": "1"}), nil, strict, o); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(before.Object) != fmt.Sprint(o.Object) {
		t.Errorf("now %v", o.Object)
	}
}

// TestManyVariables: a text with very many variables needs no deep stack and
// no time worth mentioning.
func TestManyVariables(t *testing.T) {
	o := thing(t, "x")
	if err := unstructured.SetNestedField(o.Object, strings.Repeat("a${v}", 50_000), "spec", "f"); err != nil {
		t.Fatal(err)
	}
	out, _, err := apply(t, kustomization(map[string]string{"v": "1"}), nil, strict, o)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, _ := unstructured.NestedString(out[0].Object, "spec", "f"); got != strings.Repeat("a1", 50_000) {
		t.Errorf("%d bytes", len(got))
	}
}
