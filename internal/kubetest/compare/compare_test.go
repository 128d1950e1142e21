package compare

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

const first = `
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: one
  uid: 11
  resourceVersion: "5"
  labels: {in: one, made: by-controller}
  managedFields:
  - {manager: flux, operation: Apply, apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {"f:spec": {"f:ports": {"k:{\"port\":1}": {".": {}, "f:port": {}}}}, "f:metadata": {"f:labels": {"f:in": {}}}}}
  - {manager: kubectl, operation: Update, subresource: status, apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {"f:spec": {"f:type": {}}}}
  - {manager: controller, operation: Update, apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {"f:metadata": {"f:labels": {"f:made": {}}}}}
spec: {ports: [{port: 1}], type: ClusterIP, clusterIP: 10.0.0.1, empty: {}}
`

func TestFieldsAndOwners(t *testing.T) {
	o := object(t, first)
	fields := Fields(o)
	if fields[".spec.ports[0].port"] != "1" || fields[".spec.empty"] != "{}" || fields[".metadata.labels.in"] != `"one"` {
		t.Errorf("fields %v", fields)
	}
	owners, err := Owners(o)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{`.spec.ports[port=1]`: "flux Apply", `.spec.ports[port=1].port`: "flux Apply", ".spec.type": "kubectl Update status"} {
		if got := owners[path]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is owned by %q, want %q", path, got, want)
		}
	}
}

func TestObjects(t *testing.T) {
	options := Options{Names: [2]string{"one", "two"}, Managers: []string{"controller"}, Made: []string{".spec.clusterIP"}}
	for _, tc := range []struct {
		name   string
		change func(o *unstructured.Unstructured)
		want   []string
	}{
		{"same but for what is made up", func(o *unstructured.Unstructured) {
			o.SetNamespace("two")
			o.SetLabels(map[string]string{"in": "two"})
			o.SetUID("22")
			o.SetResourceVersion("9")
			o.SetManagedFields(o.GetManagedFields()[:2])
			_ = unstructured.SetNestedField(o.Object, "10.0.0.2", "spec", "clusterIP")
		}, nil},
		{"a value", func(o *unstructured.Unstructured) {
			_ = unstructured.SetNestedField(o.Object, "NodePort", "spec", "type")
		}, []string{`.metadata.labels.in: "*" != "one"`, `.metadata.namespace: "*" != "one"`, `.spec.type: "ClusterIP" != "NodePort"`}},
		{"an owner", func(o *unstructured.Unstructured) {
			o.SetNamespace("two")
			o.SetLabels(map[string]string{"in": "two"})
			fields := o.GetManagedFields()
			fields[1].Manager = "helm"
			o.SetManagedFields(fields)
		}, []string{"owners of .spec.type: kubectl Update status != helm Update status",
			"version of helm Update status: only in the second: v1", "version of kubectl Update status: only in the first: v1"}},
		{"a version", func(o *unstructured.Unstructured) {
			o.SetNamespace("two")
			o.SetLabels(map[string]string{"in": "two"})
			fields := o.GetManagedFields()
			fields[0].APIVersion = "v2"
			o.SetManagedFields(fields)
		}, []string{"version of flux Apply: v1 != v2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			other := object(t, first)
			tc.change(other)
			got, err := Objects(object(t, first), other, options)
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
		})
	}
	if got, err := Objects(object(t, first), nil, options); err != nil || len(got) != 1 {
		t.Errorf("against nothing: %q, %v", got, err)
	}
}
