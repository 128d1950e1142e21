// Package internal_test holds the rules of the house: which package may import
// what, and why. A test reads them, so a change of the layout is a change of
// this table.
package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sluicerun/sluice"

// rule says what a package may import beside the standard library: packages
// of this module by their name under internal/, and modules by prefix. Package
// os counts as such a module, since only cli may read the environment and
// write to the standard streams; source needs it for local repositories,
// cluster for kubeconfigs, cache for its folder, github for the files that belong to the step, build
// to keep kustomize from printing.
type rule struct {
	internal []string
	external []string
	// why the rule is as it is.
	why string
}

// Prefixes used more than once.
const (
	apimachinery = "k8s.io/apimachinery"
	clientgo     = "k8s.io/client-go"
	k8sapi       = "k8s.io/api"
	runtimeC     = "sigs.k8s.io/controller-runtime/pkg/client"
	fluxapi      = "github.com/fluxcd/pkg/apis"
	kustomizeAPI = "github.com/fluxcd/kustomize-controller/api"
	ssa          = "github.com/fluxcd/pkg/ssa"
	cliutils     = "github.com/fluxcd/cli-utils"
)

var rules = map[string]rule{
	"flux":             {external: []string{kustomizeAPI, fluxapi, apimachinery}, why: "stages share nouns, not code"},
	"event":            {why: "engine and reports meet only here"},
	"graph":            {why: "a pure function can be tested to the corners"},
	"safe":             {why: "one way to keep a panic from ending the process"},
	"retry":            {why: "policy is data; errors decide, the loop obeys"},
	"schedule":         {internal: []string{"graph", "safe"}, why: "concurrency is tested with fake steps and fake time"},
	"source":           {internal: []string{"retry"}, external: []string{"os", "github.com/go-git", "golang.org/x/crypto/ssh", "github.com/xrash/smetrics"}, why: "git, its credentials and its network in one place"},
	"discover":         {internal: []string{"flux"}, external: []string{"sigs.k8s.io/yaml", "sigs.k8s.io/json", "go.yaml.in", "github.com/google/cel-go", "github.com/xrash/smetrics", apimachinery, fluxapi, kustomizeAPI}, why: "neither disk nor network nor kustomize"},
	"build":            {internal: []string{"flux", "safe"}, external: []string{"os", "golang.org/x/sync", "sigs.k8s.io/kustomize", "sigs.k8s.io/yaml", "go.yaml.in", "gopkg.in/evanphx/json-patch.v4", "github.com/xrash/smetrics", apimachinery, fluxapi, kustomizeAPI}, why: "all builds run before the cluster is touched: no client"},
	"cache":            {external: []string{"os"}, why: "files from one run to the next, and nothing of what is in them"},
	"substitute":       {internal: []string{"flux"}, external: []string{"github.com/drone/envsubst", "sigs.k8s.io/yaml", "go.yaml.in", apimachinery, fluxapi, kustomizeAPI}, why: "variables come through its own Lookup, not through a client"},
	"cluster":          {internal: []string{"cluster/fair", "cluster/faults", "cluster/rehearse", "cluster/schemas", "retry"}, external: []string{"os", clientgo, apimachinery, k8sapi, "sigs.k8s.io/controller-runtime", "k8s.io/klog", "github.com/go-logr", ssa, cliutils}, why: "the one rest.Config: auth, limits, impersonation"},
	"cluster/fair":     {why: "who is served next is tested without a server"},
	"cluster/faults":   {external: []string{apimachinery}, why: "what an error of a request is good for is decided in one place"},
	"cluster/rehearse": {external: []string{runtimeC, apimachinery}, why: "a client that answers from what a plan has seen; plan and apply meet only there"},
	"cluster/schemas":  {external: []string{clientgo, apimachinery, "k8s.io/kube-openapi"}, why: "what the server's OpenAPI says, for whoever wants to know"},
	"definition":       {external: []string{apimachinery, "k8s.io/apiextensions-apiserver", "k8s.io/apiserver/pkg/apis/cel", "k8s.io/kube-openapi", "sigs.k8s.io/structured-merge-diff"}, why: "what a server thinks of custom resources, without one"},
	"plan":             {internal: []string{"cluster/faults", "cluster/rehearse", "definition", "flux", "plan/proof", "retry", "safe"}, external: []string{ssa, cliutils, runtimeC, clientgo, apimachinery, k8sapi, "golang.org/x/sync"}, why: "plan and run are one code up to the first write"},
	"plan/proof":       {external: []string{ssa, clientgo, apimachinery, k8sapi, "k8s.io/apiextensions-apiserver", "sigs.k8s.io/structured-merge-diff"}, why: "a pure function can be tested to the corners"},
	"apply":            {internal: []string{"cluster/faults", "cluster/rehearse", "flux", "retry", "safe"}, external: []string{ssa, cliutils, fluxapi, kustomizeAPI, runtimeC, clientgo, apimachinery, k8sapi, "golang.org/x/sync"}, why: "what users declared is written in one place"},
	"health":           {internal: []string{"flux", "retry", "safe"}, external: []string{ssa, "github.com/fluxcd/pkg/runtime/cel", cliutils, fluxapi, kustomizeAPI, clientgo, apimachinery, k8sapi}, why: "one meaning of ready"},
	"inventory":        {internal: []string{"flux"}, external: []string{ssa, cliutils, fluxapi, kustomizeAPI, runtimeC, clientgo, apimachinery, k8sapi}, why: "pruning is only as right as this, so it is tested as sets"},
	"gate":             {internal: []string{"flux", "inventory"}, external: []string{"github.com/fluxcd/pkg/runtime/cel", "github.com/google/cel-go", fluxapi, kustomizeAPI, apimachinery}, why: "what a readyExpr sees is made up in one place"},
	"prune":            {internal: []string{"flux", "inventory", "kinds", "retry", "safe"}, external: []string{"golang.org/x/sync/errgroup", ssa, cliutils, fluxapi, kustomizeAPI, runtimeC, clientgo, apimachinery, k8sapi}, why: "what is removed, and why, is decided in one place"},
	"kinds":            {external: []string{apimachinery}, why: "which kinds can be listed is decided in one place"},
	"owned":            {internal: []string{"flux", "kinds", "safe"}, external: []string{runtimeC, clientgo, apimachinery, "golang.org/x/sync/errgroup"}, why: "what a Kustomization has applied is found by the owner labels in one place"},
	"status":           {internal: []string{"report"}, why: "what status tells is data and text, and asks no cluster"},
	"planfile":         {why: "the form of a saved plan, and what makes two the same: pure values"},
	"lock":             {internal: []string{"retry", "safe"}, external: []string{runtimeC, clientgo, apimachinery, k8sapi}, why: "one run of a root at a time"},
	"run": {
		internal: []string{"apply", "build", "cache", "cluster", "cluster/faults", "discover", "event", "flux", "gate", "graph", "health", "inventory", "lock", "owned", "plan", "plan/proof", "planfile", "prune", "retry", "safe", "schedule", "source", "status", "substitute"},
		external: []string{fluxapi, runtimeC, apimachinery}, why: "one run for one commit; it knows the whole and never prints",
	},
	"export":          {internal: []string{"flux"}, external: []string{apimachinery, "sigs.k8s.io/yaml"}, why: "what leaves as text: Secrets are masked in one place"},
	"redact":          {internal: []string{"event"}, why: "masked before fan-out, so every report is covered"},
	"report":          {internal: []string{"event", "safe"}, why: "one truth for all formats"},
	"report/terminal": {internal: []string{"event", "report"}, external: []string{"golang.org/x/term"}, why: "one rendering"},
	"report/github":   {internal: []string{"event", "report"}, external: []string{"os", "github.com/sethvargo/go-githubactions"}, why: "one rendering; go-githubactions only here"},
	"report/gitlab":   {internal: []string{"event", "report"}, why: "one rendering"},
	"report/jsonl":    {internal: []string{"event", "report"}, why: "one rendering"},
	"report/junit":    {internal: []string{"event", "report"}, why: "one rendering"},
	"report/diagram":  {internal: []string{"report"}, why: "one way to draw the graph, for reports and by itself"},
	"report/markdown": {internal: []string{"event", "report", "report/diagram"}, why: "one rendering"},
	"cli": {
		internal: []string{"apply", "cluster", "event", "export", "health", "planfile", "prune", "redact", "report", "report/*", "run", "safe", "source", "status", "substitute"},
		external: []string{"os", "github.com/urfave/cli", "golang.org/x/term"}, why: "flags, environment, wiring, exit codes; the only user of urfave/cli",
	},
}

