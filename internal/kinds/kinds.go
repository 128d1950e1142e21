// Package kinds reads an API server's list of the kinds it has.
package kinds

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Listable returns the kinds that can be listed, in the order of the lists that
// discovery gave. Left out are those whose objects only record or measure
// others: events and metrics. The error says that a list cannot be read.
func Listable(lists []*metav1.APIResourceList) ([]schema.GroupVersionKind, error) {
	var all []schema.GroupVersionKind
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, fmt.Errorf("the server has an API group that cannot be read: %w", err)
		}
		for _, r := range list.APIResources {
			if strings.Contains(r.Name, "/") || !slices.Contains(r.Verbs, "list") || records(gv.Group, r.Kind) {
				continue
			}
			all = append(all, gv.WithKind(r.Kind))
		}
	}
	return all, nil
}

func records(group, kind string) bool {
	return group == "metrics.k8s.io" || kind == "Event" && (group == "" || group == "events.k8s.io")
}
