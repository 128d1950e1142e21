package apply_test

import (
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/apply"
)

// S4.10: how kinds of an own stage are written.
func TestS4_10ParseKinds(t *testing.T) {
	role := schema.GroupKind{Group: "rbac.authorization.k8s.io", Kind: "Role"}
	for _, tc := range []struct {
		lists []string
		want  []schema.GroupKind
		err   string
	}{
		{lists: nil},
		{lists: []string{"rbac.authorization.k8s.io/Role"}, want: []schema.GroupKind{role}},
		{lists: []string{"rbac.authorization.k8s.io/Role, ConfigMap", "example.com/Gadget"}, want: []schema.GroupKind{role, {Kind: "ConfigMap"}, {Group: "example.com", Kind: "Gadget"}}},
		{lists: []string{""}, err: `"" is not of the form`},
		{lists: []string{"ConfigMap,,Secret"}, err: `"" is not of the form`},
		{lists: []string{"example.com/"}, err: `"example.com/" is not of the form`},
		{lists: []string{"/ConfigMap"}, err: `"/ConfigMap" is not of the form`},
		{lists: []string{"apps/v1/Deployment"}, err: `"apps/v1/Deployment" has more than a group and a kind`},
	} {
		got, err := apply.ParseKinds(tc.lists...)
		if tc.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
				t.Errorf("%q: error %v, want %q", tc.lists, err, tc.err)
			}
			continue
		}
		want := map[schema.GroupKind]struct{}{}
		for _, kind := range tc.want {
			want[kind] = struct{}{}
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v; want %v", tc.lists, got, err, want)
		}
	}
}
