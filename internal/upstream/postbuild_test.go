package upstream

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	ssautil "github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/provider"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
)

// postBuildCase is a manifest and the variables that are filled into it.
type postBuildCase struct {
	name     string
	vars     map[string]string
	manifest string
	// always is substituteStrategy: Always; lenient is the controller without
	// its gate for unknown variables.
	always, lenient bool
	// unlike is the reason why sluice differs on purpose.
	unlike string
}

// spec is a manifest of a kind that nobody knows with one field.
func spec(field string) string {
	return "apiVersion: x.example.com/v1\nkind: Thing\nmetadata:\n  name: t\nspec:\n  f: " + field + "\n"
}

// data is a ConfigMap with a text of several lines, in which nothing but the
// variables changes.
func data(text string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  text: |\n    first\n    " + text + "\n    last\n"
}

// values are the variables of the cases that bring none of their own.
var values = map[string]string{
	"a": "value", "empty": "", "path": "one/two/one", "n": "2", "neg": "-2", "B": "bee", "_x": "under",
	"t": "true", "nul": "null", "lines": "one\ntwo\n", "q": `"`, "quoted": `"9797"`, "oct": "0755", "float": "1.10",
	"colon": "a: b", "hash": "a #b", "star": "*", "list": "[1, 2]", "map": "{a: b}", "date": "2024-01-01", "bang": "!!str 5", "expr": "${a}", "inf": ".inf",
	"key": "k", "name": "n1", "x": "same", "dash": "- x",
}

// long is a text that YAML writes on several lines.
var long = strings.Repeat("some words and ${a} and ${n} then ", 8)

