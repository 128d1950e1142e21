package build

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sluicerun/sluice/internal/flux"
)

// bomb is a manifest of so many levels of nine aliases each.
func bomb(levels int) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: default}\nx0: &x0 [lol, lol]\n")
	for i := 1; i <= levels; i++ {
		fmt.Fprintf(&b, "x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d, ", i-1), 9), ", "))
	}
	return b.String()
}

func TestAliases(t *testing.T) {
	for name, tc := range map[string]struct {
		content string
		refused bool
	}{
		"none":             {content: "a: 1\nb: '* & text'\n"},
		"ordinary":         {content: "a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n"},
		"three levels":     {content: bomb(3)},
		"eight levels":     {content: bomb(8), refused: true},
		"second document":  {content: "a: 1\n---\n" + bomb(8), refused: true},
		"anchor in itself": {content: "a: &a [*a]\n", refused: true},
		"does not parse":   {content: "a: &a {\nb: *a"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Weigh([]byte(tc.content)); (err != nil) != tc.refused {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestBuildRefusesAliasBomb(t *testing.T) {
	tree := fstest.MapFS{"apps/bomb.yaml": {Data: []byte(bomb(8))}}
	k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "apps"}}
	k.Spec.Path = "apps"
	_, err := Build(t.Context(), tree, k, Options{})
	if err == nil || !strings.Contains(err.Error(), "apps/bomb.yaml") || !strings.Contains(err.Error(), "aliases expand") {
		t.Errorf("error %v", err)
	}
}