// testing packages may import what they like, but only tests and the commands
// for people may import them.
var testOnly = []string{"kubetest", "gittest", "golden", "report/reporttest", "bench"}

func TestImports(t *testing.T) {
	packages := imports(t, "..")
	found := map[string]bool{}
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		if name, ok := strings.CutPrefix(dir, "cmd/"); ok {
			checkCommand(t, name, packages[dir])
			continue
		}
		name, ok := strings.CutPrefix(dir, "internal/")
		if !ok || slices.ContainsFunc(testOnly, func(s string) bool { return name == s || strings.HasPrefix(name, s+"/") }) {
			continue
		}
		found[name] = true
		r, ok := rules[name]
		if !ok {
			t.Errorf("internal/%s has no rule: say what it may import and why", name)
			continue
		}
		for _, imp := range packages[dir] {
			if !r.allows(imp) {
				t.Errorf("internal/%s must not import %s: %s", name, imp, r.why)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		if !found[name] {
			t.Errorf("there is a rule for internal/%s, but no such package", name)
		}
	}
}

// imports reads what the packages below a folder import outside their tests, by
// folder. It reads the files itself: of a command such as "go list" the test
// cache would not know that the answer has changed.
func imports(t *testing.T, root string) map[string][]string {
	packages := map[string]map[string]bool{}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil && file != root {
				return fs.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		dir = filepath.ToSlash(dir)
		if packages[dir] == nil {
			packages[dir] = map[string]bool{}
		}
		for _, spec := range parsed.Imports {
			packages[dir][strings.Trim(spec.Path.Value, `"`)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sorted := map[string][]string{}
	for dir, set := range packages {
		sorted[dir] = slices.Sorted(maps.Keys(set))
	}
	return sorted
}

func (r rule) allows(imp string) bool {
	if own, ok := strings.CutPrefix(imp, module+"/internal/"); ok {
		return slices.ContainsFunc(r.internal, func(name string) bool {
			folder, all := strings.CutSuffix(name, "/*")
			return own == name || all && strings.HasPrefix(own, folder+"/")
		})
	}
	if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") && imp != "os" {
		return true // the standard library, except for the environment and the streams
	}
	return slices.ContainsFunc(r.external, func(prefix string) bool {
		return imp == prefix || strings.HasPrefix(imp, prefix+"/")
	})
}

func checkCommand(t *testing.T, name string, imports []string) {
	for _, imp := range imports {
		if name == "sluice" && strings.Contains(imp, ".") && imp != module+"/internal/cli" {
			t.Errorf("cmd/sluice must not import %s: it only starts cli", imp)
		}
	}
}
