package discover_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sluicerun/sluice/internal/discover"
	"github.com/sluicerun/sluice/internal/flux"
)

// TestChecks (S1.1 to S1.5, S1.19): what the API server would refuse.
func TestChecks(t *testing.T) {
	const rest = "  interval: 5m\n  prune: true\n"
	for _, test := range []struct{ name, spec, want, hint string }{
		{"S1.5 interval", "  prune: true\n", "6: spec.interval: is required", ""},
		{"S1.5 prune", "  interval: 5m\n", "6: spec.prune: is required", ""},
		{"S1.5 source", "", "6: spec.interval: is required\n6: spec.prune: is required", ""},
		{"S1.5 null", "  interval: null\n  prune: ~\n", "8: spec.interval: is required\n9: spec.prune: is required", ""},
		{"S1.2 unknown", rest + "  dependson: []\n", "10: spec.dependson: unknown field: Flux's Kustomization has no such field", `did you mean "dependsOn"?`},
		{"S1.2 unknown, far", rest + "  somethingElse: []\n", "10: spec.somethingElse: unknown field: Flux's Kustomization has no such field", "remove the field"},
		{"S1.2 nested", rest + "  postBuild:\n    substituteform: []\n", "11: spec.postBuild.substituteform: unknown field: Flux's Kustomization has no such field", `did you mean "substituteFrom"?`},
		{"S1.2 in a list", rest + "  dependsOn:\n  - name: a\n  - nam: b\n", "12: spec.dependsOn[1].nam: unknown field: Flux's Kustomization has no such field\n12: spec.dependsOn[1].name: is required", `did you mean "name"?`},
		{"S1.2 top", rest + "spce: {}\n", `10: spce: unknown field: Flux's Kustomization has no such field`, `did you mean "spec"?`},
		{"S1.19 v1", rest + "  patchesStrategicMerge: []\n", "10: spec.patchesStrategicMerge: unknown field: Flux's Kustomization has no such field", "write the patches as spec.patches; the field was part of v1beta2"},
		{"S1.3 number", rest + "  postBuild: {substitute: {replicas: 3, ok: x}}\n", "10: spec.postBuild.substitute.replicas: must be a string, not the number 3", "put the value in quotes"},
		{"S1.3 boolean", rest + "  wait: 'true'\n", `10: spec.wait: must be true or false, not the string "true"`, "write true or false without quotes"},
		{"S1.3 label", rest + "  commonMetadata: {labels: {x: true}}\n", "10: spec.commonMetadata.labels.x: must be a string, not the boolean true", "put the value in quotes"},
		{"S1.3 list", rest + "  components: x\n", `10: spec.components: must be a list, not the string "x"`, ""},
		{"S1.3 map", rest + "  postBuild: [a]\n", "10: spec.postBuild: must be a map, not a list", ""},
		{"S1.3 item", rest + "  components: [a, 1]\n", "10: spec.components[1]: must be a string, not the number 1", "put the value in quotes"},
		{"S1.3 empty item", rest + "  dependsOn:\n  -\n", "11: spec.dependsOn[0]: must not be empty", "remove the entry"},
		{"enum", rest + "  deletionPolicy: delete\n", `10: spec.deletionPolicy: "delete" is not one of MirrorPrune, Delete, WaitForTermination, Orphan`, `did you mean "Delete"?`},
		{"enum in a list", rest + "  postBuild: {substituteFrom: [{kind: Configmap, name: x}]}\n", `10: spec.postBuild.substituteFrom[0].kind: "Configmap" is not one of Secret, ConfigMap`, `did you mean "ConfigMap"?`},
		{"empty", rest + "  targetNamespace: ''\n", "10: spec.targetNamespace: must have at least 1 character", "remove the field or give it a value"},
		{"null", rest + "  path: null\n", "10: spec.path: must be a string, not null", "remove it or give it a value"},
		{"long", rest + "  targetNamespace: " + strings.Repeat("x", 64) + "\n", "10: spec.targetNamespace: has 64 characters, at most 63 are allowed", ""},
		{"kubeConfig none", rest + "  kubeConfig: {}\n", "10: spec.kubeConfig: exactly one of spec.kubeConfig.configMapRef or spec.kubeConfig.secretRef must be specified", ""},
		{"kubeConfig both", rest + "  kubeConfig: {configMapRef: {name: a}, secretRef: {name: b}}\n", "10: spec.kubeConfig: exactly one of spec.kubeConfig.configMapRef or spec.kubeConfig.secretRef must be specified", ""},
		{"decryption", rest + "  decryption: {}\n", "10: spec.decryption.provider: is required", ""},
		{"paths", rest + "  ignore: [{}]\n", "10: spec.ignore[0].paths: is required", ""},
		{"several", rest + "  wait: 1\n  force: 2\n", "10: spec.wait: must be true or false, not the number 1\n11: spec.force: must be true or false, not the number 2", ""},
	} {
		tree, in := objects(t, head+test.spec)
		check(t, test.name, tree, in, test.want, test.hint)
	}
	tree, in := objects(t, strings.Replace(head, "{kind: GitRepository, name: repo}", "{kind: HelmRepository}", 1)+rest)
	check(t, "source", tree, in, `7: spec.sourceRef.kind: "HelmRepository" is not one of OCIRepository, GitRepository, Bucket, ExternalArtifact`+"\n7: spec.sourceRef.name: is required", "")
	tree, in = objects(t, strings.Replace(head, "  namespace: flux-system\n", "", 1)+rest)
	check(t, "S16.4", tree, in, "3: metadata.namespace: namespace not specified", "set metadata.namespace, or targetNamespace in flux-system/root")
	tree, in = objects(t, strings.Replace(head, "namespace: flux-system\n", "namespace: 12\n", 1)+rest)
	check(t, "namespace is a number", tree, in, "5: metadata.namespace: must be a string, not the number 12", "put the value in quotes")
	tree, in = objects(t, "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: x, namespace: ns}\n")
	check(t, "no spec", tree, in, "1: spec: is required", "")
	tree, in = objects(t, "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: x, namespace: ns, labels: {a: 1}}\nspec: {interval: 5m, prune: true, sourceRef: {kind: Bucket, name: b}}\n")
	check(t, "own labels", tree, in, "3: metadata.labels.a: must be a string, not the number 1", "put the value in quotes")
}

