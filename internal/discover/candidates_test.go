package discover_test

import (
	"fmt"
	"os"
	"path"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sluicerun/sluice/internal/discover"
	"github.com/sluicerun/sluice/internal/flux"
)

func manifest(name, path string) string {
	return "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: " + name + ", namespace: flux-system}\n" +
		"spec: {path: " + path + ", interval: 5m, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}\n"
}

func TestCandidates(t *testing.T) {
	for _, test := range []struct {
		name string
		tree map[string]string
		want string
	}{
		{"nothing", map[string]string{"a.yaml": "kind: ConfigMap\n"}, ""},
		{"one folder", map[string]string{"clusters/a/apps.yaml": manifest("apps", "./apps")}, "clusters/a"},
		{"the root", map[string]string{"apps.yaml": manifest("apps", "./apps")}, "."},
		{"bootstrap", map[string]string{
			"clusters/a/flux-system/gotk-sync.yaml":     manifest("flux-system", "./clusters/a"),
			"clusters/a/flux-system/kustomization.yaml": "resources: [gotk-sync.yaml]\n",
			"clusters/a/apps.yaml":                      manifest("apps", "./apps"),
			"clusters/b/flux-system/gotk-sync.yaml":     manifest("flux-system", "./clusters/b"),
			"clusters/b/flux-system/kustomization.yaml": "resources: [gotk-sync.yaml]\n",
		}, "clusters/a* clusters/b*"},
		{"bootstrap at the root", map[string]string{
			"flux-system/gotk-sync.yaml": manifest("flux-system", "./"),
			"apps/apps.yaml":             manifest("apps", "./deploy"),
		}, ".*"},
		{"children", map[string]string{
			"clusters/a/tenants.yaml": manifest("tenants", "./tenants"),
			"tenants/one.yaml":        manifest("one", "./one"),
			"one/deep/two.yaml":       manifest("two", "./two"),
		}, "clusters/a"},
		{"overlays", map[string]string{
			"clusters/base/apps.yaml":           manifest("apps", "./apps"),
			"clusters/base/kustomization.yaml":  "resources: [apps.yaml]\n",
			"clusters/prod/kustomization.yaml":  "resources: [../base]\n",
			"clusters/stage/kustomization.yaml": "resources: [../base, own.yaml]\n",
			"clusters/stage/own.yaml":           manifest("own", "./own"),
		}, "clusters/prod clusters/stage"},
		{"a path without a value", map[string]string{
			"clusters/a/apps.yaml": strings.Replace(manifest("apps", "./"), "name: flux-system}}", "name: apps}}", 1),
			"clusters/b/apps.yaml": manifest("apps", "'./${path}'"),
		}, "clusters/a clusters/b"},
		{"broken files are passed over", map[string]string{
			"clusters/a/apps.yaml":    manifest("apps", "./apps"),
			"clusters/a/broken.yaml":  "# kustomize.toolkit.fluxcd.io\na: b: c\n",
			"charts/templates/x.yaml": "kustomize.toolkit.fluxcd.io {{ if }}\n",
		}, "clusters/a"},
		{"each other", map[string]string{
			"aa/x.yaml": manifest("x", "./b"),
			"b/y.yaml":  manifest("y", "./aa"),
		}, "b"},
	} {
		tree := fstest.MapFS{}
		for name, text := range test.tree {
			tree[name] = &fstest.MapFile{Data: []byte(text)}
		}
		candidates, err := discover.Candidates(tree)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		var got []string
		for _, c := range candidates {
			star := ""
			if c.SelfReference {
				star = "*"
			}
			got = append(got, c.Path+star)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %v, want %s", test.name, got, test.want)
		}
	}
}

