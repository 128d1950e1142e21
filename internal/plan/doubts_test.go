package plan

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/plan/proof"
)

// Each case was, or could be, proven wrongly, or not at all.
func TestProofs(t *testing.T) {
	p := newProver(t)
	for name, c := range map[string]struct {
		applied, another, desired string
		literal                   proof.Verdict
		schema                    bool
	}{
		"a list of defaults": {
			applied: "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: NAME}\nspec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}",
			literal: proof.Unchanged, schema: true,
		},
		"a value goes back to its default": {
			applied: "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: NAME}\nspec: {podSelector: {}, ingress: [{ports: [{port: 80, protocol: UDP}]}]}",
			desired: "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: NAME}\nspec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}",
			literal: proof.Doubtful,
		},
		"an empty list of a built-in kind": {
			applied: "apiVersion: v1\nkind: LimitRange\nmetadata: {name: NAME}\nspec: {limits: []}",
			literal: proof.Unchanged, schema: true,
		},
		"a definition with an empty status": {
			applied: thing + "status: {acceptedNames: {kind: \"\", plural: \"\"}, conditions: [], storedVersions: []}",
			literal: proof.Unchanged, schema: true,
		},
		"a definition with a status that the server refuses": {
			applied: thing,
			desired: thing + "status: {unset: null}",
			literal: proof.Doubtful,
		},
		"a field that becomes unknown": {
			applied: thing,
			desired: strings.Replace(thing, "type: object}", "type: object, x-kubernetes-unheard-of: false}", 1),
			literal: proof.Doubtful,
		},
		"a map that was applied empty, with what another has put there": {
			// Nothing changes but that the fields have one owner more.
			applied: "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: NAME, namespace: \"\"}\nhandler: runc\noverhead: {}",
			another: "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: NAME, namespace: \"\"}\noverhead: {podFixed: {cpu: 1}}",
			desired: "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: NAME, namespace: \"\"}\nhandler: runc\noverhead: {podFixed: {cpu: 1}}",
			literal: proof.Unchanged,
		},
		"defaults of a custom resource": {
			applied: "apiVersion: GROUP/v1\nkind: Route\nmetadata: {name: NAME}\nspec: {parentRefs: [{name: a}], rules: [{backendRefs: [{name: b, port: 80}]}]}",
			literal: proof.Doubtful, schema: true,
		},
		"a value of a custom resource goes back to its default": {
			applied: "apiVersion: GROUP/v1\nkind: Route\nmetadata: {name: NAME}\nspec: {parentRefs: [{name: a, kind: Other}]}",
			desired: "apiVersion: GROUP/v1\nkind: Route\nmetadata: {name: NAME}\nspec: {parentRefs: [{name: a}]}",
			literal: proof.Doubtful,
		},
		"null in a custom resource": {
			applied: "apiVersion: GROUP/v1\nkind: Gadget\nmetadata: {name: NAME}\nspec: {maybe: null, both: null, free: {a: null}}",
			literal: proof.Doubtful, schema: true,
		},
		"another list order": {
			applied: "apiVersion: GROUP/v1\nkind: Gadget\nmetadata: {name: NAME}\nspec: {parts: [{name: a}, {name: b}], labels: [a, b]}",
			desired: "apiVersion: GROUP/v1\nkind: Gadget\nmetadata: {name: NAME}\nspec: {parts: [{name: b}, {name: a}], labels: [a, b]}",
		},
		"a key that is left to its default": {
			applied: "apiVersion: GROUP/v1\nkind: Gadget\nmetadata: {name: NAME}\nspec: {ports: [{port: 80}, {port: 80, protocol: UDP}]}",
			literal: proof.Doubtful, schema: true,
		},
		"a plain change": {
			applied: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata: {a: b}",
			desired: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata: {a: c}",
		},
	} {
		t.Run(name, func(t *testing.T) {
			id := "p" + p.suffix + strings.Map(func(r rune) rune {
				if r < 'a' || r > 'z' {
					return -1
				}
				return r
			}, name)
			if len(id) > 40 {
				id = id[:40]
			}
			applied := p.manifest(p.parse(c.applied, id)[0])
			owner := client.FieldOwner(flux.FieldManager)
			if err := p.admin().Patch(t.Context(), applied.DeepCopy(), serverSideApply, client.ForceOwnership, owner); err != nil {
				t.Fatal(err)
			}
			defer p.remove(t, applied)
			if c.another != "" {
				other := p.parse(c.another, id)[0]
				if err := p.admin().Patch(t.Context(), other.Unstructured, serverSideApply, client.ForceOwnership, client.FieldOwner("another")); err != nil {
					t.Fatal(err)
				}
			}
			desired := applied
			if c.desired != "" {
				desired = p.manifest(p.parse(c.desired, id)[0])
			}
			rules := proof.Rules{SSA: apply.Options{}.SSA(), Manager: flux.FieldManager}
			live := p.live(flux.Object{Unstructured: desired})
			types := p.types[desired.GroupVersionKind().GroupVersion()]
			literal, schema := proof.Literal(desired, live, rules), proof.BySchema(desired, live, rules, types)
			if literal != c.literal || schema != c.schema {
				t.Errorf("literally %v, by schema %v; want %v, %v\nmanifest %s\nlive     %s\nmanaged  %s",
					literal, schema, c.literal, c.schema, text(desired.Object), text(live.Object), ours(live))
			}
			p.check(0, desired, false, nil)
		})
	}
}