// check compares errors, each as "line: field: text", and the first hint.
func check(t *testing.T, name string, tree fstest.MapFS, in []flux.Object, want, hint string) {
	t.Helper()
	found, err := discover.Split(parent, tree, in)
	var got []string
	for _, e := range flux.Problems(err) {
		got = append(got, fmt.Sprintf("%d: %s: %v", e.Line, e.Field, e.Err))
		if e.File != file || !strings.HasPrefix(e.Object, "Kustomization/") || !strings.HasPrefix(e.Error(), fmt.Sprintf("%s:%d: %s: %s: ", e.File, e.Line, e.Object, e.Field)) {
			t.Errorf("%s: %+v: %v", name, e, e)
		}
	}
	if strings.Join(got, "\n") != want {
		t.Errorf("%s: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), want)
		return
	}
	if hint != "" && flux.Problems(err)[0].Hint() != hint {
		t.Errorf("%s: hint %q, want %q", name, flux.Problems(err)[0].Hint(), hint)
	}
	if len(found.Kustomizations) > 0 {
		t.Errorf("%s: a Kustomization was found", name)
	}
}

// TestDurations (S1.4).
func TestDurations(t *testing.T) {
	for text, good := range map[string]bool{
		"5m": true, "1h30m": true, "1.5h": true, "90s": true, "100ms": true, "0s": true,
		"5": false, "1d": false, "-5m": false, "5 m": false, "": false, "5m ": false, "1us": false, "+5m": false, ".5h": false,
		"99999999999h": false,
	} {
		for _, field := range []string{"interval", "timeout", "retryInterval"} {
			spec := "  prune: true\n  " + field + ": \"" + text + "\"\n"
			if field != "interval" {
				spec += "  interval: 5m\n"
			}
			tree, in := objects(t, head+spec)
			_, err := discover.Split(parent, tree, in)
			if (err == nil) != good {
				t.Errorf("%s: %q: %v", field, text, err)
			}
			if err != nil && !strings.Contains(err.Error(), field) && text != "99999999999h" {
				t.Errorf("%s: %q: %v", field, text, err)
			}
		}
	}
}

// TestOldVersions (S1.17, S1.18, S1.19).
func TestOldVersions(t *testing.T) {
	for _, version := range []string{"v1beta1", "v1beta2"} {
		tree, in := objects(t, strings.Replace(head, "/v1\n", "/"+version+"\n", 1)+`  interval: 5m
  prune: true
  validation: client
  patchesStrategicMerge: [{kind: Deployment}]
  patchesJson6902: [{patch: [{op: add, path: /a, value: 1}], target: {kind: Deployment}}]
`)
		found, err := discover.Split(parent, tree, in)
		if err != nil {
			t.Fatal(err)
		}
		k := found.Kustomizations[0]
		if len(k.Extra.PatchesStrategicMerge) != 1 || len(k.Extra.PatchesJSON6902) != 1 || k.APIVersion != "kustomize.toolkit.fluxcd.io/"+version {
			t.Errorf("%+v", k)
		}
		if len(found.Notices) != 1 || found.Notices[0].Code != "old-api-version" || found.Notices[0].Line != 1 || !strings.Contains(found.Notices[0].Text, version) {
			t.Errorf("notices %+v", found.Notices)
		}
	}
	tree, in := objects(t, strings.Replace(head, "/v1\n", "/v1beta2\n", 1)+"  interval: 5m\n  prune: true\n  patchesJson6902: [{patch: [{op: ad}]}]\n")
	check(t, "S1.19", tree, in, `10: spec.patchesJson6902[0].patch[0].op: "ad" is not one of test, remove, add, replace, move, copy`+
		"\n10: spec.patchesJson6902[0].patch[0].path: is required\n10: spec.patchesJson6902[0].target: is required", `did you mean "add"?`)
}

// TestS4_25MarkedKustomization: a marker by which Flux leaves the object of a
// Kustomization alone does not keep it from running here, which is said.
func TestS4_25MarkedKustomization(t *testing.T) {
	for _, test := range []struct{ metadata, spec, marker string }{
		{"annotations: {kustomize.toolkit.fluxcd.io/reconcile: Disabled}", "", "kustomize.toolkit.fluxcd.io/reconcile: disabled"},
		{"labels: {kustomize.toolkit.fluxcd.io/ssa: ignore}", "", "kustomize.toolkit.fluxcd.io/ssa: Ignore"},
		{"labels: {kustomize.toolkit.fluxcd.io/reconcile: disabled}", "  suspend: true\n", ""},
		{"annotations: {kustomize.toolkit.fluxcd.io/prune: disabled, kustomize.toolkit.fluxcd.io/ssa: Merge}", "", ""},
	} {
		tree, in := objects(t, strings.Replace(head, "spec:\n", "  "+test.metadata+"\nspec:\n", 1)+"  interval: 5m\n  prune: true\n"+test.spec)
		found, err := discover.Split(parent, tree, in)
		if err != nil || len(found.Kustomizations) != 1 {
			t.Fatalf("%s: %v", test.metadata, err)
		}
		if test.marker == "" {
			if len(found.Notices) > 0 {
				t.Errorf("%s: notices %+v", test.metadata, found.Notices)
			}
			continue
		}
		if len(found.Notices) != 1 || found.Notices[0].Code != "marked-kustomization" || found.Notices[0].File != file || found.Notices[0].Line != 1 || !found.Notices[0].Warning ||
			!strings.Contains(found.Notices[0].Text, "has "+test.marker+",") {
			t.Errorf("%s: notices %+v", test.metadata, found.Notices)
		}
	}
}

// TestMetadata: what an API server refuses of any object.
func TestMetadata(t *testing.T) {
	for _, test := range []struct{ name, metadata, want, hint string }{
		{"field", "  annotation: {}\n", "6: metadata.annotation: unknown field: metadata has no such field", `did you mean "annotations"?`},
		{"far field", "  somethingElse: {}\n", "6: metadata.somethingElse: unknown field: metadata has no such field", "remove the field"},
		{"number", "  labels: {a: 1}\n", "6: metadata.labels.a: must be a string, not the number 1", "put the value in quotes"},
		{"label", "  labels: {a: b c}\n", `6: metadata.labels: "b c": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`, ""},
		{"type", "  finalizers: a\n", "3: metadata: cannot unmarshal string into Go struct field ObjectMeta.finalizers of type []string", ""},
		{"owner", "  ownerReferences: [{apiVersion: v1, kind: A, name: a}]\n", "6: metadata.ownerReferences[0].uid: must not be empty", ""},
	} {
		tree, in := objects(t, strings.Replace(head, "spec:\n", test.metadata+"spec:\n", 1)+"  interval: 5m\n  prune: true\n")
		check(t, test.name, tree, in, test.want, test.hint)
	}
}

// TestFieldsOfOtherVersions (S1.18): what a version lacked is refused, as a
// server that served it would have, and the version that has it is named.
func TestFieldsOfOtherVersions(t *testing.T) {
	const beta1, beta2 = "v1beta1", "v1beta2"
	for _, test := range []struct {
		spec, field string
		lacking     []string
	}{
		{"  wait: true\n", "spec.wait", []string{beta1}},
		{"  components: [a]\n", "spec.components", []string{beta1}},
		{"  commonMetadata: {}\n", "spec.commonMetadata", []string{beta1}},
		{"  kubeConfig: {secretRef: {name: a, key: b}}\n", "spec.kubeConfig.secretRef.key", []string{beta1}},
		{"  postBuild: {substituteFrom: [{kind: Secret, name: a, optional: true}]}\n", "spec.postBuild.substituteFrom[0].optional", []string{beta1}},
		{"  namePrefix: a\n", "spec.namePrefix", []string{beta2, beta1}},
		{"  nameSuffix: a\n", "spec.nameSuffix", []string{beta2, beta1}},
		{"  deletionPolicy: Orphan\n", "spec.deletionPolicy", []string{beta2, beta1}},
		{"  buildMetadata: []\n", "spec.buildMetadata", []string{beta2, beta1}},
		{"  ignoreMissingComponents: true\n", "spec.ignoreMissingComponents", []string{beta2, beta1}},
		{"  healthCheckExprs: []\n", "spec.healthCheckExprs", []string{beta2, beta1}},
		{"  ignore: []\n", "spec.ignore", []string{beta2, beta1}},
		{"  dependsOn: [{name: a, readyExpr: b}]\n", "spec.dependsOn[0].readyExpr", []string{beta2, beta1}},
		{"  decryption: {provider: sops, serviceAccountName: a}\n", "spec.decryption.serviceAccountName", []string{beta2, beta1}},
		{"  postBuild: {substituteStrategy: Always}\n", "spec.postBuild.substituteStrategy", []string{beta2, beta1}},
	} {
		for _, version := range []string{"v1", "v1beta2", "v1beta1"} {
			text := strings.Replace(head, "/v1\n", "/"+version+"\n", 1) + "  interval: 5m\n  prune: true\n" + test.spec
			tree, in := objects(t, text)
			if !slices.Contains(test.lacking, version) {
				if found, err := discover.Split(parent, tree, in); err != nil || len(found.Kustomizations) != 1 {
					t.Errorf("%s in %s: %v", test.field, version, err)
				}
				continue
			}
			check(t, test.field+" in "+version, tree, in, fmt.Sprintf("10: %s: unknown field: kustomize.toolkit.fluxcd.io/%s has no such field", test.field, version),
				"write apiVersion: kustomize.toolkit.fluxcd.io/v1, which has it")
		}
	}
	for version, kinds := range map[string]string{"v1beta2": "OCIRepository, GitRepository, Bucket", "v1beta1": "GitRepository, Bucket"} {
		tree, in := objects(t, strings.NewReplacer("/v1\n", "/"+version+"\n", "GitRepository", "ExternalArtifact").Replace(head)+"  interval: 5m\n  prune: true\n")
		check(t, version, tree, in, `7: spec.sourceRef.kind: "ExternalArtifact" is not one of `+kinds, "")
	}
	tree, in := objects(t, strings.Replace(head, "/v1\n", "/v2\n", 1))
	check(t, "v2", tree, in, `1: apiVersion: "v2" is no version of a Flux Kustomization: there are v1, v1beta2, v1beta1`, "write apiVersion: kustomize.toolkit.fluxcd.io/v1")
}