// TestCandidatesOfGradeAPI: the sample repository has two entry folders.
func TestCandidatesOfGradeAPI(t *testing.T) {
	candidates, err := discover.Candidates(os.DirFS("../../testdata/repos/grade-api"))
	if err != nil {
		t.Fatal(err)
	}
	want := "[{clusters/production [cert-manager-flux/cert-manager flux-system/apps flux-system/flux-system flux-system/grade-web flux-system/infra-controllers flux-system/infra-crds] true}" +
		" {clusters/staging [flux-system/apps flux-system/flux-system flux-system/infra-controllers flux-system/infra-crds] true}]"
	if got := fmt.Sprint(candidates); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSelfReference(t *testing.T) {
	k := func(name, path string) *flux.Kustomization {
		k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: name}}
		k.Spec.Path = path
		return k
	}
	found := discover.Found{Kustomizations: []*flux.Kustomization{k("apps", "./apps"), k("b", "clusters/a/"), k("a", "./clusters/a"), k("flux-system", "/clusters/b")}}
	for path, want := range map[string]string{"clusters/a": "a", "./clusters/b": "flux-system", "clusters/c": "", "apps/": "apps"} {
		got := ""
		if self := discover.SelfReference(found, path); self != nil {
			got = self.Name
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	found.Kustomizations = append(found.Kustomizations, k("flux-system", "clusters/a"))
	if self := discover.SelfReference(found, "clusters/a"); self.Name != "flux-system" {
		t.Errorf("got %s: flux bootstrap's comes first", self)
	}
}

func TestDefaultRoot(t *testing.T) {
	long := strings.Repeat("abcdefgh/", 10) + "end"
	for p, want := range map[string]string{
		"clusters/production": "clusters-production", "./clusters/Prod_EU": "clusters-prod-eu", ".": "root", "": "root",
		".github/x": "github-x", "größe": "gr-e", "--": "root", long: "h-abcdefgh-abcdefgh-abcdefgh-abcdefgh-abcdefgh-abcdefgh-end",
	} {
		k := discover.DefaultRoot(p, "flux-system")
		if k.Name != want && p != long || len(k.Name) > 63 || strings.Trim(k.Name, "-") != k.Name || p == long && !strings.HasSuffix(k.Name, "-abcdefgh-end") {
			t.Errorf("%q: name %q, want %q", p, k.Name, want)
		}
		if k.Path() != flux.CleanPath(p) || !strings.HasPrefix(k.Spec.Path, "./") || path.Clean(k.Spec.Path) != k.Path() || !k.Spec.Prune || k.Spec.Interval.Hours() != 1 || k.Namespace != "flux-system" {
			t.Errorf("%q: %+v", p, k)
		}
	}
}

func TestLine(t *testing.T) {
	tree := fstest.MapFS{"a.yaml": {Data: []byte(`# first
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
---

# second
apiVersion: v1
kind: ConfigMap
metadata: {name: b, namespace: n}
---
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: '${x}'}
---
a: {{ broken
`)}}
	for _, test := range []struct {
		file string
		ref  flux.Ref
		want int
	}{
		{"a.yaml", flux.Ref{Kind: "ConfigMap", Name: "a"}, 2},
		{"a.yaml", flux.Ref{Kind: "ConfigMap", Name: "a", Namespace: "given-by-the-build"}, 2},
		{"a.yaml", flux.Ref{Kind: "ConfigMap", Name: "b", Namespace: "n"}, 9},
		{"a.yaml", flux.Ref{Kind: "ConfigMap", Name: "b", Namespace: "other"}, 0},
		{"a.yaml", flux.Ref{Group: "apps", Kind: "Deployment", Name: "filled-in"}, 16},
		{"a.yaml", flux.Ref{Kind: "Secret", Name: "a"}, 0},
		{"none.yaml", flux.Ref{Kind: "ConfigMap", Name: "a"}, 0},
		{"", flux.Ref{Kind: "ConfigMap", Name: "a"}, 0},
	} {
		if got := discover.Line(tree, test.file, test.ref); got != test.want {
			t.Errorf("%s %s: line %d, want %d", test.file, test.ref, got, test.want)
		}
	}
	if discover.Line(nil, "a.yaml", flux.Ref{Kind: "ConfigMap", Name: "a"}) != 0 {
		t.Error("a line without a tree")
	}
}
