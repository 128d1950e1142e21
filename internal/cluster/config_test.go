package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const twoContexts = `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://user:secret@127.0.0.1:1/base?x=y"}}]
users: [{name: u, user: {token: t}}]
contexts:
- {name: group/project:agent-b, context: {cluster: c, user: u}}
- {name: group/project:agent-a, context: {cluster: c, user: u}}
`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each thing that can be wrong with a kubeconfig has its own words and remedy.
func TestKubeconfigProblems(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "") // not in a pod
	none := filepath.Join(t.TempDir(), "none")
	agent := write(t, twoContexts)
	for _, tc := range []struct {
		name    string
		options Options
		problem Problem
		text    string
		hint    string
	}{
		{"named and missing", Options{Kubeconfig: none}, NoKubeconfig, `kubeconfig "` + none + `" does not exist`, "check --kubeconfig"},
		{"nowhere", Options{SearchPaths: []string{none, none + "2"}}, NoKubeconfig, `looked at "` + none + `", "` + none + `2"`, "--kubeconfig or the variable KUBECONFIG"},
		{"nothing to look at", Options{}, NoKubeconfig, "neither --kubeconfig nor KUBECONFIG is set", "--kubeconfig"},
		{"no current context", Options{Kubeconfig: agent}, NoContext, "has no current context",
			`choose one with --context; there are: "group/project:agent-a", "group/project:agent-b"`},
		{"no such context", Options{Kubeconfig: agent, Context: "other"}, NoContext, `context "other" is not in kubeconfig`,
			`there are: "group/project:agent-a", "group/project:agent-b"`},
		{"current context missing", Options{Kubeconfig: write(t, twoContexts+"current-context: gone\n")}, NoContext, `the current context "gone" is not in`, "there are: "},
		{"empty", Options{Kubeconfig: write(t, "")}, NoContext, "names no cluster and no context", "is it the right file?"},
		{"not YAML", Options{Kubeconfig: write(t, "a: b: c")}, BadKubeconfig, "cannot be used", "must be a kubeconfig"},
		{"context without cluster", Options{Kubeconfig: write(t, "apiVersion: v1\nkind: Config\ncontexts: [{name: x, context: {cluster: none}}]\ncurrent-context: x\n")},
			BadKubeconfig, `context "x" of kubeconfig`, "check the cluster and the user"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Connect(t.Context(), tc.options)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v of type %T", err, err)
			}
			if e.Problem != tc.problem || !strings.Contains(e.Error(), tc.text) || !strings.Contains(e.Hint(), tc.hint) {
				t.Errorf("%s: %q, hint %q\nwant %s: %q, hint %q", e.Problem, e, e.Hint(), tc.problem, tc.text, tc.hint)
			}
		})
	}
}

func TestContextIsChosen(t *testing.T) {
	config, name, err := restConfig(Options{SearchPaths: []string{filepath.Join(t.TempDir(), "none"), write(t, twoContexts)}, Context: "group/project:agent-b"})
	if err != nil || name != "group/project:agent-b" || config.BearerToken != "t" {
		t.Errorf("%v, %q, %v", config, name, err)
	}
	if got, want := bareURL(config.Host), "https://127.0.0.1:1/base"; got != want {
		t.Errorf("address %q, want %q", got, want)
	}
}

func TestSearchPaths(t *testing.T) {
	env := map[string]string{"KUBECONFIG": "/a" + string(filepath.ListSeparator) + "/b"}
	if got := SearchPaths(func(k string) string { return env[k] }, "/home/x"); !slices.Equal(got, []string{"/a", "/b"}) {
		t.Errorf("%q", got)
	}
	delete(env, "KUBECONFIG")
	if got := SearchPaths(func(k string) string { return env[k] }, "/home/x"); !slices.Equal(got, []string{"/home/x/.kube/config"}) {
		t.Errorf("%q", got)
	}
	if got := SearchPaths(func(string) string { return "" }, ""); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
