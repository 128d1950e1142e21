package plan

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/sluicerun/sluice/internal/flux"
)

func normalizeOne(t *testing.T, text string) (*unstructured.Unstructured, []string) {
	t.Helper()
	objects := parse(t, "", text)
	before := objects[0].DeepCopy()
	out, dropped, err := Normalize(objects)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(before.Object, objects[0].Object) {
		t.Error("the caller's object was changed")
	}
	if len(dropped) == 0 {
		return out[0].Unstructured, nil
	}
	return out[0].Unstructured, dropped[0].Paths
}

// S4.2, S4.3: unknown fields of built-in kinds go, and are named; what only
// says nothing is not; custom resources are left alone.
func TestS4_2DroppedFields(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"unknown": {strings.NewReplacer("replicas:", "replicaz: 3\n  replicas:", "web:1\"}", "web:1\", imagee: x}").Replace(workload),
			[]string{"spec.replicaz", "spec.template.spec.containers[0].imagee"}},
		"says nothing":    {strings.Replace(workload, "replicas: 1", "replicas: 0\n  paused: false", 1), nil},
		"wrong place":     {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labelz: {a: b}}\ndata: {a: b}\nspec: {x: y}", []string{"metadata.labelz", "spec"}},
		"secret":          {"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}", nil},
		"status":          {workload + "status: {replicas: 1}\n", nil},
		"custom resource": {"apiVersion: example.com/v1\nkind: X\nmetadata: {name: x}\nspec: {anything: 1}\nstatus: {a: b}", nil},
		"undecodable":     {strings.Replace(workload, "replicas: 1", "replicas: many\n  replicaz: 1", 1), nil},
		"role":            {"apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r, creationTimestamp: null}\nrulez: [1]", nil},
		"bad authority": {"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: x}\n" +
			"spec: {conversion: {strategy: Webhook, webhook: {clientConfig: {caBundle: bm90IGEgY2VydGlmaWNhdGU=}}}}",
			[]string{"spec.conversion.webhook.clientConfig.caBundle"}},
	} {
		if _, got := normalizeOne(t, tc.text); !slices.Equal(got, tc.want) {
			t.Errorf("%s: dropped %q, want %q", name, got, tc.want)
		}
	}
}

// S4.4, S4.5, S4.6: the other things that normalisation does.
func TestS4_4S4_5S4_6Normalized(t *testing.T) {
	service, _ := normalizeOne(t, "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 1}, {port: 2, protocol: UDP}]}\nstatus: {x: y}")
	ports, _, _ := unstructured.NestedSlice(service.Object, "spec", "ports")
	if got := []any{ports[0].(map[string]any)["protocol"], ports[1].(map[string]any)["protocol"]}; !reflect.DeepEqual(got, []any{"TCP", "UDP"}) {
		t.Errorf("protocols %v", got)
	}
	if _, ok := service.Object["status"]; ok {
		t.Error("the status is still there")
	}
	secret, _ := normalizeOne(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: b2xk, b: a2VwdA==}\nstringData: {a: new}")
	data, _, _ := unstructured.NestedStringMap(secret.Object, "data")
	if want := map[string]string{"a": "bmV3", "b": "a2VwdA=="}; !reflect.DeepEqual(data, want) {
		t.Errorf("data %v, want %v", data, want)
	}
	if _, ok := secret.Object["stringData"]; ok {
		t.Error("stringData is still there")
	}
	crd, _ := normalizeOne(t, "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: x}\nstatus: {conditions: []}")
	if _, ok := crd.Object["status"]; !ok {
		t.Error("a definition keeps its status")
	}
}