const thing = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.NAME.example.com, namespace: ""}
spec:
  group: NAME.example.com
  preserveUnknownFields: false
  scope: Namespaced
  names: {kind: Thing, plural: things, shortNames: []}
  versions: [{name: v1, served: true, storage: true, deprecated: false, schema: {openAPIV3Schema: {type: object}}}]
`

// doubtful are the objects of the repositories here that are as they were
// applied and are dry-run all the same, by kind: those that no schema helps
// with.
//
//   - A Pod is given tolerations when it is admitted, in a list that the
//     manifest replaces.
var doubtful = map[string]int{"Pod": 1}

// How often a dry run is spent on what has not changed must not grow unnoticed.
// The repositories are those that the tests of this module are made of.
func TestDoubtsOfRepositories(t *testing.T) {
	p := newProver(t)
	rules := proof.Rules{SSA: apply.Options{}.SSA(), Manager: flux.FieldManager}
	var applied, literally, refused int
	bySchema, doubts := map[string]int{}, map[string]int{}
	for n, o := range p.repositories(t) {
		mapping, err := p.admin().RESTMapper().RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
		switch {
		case meta.IsNoMatchError(err):
			continue
		case err != nil:
			t.Fatal(err)
		case mapping.Scope.Name() == meta.RESTScopeNameNamespace:
			o.SetNamespace(p.namespace)
		default:
			o.SetNamespace("")
			if !strings.Contains(o.GetName(), ".") { // not a definition
				o.SetName(fmt.Sprintf("%s-%d-%s", p.suffix, n, o.GetName()))
			}
		}
		desired := p.manifest(o)
		if desired == nil {
			continue
		}
		err = p.admin().Patch(t.Context(), desired.DeepCopy(), serverSideApply, client.ForceOwnership, client.FieldOwner(flux.FieldManager))
		if err != nil {
			refused++ // what a test is about may be just that
			continue
		}
		applied++
		live := p.live(flux.Object{Unstructured: desired})
		switch proof.Literal(desired, live, rules) {
		case proof.Unchanged:
			literally++
		default:
			kind := desired.GetKind()
			types := p.types[desired.GroupVersionKind().GroupVersion()]
			if types == nil {
				types = p.bench.types(desired.GroupVersionKind().GroupVersion(), kind)
			}
			if proof.BySchema(desired, live, rules, types) {
				bySchema[kind]++
				break
			}
			doubts[kind]++
			t.Logf("not proven:\nmanifest %s\nlive     %s\nmanaged  %s", text(desired.Object), text(live.Object), ours(live))
		}
		p.remove(t, desired)
	}
	t.Logf("%d objects applied, %d refused: %d proven literally, by schema %v, not at all %v", applied, refused, literally, bySchema, doubts)
	if !maps.Equal(doubts, doubtful) {
		t.Errorf("not proven %v, want %v", doubts, doubtful)
	}
	if applied < 240 {
		t.Errorf("only %d objects were looked at", applied)
	}
}

// repositories returns the objects of the test repositories.
func (p *prover) repositories(t *testing.T) []flux.Object {
	var texts []string
	texts = append(texts, p.kinds...)
	builds, err := filepath.Glob("../build/testdata/*.txtar")
	if err != nil || len(builds) == 0 {
		t.Fatalf("no builds: %v", err)
	}
	for _, file := range builds {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if f.Name == "want-objects" {
				texts = append(texts, string(f.Data))
			}
		}
	}
	err = filepath.WalkDir("../../testdata/repos", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(file) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(file)
		texts = append(texts, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []flux.Object
	for _, text := range texts {
		for _, o := range p.documents(text) {
			if o.GetName() == "" || strings.Contains(o.GetAPIVersion(), "kustom") {
				continue
			}
			all = append(all, o)
		}
	}
	return all
}

// documents reads YAML documents, apart from those that are no objects.
func (p *prover) documents(text string) []flux.Object {
	var out []flux.Object
	for _, document := range strings.Split("\n"+text, "\n# ") {
		// Each object of a build comes after a comment with its file.
		_, document, _ = strings.Cut(document, "\n")
		for _, part := range strings.Split(document, "\n---\n") {
			if !strings.Contains(part, "apiVersion:") || !strings.Contains(part, "metadata:") || !strings.Contains(part, "kind:") {
				continue
			}
			out = append(out, p.parse(part, "d"+p.suffix)...)
		}
	}
	return out
}

func (p *prover) remove(t *testing.T, o client.Object) {
	err := p.admin().Delete(context.Background(), o.DeepCopyObject().(client.Object), client.PropagationPolicy("Background"))
	if client.IgnoreNotFound(err) != nil {
		t.Error(err)
	}
}