var postBuildCases = []postBuildCase{
	{name: "S3.1 nothing to do", manifest: data("plain")},
	{name: "S3.2 label", manifest: strings.Replace(data("${a} ${nobody}"), "name: c", "name: c\n  labels: {kustomize.toolkit.fluxcd.io/substitute: disabled}", 1)},
	{name: "S3.2 annotation", manifest: strings.Replace(data("${a} ${nobody}"), "name: c", "name: c\n  annotations: {kustomize.toolkit.fluxcd.io/substitute: disabled}", 1)},
	{name: "S3.2 capital", manifest: strings.Replace(data("${a}"), "name: c", "name: c\n  annotations: {kustomize.toolkit.fluxcd.io/substitute: Disabled}", 1)},
	{name: "S3.2 one of two", manifest: data("${a}") + "---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  annotations: {kustomize.toolkit.fluxcd.io/substitute: disabled}\nstringData: {x: '${a}'}\n"},
	{name: "S3.6 no variables", vars: map[string]string{}, manifest: data("${a:=d} $${a} $$")},
	{name: "S3.6 always", vars: map[string]string{}, always: true, manifest: data("${a:=d} $${a} $$")},
	{name: "S3.6 always and unknown", vars: map[string]string{}, always: true, manifest: data("${a}")},
	{name: "S3.8 newlines", manifest: data("${lines}")},
	{name: "S3.9 dot in a name", vars: map[string]string{"app.name": "x"}, manifest: data("plain")},
	{name: "S3.9 hyphen in a name", vars: map[string]string{"my-key": "x"}, manifest: data("plain")},
	{name: "S3.9 digit first", vars: map[string]string{"1st": "x"}, manifest: data("plain")},
	{name: "S3.9 umlaut", vars: map[string]string{"größe": "x"}, manifest: data("plain")},
	{name: "S3.11 once only", manifest: data("${expr}")},
	{name: "S3.12 everywhere", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c-${name}\n  namespace: ns-${name}\n  annotations: {'${key}': 'v${n}'}\ndata: {'${key}': x}\n"},
	{name: "S3.12 kind", vars: map[string]string{"kind": "Secret"}, manifest: "apiVersion: v1\nkind: ${kind}\nmetadata: {name: c}\n"},
	{name: "S3.12 two become one", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '${x}'}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: same}\n"},
	{name: "S3.13 base64", manifest: "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {x: JHthfQ==}\nstringData: {y: '${a}'}\n"},
	{name: "S3.15 child", manifest: "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: child, namespace: flux-system}\nspec: {path: './${a}', prune: '${t}'}\n"},
	{name: "S3.17 unknown", manifest: data("${nobody}")},
	{name: "S3.17 unknown, not strict", lenient: true, manifest: data("[${nobody}]")},
	{name: "S3.17 unknown alone, not strict", lenient: true, manifest: spec("${nobody}")},
	{name: "S3.17 empty", manifest: spec("'[${empty}]'")},
	{name: "S3.19 argument first", manifest: data("${a:-${nobody}}")},
	{name: "S3.20 array", manifest: data("${AUTH[@]}")},
	{name: "S3.20 positional", manifest: data("${1}")},
	{name: "S3.20 escaped script", manifest: data("for i in $${AUTH[@]}; do echo $i $(date) $${i%%.*}; done")},
	{name: "S3.21 long lines", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  text: " + long + "\n"},
	{name: "S3.21 a comment in a long line", vars: map[string]string{"a": "# no comment", "n": "#"}, manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  text: " + long + "\n"},
	{name: "S3.21 nothing in a long line", vars: map[string]string{"a": "", "n": ""}, manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  text: " + long + "\n"},
	{name: "S3.21 comments and quotes go", manifest: spec("'${n}' # ${nobody}")},
	{name: "S3.22 integer", manifest: spec("${n}")},
	{name: "S3.22 quoted in the manifest", manifest: spec(`"${n}"`)},
	{name: "S3.22 octal", manifest: spec("${oct}")},
	{name: "S3.22 float", manifest: spec("${float}")},
	{name: "S3.22 boolean", manifest: spec("${t}")},
	{name: "S3.22 null", manifest: spec("${nul}")},
	{name: "S3.22 empty", manifest: spec("${empty}")},
	{name: "S3.22 infinity", manifest: spec("${inf}")},
	{name: "S3.22 date", manifest: spec("${date}")},
	{name: "S3.22 comment", manifest: spec("${hash}")},
	{name: "S3.22 list", manifest: spec("${list}")},
	{name: "S3.22 map", manifest: spec("${map}")},
	{name: "S3.22 colon", manifest: spec("${colon}")},
	{name: "S3.22 alias", manifest: spec("${star}")},
	{name: "S3.22 dash", manifest: spec("${dash}")},
	{name: "S3.22 quotes in the value", manifest: spec("${quoted}")},
	{name: "S3.22 tag", manifest: spec("${bang}")},
	{name: "S3.23 part of a string", manifest: spec("v${n}")},
	{name: "S3.23 two numbers", manifest: spec("${n}${n}")},
	{name: "S3.23 block", manifest: data("${n}")},
	{name: "S3.24 quoted before", manifest: spec("'${n}: x'")},
	{name: "S3.24 begins with a star", manifest: spec("'*${n}'")},
	{name: "S3.25 quotes from a variable", manifest: spec("${q}${n}${q}")},
	{name: "S3.25 quotes from a default", manifest: spec(`'${nobody:="}${n}${nobody:="}'`)},
	{name: "S3.26 label", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {version: '${n}', keep: me}}\n", unlike: "Flux drops all labels of the object"},
	{name: "S3.26 label that is empty", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {version: '${empty}', keep: me}}\n"},
	{name: "S3.26 annotation", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, annotations: {version: '${t}', keep: me}}\n", unlike: "the API server would refuse the object; here it is said before"},
	{name: "S0.15 name", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '${n}'}\n", unlike: "Flux drops the object without a word"},
	{name: "S3.27 environment", manifest: "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: b, env: [{name: N, value: '${n}'}]}]}\n"},
	{name: "S3.30 names", manifest: data("$a $(a) $ ${a} ${_x} ${B}")},
	{name: "S3.31 dollars", manifest: data("$${a} $$${a} $$$$ $$ ${path/one/$$}")},
	{name: "S3.32 defaults", manifest: data("${a:-d} ${nobody:-d} ${empty:-d} ${a=d} ${empty=d} ${nobody:=}")},
	{name: "S3.33 plus", manifest: data("${a:+d} ${nobody:+d} ${nobody:?d}")},
	{name: "S3.33 without a colon", manifest: data("${a-d}")},
	{name: "S3.34 nested", manifest: data("${nobody:=x${B}y} ${nobody:=${other:=z}} ${nobody:='q'} ${nobody:=1$$2} ${nobody:=$${B}} ${nobody:={}}")},
	{name: "S3.34 backslash", manifest: data(`${nobody:=x\}y}`)},
	{name: "S3.35 length", manifest: data("${#a} ${#empty}")},
	{name: "S3.36 substrings", manifest: data("${a:1} ${a:1:2} ${a:9} ${a:1:99} ${a:x} ${a: -1}")},
	{name: "S3.36 from the end", manifest: data("${a:1:-1} ${a:${neg}:1} ${a:0:-9} ${path/one/${a:0:-1}}")},
	{name: "S3.36 no position", manifest: data("${a::2}")},
	{name: "S3.37 replace", manifest: data(`${path/one/1} ${path//one/1} ${path/#one/1} ${path/%one/1} ${path/\//-} ${path/one/}`)},
	{name: "S3.37 nothing to replace with", manifest: data("${path/one}")},
	{name: "S3.38 trim", manifest: data("${path#*/} ${path##*/} ${path%/*} ${path%%/*} ${path#[a-z]} ${path#[}")},
	{name: "S3.39 case", manifest: data("${a^} ${a^^} ${B,} ${B,,}")},
	{name: "S3.40 nothing", manifest: data("${}")},
	{name: "S3.40 template of a CI system", manifest: data("${{ github.sha }}")},
	{name: "S3.40 template of a chart", manifest: data("{{ .Values.x }} {{- if .y }}")},
	{name: "S3.40 not closed", manifest: data("${a")},
	{name: "S3.40 default not closed", manifest: data("${a:=b")},
	{name: "S3.41 zero byte", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {text: \"a\\0${nobody}\"}\n"},
	{name: "S3.45 backslashes", manifest: data(`C:\\dir\new \/ \d+ "\"" `)},
}

// TestPostBuild (S3.1 to S3.41): for every manifest both fail, or both give the
// same objects to the byte.
func TestPostBuild(t *testing.T) {
	said, names := readSayings(t, "testdata/postbuild-errors.txt"), map[string]bool{}
	for _, c := range postBuildCases {
		names[c.name] = true
		t.Run(c.name, func(t *testing.T) {
			vars := c.vars
			if vars == nil {
				vars = maps.Clone(values)
			}
			post := map[string]any{"substitute": vars}
			if c.always {
				post["substituteStrategy"] = "Always"
			}
			ours, theirs := both(t, c.manifest, post, !c.lenient)
			said.compare(t, c.name, "", theirs.err)
			different := difference(ours, theirs)
			switch {
			case different == "" && c.unlike != "":
				t.Errorf("the same, although %s", c.unlike)
			case different != "" && c.unlike == "":
				t.Error(different)
			}
		})
	}
	said.finish(t, names)
}

// both fills variables into a manifest, which nothing else happens to.
func both(t *testing.T, manifest string, post map[string]any, strict bool) (ours, theirs outcome) {
	t.Helper()
	var typed kustomizev1.Kustomization
	var loose unstructured.Unstructured
	text, err := yaml.Marshal(map[string]any{"spec": map[string]any{"postBuild": post}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(yaml.Unmarshal(text, &typed), yaml.Unmarshal(text, &loose.Object)); err != nil {
		t.Fatal(err)
	}
	built, err := resmap.NewFactory(provider.NewDefaultDepProvider().GetResourceFactory()).NewResMapFromBytes([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	read, err := ssautil.ReadObjects(strings.NewReader(string(stream)))
	if err != nil {
		t.Fatal(err)
	}
	var objects []flux.Object
	for _, o := range read {
		objects = append(objects, flux.Object{Unstructured: o, File: "a.yaml"})
	}
	k := &flux.Kustomization{ID: id, Spec: typed.Spec}
	return fill(fstest.MapFS{"a.yaml": {Data: []byte(manifest)}}, k, objects, strict), finish(built, loose, typed, strict)
}

// FuzzPostBuild looks for a text and a value of which sluice and Flux make
// different objects. It begins with every operator (S3.30 to S3.40).
func FuzzPostBuild(f *testing.F) {
	for _, c := range postBuildCases {
		for _, line := range strings.Split(c.manifest, "\n") {
			if strings.Contains(line, "$") {
				f.Add(strings.TrimSpace(line), values["colon"], true)
				f.Add(strings.TrimSpace(line), values["lines"], false)
			}
		}
	}
	for _, value := range values {
		f.Add("${v}", value, true)
		f.Add("x ${v} ${v:1:-1}\n", value, true)
	}
	f.Fuzz(func(t *testing.T, text, value string, strict bool) {
		manifest, err := yaml.Marshal(map[string]any{"apiVersion": "x.example.com/v1", "kind": "Thing",
			"metadata": map[string]any{"name": "t"}, "spec": map[string]any{"f": text}})
		if err != nil || !utf8.ValidString(text) || !utf8.ValidString(value) {
			return // no YAML can hold it
		}
		vars := maps.Clone(values)
		vars["v"] = value
		ours, theirs := both(t, string(manifest), map[string]any{"substitute": vars}, strict)
		if different := difference(ours, theirs); different != "" {
			t.Errorf("%q with %q: %s", text, value, different)
		}
	})
}
