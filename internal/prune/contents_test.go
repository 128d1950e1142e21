package prune

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A kind whose definition somebody deletes while a Namespace is looked into has no
// objects in it; one that the server still has, and does not list, may.
func TestKindThatVanishes(t *testing.T) {
	c := newCluster(t)
	refs := c.create(`apiVersion: v1
kind: Namespace
metadata: {name: NS-vanish}`)
	g := DefaultGuards()
	g.AllowEmpty = true
	for name, tt := range map[string]struct {
		answers int
		want    string
	}{
		"gone":          {1, ""},
		"still defined": {2, "cannot list Gadget.vanish.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Check(t.Context(), accessTo(c.client, &vanishing{Kinds: served(t), answers: tt.answers}), c.plan(nil, refs), g)
			must(t, err)
			if got := c.refusals(f); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// vanishing tells so many times of a kind that the server does not serve.
type vanishing struct {
	Kinds
	answers int
}

func (v *vanishing) ServerPreferredNamespacedResources() ([]*metav1.APIResourceList, error) {
	lists, err := v.Kinds.ServerPreferredNamespacedResources()
	if v.answers--; v.answers >= 0 {
		lists = append(lists, &metav1.APIResourceList{GroupVersion: "vanish.example.com/v1",
			APIResources: []metav1.APIResource{{Name: "gadgets", Kind: "Gadget", Namespaced: true, Verbs: metav1.Verbs{"list"}}}})
	}
	return lists, err
}
