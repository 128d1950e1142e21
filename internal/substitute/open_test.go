package substitute_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/substitute"
)

// unreachable is a place that holds nothing and cannot be asked for more.
func unreachable(_ context.Context, kind, namespace, name string) (map[string]string, bool, bool, error) {
	return nil, false, false, fmt.Errorf("%s/%s/%s: %w", kind, namespace, name, substitute.ErrUnreachable)
}

func offline(t *testing.T, k *flux.Kustomization, opts substitute.Options, objects ...flux.Object) ([]flux.Object, []substitute.Notice, error) {
	t.Helper()
	v, notices, err := substitute.Load(context.Background(), k, unreachable, opts)
	if err != nil {
		t.Fatalf("an object that cannot be asked for is no error: %v", err)
	}
	out, more, err := substitute.Apply(k, objects, v, opts)
	return out, append(notices, more...), err
}

// S12.3: without a cluster a variable stays as it is, exactly as it is written, if
// only the cluster may know it.
func TestOpenVariables(t *testing.T) {
	k := kustomization(map[string]string{"known": "k", "empty": ""}, kustomizev1.SubstituteReference{Kind: "ConfigMap", Name: "vars"},
		kustomizev1.SubstituteReference{Kind: "Secret", Name: "more", Optional: true})
	for _, test := range []struct{ in, want, open string }{
		{"'${a}'", "${a}", "[a]"},
		{"'x-${a}-${known}'", "x-${a}-k", "[a]"},
		{"'${a}${b}${a}'", "${a}${b}${a}", "[a b]"},
		{"'${a/x/y} ${a^^}'", "${a/x/y} ${a^^}", "[a]"},
		{"'${#a} ${a:1:2}'", "${#a} ${a:1:2}", "[a]"},
		{"'$${a}'", "${a}", "[]"}, // was no variable
		{"'$${a} ${a}'", "${a} ${a}", "[a]"},
		{"'$$${a}'", "$${a}", "[a]"},
		{"'${ab} ${a}'", "${ab} ${a}", "[ab a]"},
		{"'${a:=default}'", "default", "[]"},
		{"'${known:=x} ${a}'", "k ${a}", "[a]"},
		{"'${c:=x-${a}-y}'", "x-${a}-y", "[a]"},
		{"'x${empty} ${a} $a $'", "x ${a} $a $", "[a]"},
	} {
		out, _, err := offline(t, k, substitute.Options{Strict: true, KeepOpen: true}, thing(t, test.in))
		if err != nil {
			t.Errorf("%s: %v", test.in, err)
			continue
		}
		got, _, _ := unstructured.NestedString(out[0].Object, "spec", "f")
		if open := fmt.Sprint(out[0].Open); got != test.want || open != test.open {
			t.Errorf("%s became %q with open %s, want %q with %s", test.in, got, open, test.want, test.open)
		}
	}

	// One notice tells them all, with where they may come from.
	other := thing(t, "'${a}'")
	other.SetName("u")
	_, notices, err := offline(t, k, substitute.Options{Strict: true, KeepOpen: true}, thing(t, "'${b} ${a} ${d:=x}'"), other)
	want := "ConfigMap/flux-system/vars, which only the cluster has, or Secret/flux-system/more, which only the cluster has, " +
		"may set a (left as it is), b (left as it is), d (its default is used)"
	if err != nil || len(notices) != 1 {
		t.Fatalf("%v, %v", err, notices)
	}
	if notices[0].Text != want || notices[0].Code != "open-variables" || notices[0].Hint == "" {
		t.Errorf("notice %+v\nwant %s", notices[0], want)
	}
}

// Otherwise it is an error that names what may set it, or empty if unset variables
// are, as in Flux without a cluster.
func TestUnreachableIsUnset(t *testing.T) {
	k := kustomization(nil, kustomizev1.SubstituteReference{Kind: "ConfigMap", Name: "vars"})
	_, _, err := offline(t, k, substitute.Options{Strict: true}, thing(t, "'${a}'"))
	problems := flux.Problems(err)
	if len(problems) != 1 || !strings.Contains(problems[0].Hint(), "ConfigMap/flux-system/vars, which only the cluster has, may set it") {
		t.Errorf("%v", err)
	}
	out, _, err := offline(t, k, substitute.Options{}, thing(t, "'x${a}'"))
	if got, _, _ := unstructured.NestedString(out[0].Object, "spec", "f"); err != nil || got != "x" || len(out[0].Open) > 0 {
		t.Errorf("not strict: %q, %v", got, err)
	}
	// What is given by hand is known.
	out, _, err = offline(t, k, substitute.Options{Strict: true, Extra: map[string]string{"a": "1"}}, thing(t, "'x${a}'"))
	if got, _, _ := unstructured.NestedString(out[0].Object, "spec", "f"); err != nil || got != "x1" {
		t.Errorf("with --var: %q, %v", got, err)
	}
}

// A variable whose own value holds an open one is open too.
func TestOpenInlineValue(t *testing.T) {
	k := kustomization(map[string]string{"site": "eu-${zone}", "other": "o"})
	k.Open = []string{"zone"}
	out, _, err := offline(t, k, substitute.Options{Strict: true, KeepOpen: true}, thing(t, "'${site} ${other}'"))
	if got, _, _ := unstructured.NestedString(out[0].Object, "spec", "f"); err != nil || got != "${site} o" || !slices.Equal(out[0].Open, []string{"site"}) {
		t.Errorf("%q, open %q, %v", got, out[0].Open, err)
	}
}

// A secret variable can be hidden in what is shown, and is learned all the same.
func TestHideSecrets(t *testing.T) {
	k := kustomization(map[string]string{"own": "shown"}, kustomizev1.SubstituteReference{Kind: "Secret", Name: "s"})
	secret := func(context.Context, string, string, string) (map[string]string, bool, bool, error) {
		return map[string]string{"password": "hunter2", "own": "hunter3"}, true, true, nil
	}
	opts := substitute.Options{Strict: true, HideSecrets: true}
	v, _, err := substitute.Load(context.Background(), k, secret, opts)
	if err != nil || !slices.Contains(v.Secrets(), "hunter2") {
		t.Fatalf("%v, learned %q", err, v.Secrets())
	}
	out, _, err := substitute.Apply(k, []flux.Object{thing(t, "${password}/${own}")}, v, opts)
	if got, _, _ := unstructured.NestedString(out[0].Object, "spec", "f"); err != nil || got != substitute.Hidden+"/shown" {
		t.Errorf("%q, %v", got, err)
	}
}
