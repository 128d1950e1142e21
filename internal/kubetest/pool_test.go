//go:build unix

package kubetest

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
)

// litter is what a test may leave behind: finalizers nobody serves, a definition with objects of its kind, workloads at work, a volume,
// and a webhook that refuses everything since nobody answers it.
const litter = `
apiVersion: v1
kind: Namespace
metadata: {name: left}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: held, namespace: left, finalizers: [example.com/hold]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: beside-the-clusters-own, namespace: kube-system}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  names: {kind: Thing, plural: things}
  scope: Cluster
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
---
apiVersion: example.com/v1
kind: Thing
metadata: {name: held, finalizers: [example.com/hold]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: default}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: down}
webhooks:
  - name: down.example.com
    admissionReviewVersions: [v1]
    sideEffects: None
    failurePolicy: Fail
    clientConfig: {url: "https://127.0.0.1:1/"}
    rules: [{apiGroups: ["*"], apiVersions: ["*"], resources: ["*"], operations: ["*"], scope: "*"}]
`

func TestPoolLendsClustersAsNew(t *testing.T) {
	ctx := t.Context()
	var pool Pool
	take := func() *Cluster {
		t.Helper()
		c, err := pool.Take(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := take()
	t.Cleanup(func() { _ = c.Stop() }) // the test has stopped it, or has failed
	first := pool.lent[c].first

	client, err := dynamic.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(litter), 4096)
	for range strings.Count(litter, "\nkind: ") {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(o); err != nil {
			t.Fatal(err)
		}
		// A kind is served some time after its definition was made.
		for {
			groups, err := restmapper.GetAPIGroupResources(pool.lent[c].cleaner.discovery)
			if err != nil {
				t.Fatal(err)
			}
			m, err := restmapper.NewDiscoveryRESTMapper(groups).RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
			if err != nil && o.GetKind() == "Thing" {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err = client.Resource(m.Resource).Namespace(o.GetNamespace()).Create(ctx, o, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if err := pool.Give(ctx, c); err != nil {
		t.Fatal(err)
	}
	if err := pool.Give(ctx, c); err == nil || !strings.Contains(err.Error(), "is not lent") {
		t.Errorf("given back twice: %v", err)
	}

	// The same cluster, and the one who gets it sees nothing of what was.
	if again := take(); again != c {
		t.Fatal("another cluster, though one was free")
	}
	if other := take(); other == c {
		t.Fatal("a cluster that is lent already")
	} else if err := other.Stop(); err != nil {
		t.Fatal(err)
	}
	now, err := pool.lent[c].cleaner.look(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(now.objects, first.objects) || !slices.Equal(now.served, first.served) {
		t.Errorf("beyond the first day: %v", now.beyond(first))
	}

	// What was there from the beginning cannot be made anew, so such a cluster is not used again.
	clients, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clients.CoreV1().Namespaces().Patch(ctx, corev1.NamespaceDefault, types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := pool.Give(ctx, c); err == nil || !strings.Contains(err.Error(), "namespaces /default was changed") {
		t.Errorf("given back with another namespace: %v", err)
	}
	select {
	case <-c.Ended():
	default:
		t.Error("it goes on running")
	}
	if len(pool.idle) != 0 {
		t.Error("it would be lent again")
	}
}
