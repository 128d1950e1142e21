package inventory

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// StateNamespaces returns, sorted, the namespaces that hold records: a cluster can have several, each with roots of its own that the
// others know nothing of. It costs one LIST of metadata in all namespaces; the error is an *AccessError where that is not allowed.
func StateNamespaces(ctx context.Context, c Client) ([]string, error) {
	page := &metav1.PartialObjectMetadataList{}
	page.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMapList"))
	if err := c.List(ctx, page, client.MatchingLabels{ManagedByLabel: ManagedBy}, client.HasLabels{KindLabel}); err != nil {
		return nil, Access(err, "look for records in other namespaces", "list", configMaps, "")
	}
	var found []string
	for i := range page.Items {
		if namespace := page.Items[i].Namespace; !slices.Contains(found, namespace) {
			found = append(found, namespace)
		}
	}
	slices.Sort(found)
	return found, nil
}
