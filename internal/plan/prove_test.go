package plan

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
	"github.com/sluicerun/sluice/internal/plan/proof"
)

// Schemas are asked for when they save requests, once; and whatever the server
// answers to that, no proof is wrong: dry runs follow.
func TestSchemasSaveRequestsAndOddOnesDoNoHarm(t *testing.T) {
	p := newProver(t)
	route := func(n int) string {
		return fmt.Sprintf("---\napiVersion: %s/v1\nkind: Route\nmetadata: {name: r%d}\nspec: {parentRefs: [{name: a}]}\n", p.group, n)
	}
	two := p.node("two", route(1)+route(2))
	three := p.node("three", route(3)+route(4)+route(5))
	for _, n := range []Node{two, three} {
		p.applyStaged(p.plan(n), n)
	}
	changed := p.node("three", route(3)+route(4)+route(5))
	for _, o := range changed.Objects {
		o.Object["spec"] = map[string]any{"parentRefs": []any{map[string]any{"name": "a", "kind": "Other"}}}
	}

	for name, c := range map[string]struct {
		node    Node
		fault   *proxy.Action
		index   bool // the fault is of the index
		schemas int
		dryRuns int
		count   map[Action]int
	}{
		"as it should be":       {node: three, schemas: 2, dryRuns: 0, count: map[Action]int{Unchanged: 3}},
		"not worth it":          {node: two, schemas: 0, dryRuns: 2, count: map[Action]int{Unchanged: 2}},
		"a plain change":        {node: changed, schemas: 0, dryRuns: 3, count: map[Action]int{Configure: 3}},
		"no index":              {node: three, fault: action(proxy.Answer(http.StatusForbidden, 0)), index: true, schemas: 1, dryRuns: 3, count: map[Action]int{Unchanged: 3}},
		"an index that is none": {node: three, fault: action(proxy.Reply(http.StatusOK, "text/html", []byte("<html>"))), index: true, schemas: 1, dryRuns: 3, count: map[Action]int{Unchanged: 3}},
		"another's index":       {node: three, fault: action(proxy.Reply(http.StatusOK, "application/json", []byte(`{"paths":{}}`))), index: true, schemas: 1, dryRuns: 3, count: map[Action]int{Unchanged: 3}},
		"no document":           {node: three, fault: action(proxy.Answer(http.StatusNotFound, 0)), schemas: 2, dryRuns: 3, count: map[Action]int{Unchanged: 3}},
		"half a document":       {node: three, fault: action(proxy.Truncate(1000)), schemas: 2, dryRuns: 3, count: map[Action]int{Unchanged: 3}},
		"an empty document":     {node: three, fault: action(proxy.Reply(http.StatusOK, "application/json", []byte(`{"components":{"schemas":{}}}`))), schemas: 2, dryRuns: 3, count: map[Action]int{Unchanged: 3}},
		"no defaults":           {node: three, fault: action(proxy.Rewrite(without("default"))), schemas: 2, dryRuns: 3, count: map[Action]int{Unchanged: 3}},
		"no kinds":              {node: three, fault: action(proxy.Rewrite(without("x-kubernetes-group-version-kind"))), schemas: 2, dryRuns: 3, count: map[Action]int{Unchanged: 3}},
		"no fields":             {node: three, fault: action(proxy.Rewrite(without("parentRefs"))), schemas: 2, dryRuns: 3, count: map[Action]int{Unchanged: 3}},
		"another type of list": {node: three, fault: action(proxy.Rewrite(func(body []byte) []byte {
			return bytes.ReplaceAll(body, []byte(`"x-kubernetes-list-type":"atomic"`), []byte(`"x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"]`))
		})), schemas: 2, dryRuns: 3, count: map[Action]int{Unchanged: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			w := watch(t, kubetest.Shared(t))
			if c.fault != nil {
				w.Fail(proxy.Fault{Do: *c.fault, Match: func(r proxy.Request) bool {
					return strings.HasPrefix(r.Path, "/openapi/v3") && (r.Path == "/openapi/v3") == c.index
				}})
			}
			loader := w.cluster.Schemas()
			made, err := Make(t.Context(), Options{
				Client: func(n *Node) (client.WithWatch, error) { return w.cluster.Client(n.User) },
				Owner:  apply.Owner(),
				Schemas: func(ctx context.Context, gv schema.GroupVersion, kinds []string) (proof.Types, error) {
					return loader.Load(ctx, gv, kinds)
				},
			}, []Node{c.node})
			if err != nil {
				t.Fatal(err)
			}
			schemas, dryRuns := 0, 0
			for _, r := range w.Requests() {
				if strings.HasPrefix(r.Path, "/openapi/") {
					schemas++
				}
				if r.Query.Has("dryRun") {
					dryRuns++
				}
			}
			if schemas != c.schemas || dryRuns != c.dryRuns || fmt.Sprint(made.Count()) != fmt.Sprint(c.count) {
				t.Errorf("%d requests for schemas, %d dry runs, %v; want %d, %d, %v", schemas, dryRuns, made.Count(), c.schemas, c.dryRuns, c.count)
			}
		})
	}
}

func action(a proxy.Action) *proxy.Action { return &a }

// without takes a field out of a document, wherever it is.
func without(field string) func([]byte) []byte {
	return func(body []byte) []byte {
		var document any
		if json.Unmarshal(body, &document) != nil {
			return body
		}
		var clean func(v any)
		clean = func(v any) {
			switch v := v.(type) {
			case map[string]any:
				delete(v, field)
				for _, value := range v {
					clean(value)
				}
			case []any:
				for _, value := range v {
					clean(value)
				}
			}
		}
		clean(document)
		out, err := json.Marshal(document)
		if err != nil {
			return body
		}
		return out
	}
}

// A schema that the run itself changes is not what its custom resources will be
// applied with.
func TestSchemaThatChangesProvesNothing(t *testing.T) {
	p := newProver(t)
	text := ""
	for n := range 3 {
		text += fmt.Sprintf("---\napiVersion: %s/v1\nkind: Route\nmetadata: {name: c%d}\nspec: {parentRefs: [{name: a}]}\n", p.group, n)
	}
	definition := strings.Split(strings.ReplaceAll(read(t, "testdata/definitions.yaml"), "GROUP", p.group), "\n---\n")[1]
	asked := 0
	options := p.options()
	options.Schemas = func(_ context.Context, gv schema.GroupVersion, _ []string) (proof.Types, error) {
		asked++
		return p.types[gv], nil
	}
	nodes := func(definition string) []Node {
		return []Node{p.node("definitions", definition), p.node("routes", text)}
	}
	for _, n := range nodes(definition) {
		p.applyStaged(p.plan(n), n)
	}
	for _, c := range []struct {
		name, definition string
		asked, dryRuns   int
		action           Action
	}{
		{"the same", definition, 1, 0, Unchanged},
		{"another default", strings.ReplaceAll(definition, "default: Gateway", "default: Doorway"), 0, 4, Configure},
	} {
		asked = 0
		p.reset()
		made, err := Make(t.Context(), options, nodes(c.definition))
		if err != nil {
			t.Fatal(err)
		}
		if asked != c.asked || p.dryRuns != c.dryRuns {
			t.Errorf("%s: %d schemas and %d dry runs, want %d and %d", c.name, asked, p.dryRuns, c.asked, c.dryRuns)
		}
		if got := made.Of(flux.ID{Namespace: p.namespace, Name: "definitions"}); len(got) != 1 || got[0].Action != c.action {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}
