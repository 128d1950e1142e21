package flux

import (
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
)

func TestClusterRef(t *testing.T) {
	for _, tc := range []struct {
		spec *meta.KubeConfigReference
		want string
	}{
		{nil, ""},
		{&meta.KubeConfigReference{}, ""}, // refused before by the schema
		{&meta.KubeConfigReference{SecretRef: &meta.SecretKeyReference{Name: "east"}}, "Secret/apps/east"},
		{&meta.KubeConfigReference{SecretRef: &meta.SecretKeyReference{Name: "east", Key: "kube.config"}}, "Secret/apps/east/kube.config"},
		{&meta.KubeConfigReference{ConfigMapRef: &meta.LocalObjectReference{Name: "east"}}, "ConfigMap/apps/east"},
	} {
		ref := ClusterOf("apps", tc.spec)
		if ref.String() != tc.want || ref.IsOwn() != (tc.want == "") {
			t.Errorf("%+v: %q, want %q", tc.spec, ref, tc.want)
		}
		var back ClusterRef
		text, err := ref.MarshalText()
		if err == nil {
			err = back.UnmarshalText(text)
		}
		if err != nil || back != ref {
			t.Errorf("%q came back as %+v, %v", tc.want, back, err)
		}
	}
	for _, bad := range []string{"east", "Secret/east", "Secret//east", "Secret/apps/", "Pod/apps/east", "Secret/apps/east/key/more"} {
		if ref, err := ParseClusterRef(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, ref)
		}
	}
}
