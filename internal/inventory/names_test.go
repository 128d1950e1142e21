package inventory

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluicerun/sluice/internal/flux"
)

func TestNames(t *testing.T) {
	long := strings.Repeat("n", 253)
	ids := []flux.ID{
		{Namespace: "flux-system", Name: "apps"},
		{Namespace: "flux-system", Name: "apps.web"},
		{Namespace: "flux", Name: "system.apps"},
		{Namespace: "flux-system", Name: "hash." + strings.Repeat("a", 40)},
		{Namespace: "hash", Name: strings.Repeat("a", 40)},
		{Namespace: "flux-system", Name: long},
		{Namespace: "flux-system", Name: long[:252] + "m"},
		{Namespace: strings.Repeat("a", 63), Name: long},
		{Namespace: strings.Repeat("a", 63), Name: "b"},
		{Namespace: "a.b", Name: "c"},
		{Namespace: "a", Name: "b.c"},
		{Namespace: "a", Name: "Capital_and_more"},
		{Namespace: "a", Name: "capital-and-more"},
		{Namespace: "a_b", Name: "c"},
		{Namespace: "a", Name: "b_c"},
	}
	seenNames, seenLabels := map[string]flux.ID{}, map[string]flux.ID{}
	for _, id := range ids {
		for _, name := range []string{RecordName(id), RootName(id)} {
			if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
				t.Errorf("%v: name %q: %v", id, name, problems)
			}
			if other, taken := seenNames[name]; taken {
				t.Errorf("%v and %v have the same name %q", id, other, name)
			}
			seenNames[name] = id
		}
		value := RootLabelValue(id)
		if problems := validation.IsValidLabelValue(value); len(problems) > 0 {
			t.Errorf("%v: label %q: %v", id, value, problems)
		}
		if other, taken := seenLabels[value]; taken {
			t.Errorf("%v and %v have the same label %q", id, other, value)
		}
		seenLabels[value] = id
	}
	if got := RecordName(ids[0]); got != "sluice.flux-system.apps" {
		t.Errorf("RecordName = %q", got)
	}
	if got := RootName(ids[0]); got != "sluice-root.flux-system.apps" {
		t.Errorf("RootName = %q", got)
	}
}
