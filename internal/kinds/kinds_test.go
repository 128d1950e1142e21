package kinds_test

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluicerun/sluice/internal/kinds"
)

func TestListable(t *testing.T) {
	all := metav1.Verbs{"get", "list"}
	found, err := kinds.Listable([]*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "configmaps", Kind: "ConfigMap", Verbs: all}, {Name: "events", Kind: "Event", Verbs: all},
			{Name: "pods/log", Kind: "Pod", Verbs: all}, {Name: "bindings", Kind: "Binding", Verbs: metav1.Verbs{"create"}},
		}},
		{GroupVersion: "metrics.k8s.io/v1beta1", APIResources: []metav1.APIResource{{Name: "pods", Kind: "PodMetrics", Verbs: all}}},
		{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{{Name: "deployments", Kind: "Deployment", Verbs: all}}},
	})
	var got []string
	for _, gvk := range found {
		got = append(got, gvk.String())
	}
	if want := []string{"/v1, Kind=ConfigMap", "apps/v1, Kind=Deployment"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, want %v; error %v", got, want, err)
	}
	if _, err := kinds.Listable([]*metav1.APIResourceList{{GroupVersion: "a/b/c"}}); err == nil {
		t.Error("no error for a group version that is none")
	}
}
