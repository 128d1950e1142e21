package plan

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// benchNodes are Kustomizations as the generated repositories have them.
func benchNodes(tb testing.TB, namespace string, nodes, objects int, value string) []Node {
	tb.Helper()
	var out []Node
	for i := range nodes {
		k := &flux.Kustomization{ID: flux.ID{Namespace: namespace, Name: fmt.Sprintf("app-%03d", i)}}
		var list []flux.Object
		for j := range objects {
			var text string
			switch name := fmt.Sprintf("o-%03d-%02d", i, j); j % 4 {
			case 0:
				text = "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec: {clusterIP: None, selector: {a: b}, ports: [{port: 80}]}"
			case 1:
				text = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: " + name + ", labels: {v: \"" + value + "\"}}"
			case 2:
				text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: " + name + "}\nspec: {replicas: 0, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: app, image: \"registry.example.com/a:" + value + "\"}]}}}"
			default:
				text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {a: \"" + strings.Repeat(value, 100) + "\"}"
			}
			list = append(list, parse(tb, namespace, text)...)
		}
		prepared, _, err := prepare(k, list)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, Node{ID: k.ID, Objects: prepared, Rules: Rules{SSA: apply.Options{}.SSA()}})
	}
	return out
}

// BenchmarkHundredByTwenty compares with a client that only sends one
// server-side apply for each object, 32 at a time. Use -benchtime 1x.
func BenchmarkHundredByTwenty(b *testing.B) {
	h := connect(b)
	raw := func(b *testing.B, nodes []Node) {
		var g errgroup.Group
		g.SetLimit(32)
		for _, n := range nodes {
			for _, o := range n.Objects {
				g.Go(func() error {
					return h.admin().Patch(context.Background(), o.DeepCopy().Unstructured, serverSideApply, client.ForceOwnership, client.FieldOwner(flux.FieldManager))
				})
			}
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	all := func(b *testing.B, nodes []Node) {
		p, err := Make(b.Context(), h.options(), nodes)
		if err != nil {
			b.Fatal(err)
		}
		var g errgroup.Group
		g.SetLimit(8)
		for _, n := range nodes {
			g.Go(func() error {
				_, err := apply.Apply(b.Context(), p.Client(n.ID, h.admin()), n.Objects, apply.Options{})
				return err
			})
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	for range b.N {
		ns := kubetest.Namespace(b, kubetest.Shared(b))
		first, second := benchNodes(b, ns, 100, 20, "1"), benchNodes(b, ns, 100, 20, "2")
		other := benchNodes(b, h.namespace, 100, 20, "1")
		for _, step := range []struct {
			name  string
			run   func(*testing.B, []Node)
			nodes []Node
		}{{"raw", raw, other}, {"install", all, first}, {"unchanged", all, first}, {"half changed", all, second}} {
			b.Run(step.name, func(b *testing.B) {
				for range b.N {
					step.run(b, step.nodes)
				}
			})
		}
	}
}