// S4.4: the ports of containers get a protocol in every kind of workload; those
// of init containers do not.
func TestS4_4ProtocolOfEveryWorkload(t *testing.T) {
	const pod = `{initContainers: [{name: i, ports: [{containerPort: 1}]}], containers: [{name: a, ports: [{containerPort: 2}, {containerPort: 3, protocol: UDP}]}, {name: b, ports: [{containerPort: 4}]}]}`
	template := "{template: {spec: " + pod + "}}"
	inTemplate := []string{"spec", "template", "spec"}
	for kind, tc := range map[string]struct {
		text string
		at   []string
	}{
		"v1 Pod":              {pod, []string{"spec"}},
		"apps/v1 Deployment":  {template, inTemplate},
		"apps/v1 StatefulSet": {template, inTemplate},
		"apps/v1 DaemonSet":   {template, inTemplate},
		"apps/v1 ReplicaSet":  {template, inTemplate},
		"batch/v1 Job":        {template, inTemplate},
		"batch/v1 CronJob":    {"{jobTemplate: {spec: " + template + "}}", []string{"spec", "jobTemplate", "spec", "template", "spec"}},
	} {
		version, name, _ := strings.Cut(kind, " ")
		o, dropped := normalizeOne(t, "apiVersion: "+version+"\nkind: "+name+"\nmetadata: {name: x}\nspec: "+tc.text)
		if len(dropped) > 0 {
			t.Errorf("%s: dropped %q", kind, dropped)
		}
		var got []any
		for _, field := range []string{"initContainers", "containers"} {
			list, _, _ := unstructured.NestedSlice(o.Object, append(slices.Clip(tc.at), field)...)
			for _, c := range list {
				ports, _ := c.(map[string]any)["ports"].([]any)
				for _, p := range ports {
					got = append(got, p.(map[string]any)["protocol"])
				}
			}
		}
		if want := []any{nil, "TCP", "UDP", "TCP"}; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: protocols %v, want %v", kind, got, want)
		}
	}
}

// S4.6: the creation time is null on all objects, and the status is gone from
// all but definitions; roles are left alone.
func TestS4_6CreationTimeAndStatus(t *testing.T) {
	for _, tc := range []struct {
		kind           string
		status, nulled bool
	}{
		{"v1 ConfigMap", false, true},
		{"apps/v1 Deployment", false, true},
		{"example.com/v1 Gadget", false, true},
		{"apiextensions.k8s.io/v1 CustomResourceDefinition", true, true},
		{"rbac.authorization.k8s.io/v1 ClusterRole", true, false},
		{"rbac.authorization.k8s.io/v1 Role", true, false},
		{"rbac.authorization.k8s.io/v1 RoleBinding", false, true},
	} {
		version, name, _ := strings.Cut(tc.kind, " ")
		o, _ := normalizeOne(t, "apiVersion: "+version+"\nkind: "+name+"\nmetadata: {name: x, creationTimestamp: \"2020-01-01T00:00:00Z\"}\nstatus: {phase: old}")
		if _, there := o.Object["status"]; there != tc.status {
			t.Errorf("%s: has a status: %t", tc.kind, there)
		}
		value, there, _ := unstructured.NestedFieldNoCopy(o.Object, "metadata", "creationTimestamp")
		if nulled := there && value == nil; nulled != tc.nulled {
			t.Errorf("%s: creation time %v", tc.kind, value)
		}
	}
}

// S11.20, S11.21: Secrets that nobody decrypted, all of them.
func TestS11_20EncryptedSecrets(t *testing.T) {
	text := "apiVersion: v1\nkind: Secret\nmetadata: {name: NAME, namespace: team}\ndata: {a: ENC}\nsops: {mac: x}\n"
	_, _, err := Normalize(parse(t, "", strings.ReplaceAll(text, "NAME", "one")+"---\n"+strings.ReplaceAll(text, "NAME", "two")))
	want := "apps/one.yaml: Secret/team/one is SOPS encrypted, configuring decryption is required for this secret to be reconciled\n" +
		"apps/two.yaml: Secret/team/two is SOPS encrypted, configuring decryption is required for this secret to be reconciled"
	var e *EncryptedError
	if err == nil || err.Error() != want || !errors.As(err, &e) || e.Hint() == "" {
		t.Errorf("error %v", err)
	}
	left := strings.Replace(text, "{name: NAME,", "{name: x, annotations: {kustomize.toolkit.fluxcd.io/decrypt: Disabled},", 1)
	if _, _, err := Normalize(parse(t, "", left)); err != nil {
		t.Errorf("S11.21: %v", err)
	}
}

// S4.1, S1.9: owner labels first, then the common metadata, which can override
// them.
func TestS4_1S1_9Metadata(t *testing.T) {
	k := &flux.Kustomization{ID: flux.ID{Namespace: "flux-system", Name: "apps"}}
	k.Spec.CommonMetadata = &kustomizev1.CommonMetadata{
		Labels: map[string]string{"team": "a", flux.NameLabel: "other"}, Annotations: map[string]string{"note": "b"}}
	out, _, err := prepare(k, parse(t, "", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {team: mine, own: x}}"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"team": "a", "own": "x", flux.NameLabel: "other", flux.NamespaceLabel: "flux-system"}
	if got := out[0].GetLabels(); !reflect.DeepEqual(got, want) {
		t.Errorf("labels %v, want %v", got, want)
	}
	if got := out[0].GetAnnotations(); !reflect.DeepEqual(got, map[string]string{"note": "b"}) {
		t.Errorf("annotations %v", got)
	}
}
