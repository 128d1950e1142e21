package health

import (
	"context"
	"maps"
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling/engine"
	kstatusreaders "github.com/fluxcd/cli-utils/pkg/kstatus/polling/statusreaders"
	fluxreaders "github.com/fluxcd/pkg/runtime/statusreaders"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
)

// noPods is a cluster in which a workload has no pods and no ReplicaSets.
type noPods struct{}

func (noPods) Get(context.Context, client.ObjectKey, *unstructured.Unstructured) error {
	panic("the object itself is given")
}

func (noPods) ListNamespaceScoped(context.Context, *unstructured.UnstructuredList, string, labels.Selector) error {
	return nil
}

func (noPods) ListClusterScoped(context.Context, *unstructured.UnstructuredList, labels.Selector) error {
	return nil
}

func (noPods) Sync(context.Context) error { return nil }

// fluxReader is what kustomize-controller polls with: its reader of Jobs, then that
// of expressions, then those of kstatus.
func fluxReader(custom ...func(meta.RESTMapper) engine.StatusReader) engine.StatusReader {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{appsv1.SchemeGroupVersion, corev1.SchemeGroupVersion})
	mapper.Add(appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	readers := []engine.StatusReader{fluxreaders.NewCustomJobStatusReader(mapper)}
	for _, make := range custom {
		readers = append(readers, make(mapper))
	}
	return kstatusreaders.NewStatusReader(mapper, readers...)
}

// axis is one field of an object with the values that a test gives it; nil leaves
// the field out.
type axis struct {
	path   string // two names with a dot
	values []any
}

func at(path string, values ...any) axis { return axis{path, values} }

func conditions(list ...string) any {
	all := []any{}
	for i := 0; i+2 < len(list); i += 3 {
		all = append(all, map[string]any{"type": list[i], "status": list[i+1], "reason": list[i+2], "message": "m"})
	}
	return all
}

// each calls do for every combination of the values.
func each(axes []axis, fields map[string]any, do func(map[string]any)) {
	if len(axes) == 0 {
		do(fields)
		return
	}
	for _, value := range axes[0].values {
		with := maps.Clone(fields)
		if value != nil {
			with[axes[0].path] = value
		}
		each(axes[1:], with, do)
	}
}

// S6.23 and the rules before it: for every combination of the fields that a rule
// looks at, the status is the one that Flux's poller gives.
func TestS6_23SameAsFlux(t *testing.T) {
	// What is looked at of every kind (S6.20 to S6.22, S6.25).
	general := []axis{
		at("metadata.generation", nil, int64(2)),
		at("metadata.deletionTimestamp", nil, "2026-01-01T00:00:00Z"),
		at("status.observedGeneration", nil, int64(-1), int64(1), int64(2)),
		at("status.conditions", nil, conditions(), conditions("Ready", "True", ""), conditions("Ready", "False", "x"), conditions("Ready", "Unknown", "x"),
			conditions("Reconciling", "True", "x"), conditions("Reconciling", "False", "x"), conditions("Stalled", "True", "x"), conditions("Stalled", "False", "x", "Ready", "True", "x"),
			conditions("Reconciling", "True", "x", "Stalled", "True", "x"), conditions("Stalled", "True", "x", "Reconciling", "True", "x"),
			conditions("Other", "False", "x"), conditions("Ready", "True", "x", "Stalled", "True", "x"), "none"),
	}
	n := func(values ...int64) []any {
		all := []any{nil}
		for _, v := range values {
			all = append(all, v)
		}
		return all
	}
	phases := at("status.phase", nil, "Pending", "Bound", "Lost", "Running", "Succeeded", "Failed", "Terminating", "Odd")
	waiting := func(reason string) any {
		return []any{map[string]any{"name": "c", "state": map[string]any{"waiting": map[string]any{"reason": reason}}}}
	}
	for _, tc := range []struct {
		apiVersion, kind string
		axes             []axis
	}{
		{"apps/v1", "Deployment", []axis{
			at("spec.replicas", n(0, 2)...), at("spec.progressDeadlineSeconds", nil, int64(600), int64(2147483647)),
			at("status.replicas", n(2, 3)...), at("status.updatedReplicas", n(1, 2)...), at("status.readyReplicas", n(1, 2)...), at("status.availableReplicas", n(1, 2)...),
			at("status.conditions", nil, conditions("Available", "True", ""), conditions("Available", "True", "", "Progressing", "True", "NewReplicaSetAvailable"),
				conditions("Available", "False", "", "Progressing", "True", "NewReplicaSetAvailable"), conditions("Available", "True", "", "Progressing", "True", "ReplicaSetUpdated"),
				conditions("Progressing", "False", "ProgressDeadlineExceeded"), conditions("ReplicaFailure", "True", "x")),
		}},
		{"apps/v1beta2", "Deployment", []axis{at("spec.replicas", n(1)...), at("status.replicas", n(1)...)}},
		{"apps/v1", "StatefulSet", []axis{
			at("spec.replicas", n(0, 2)...), at("spec.updateStrategy", nil, map[string]any{"type": "OnDelete"},
				map[string]any{"type": "RollingUpdate"}, map[string]any{"rollingUpdate": map[string]any{"partition": int64(1)}}, map[string]any{"rollingUpdate": map[string]any{"partition": int64(0)}}),
			at("status.replicas", n(2, 3)...), at("status.readyReplicas", n(1, 2)...), at("status.currentReplicas", n(1, 2)...), at("status.updatedReplicas", n(1, 2)...),
			at("status.currentRevision", nil, "r1"), at("status.updateRevision", nil, "r1", "r2"),
		}},
		{"apps/v1", "DaemonSet", []axis{
			at("metadata.generation", nil, int64(1)), at("status.observedGeneration", nil, int64(1)),
			at("status.desiredNumberScheduled", n(0, 2)...), at("status.currentNumberScheduled", n(1, 2)...), at("status.updatedNumberScheduled", n(1, 2)...),
			at("status.numberAvailable", n(1, 2)...), at("status.numberReady", n(1, 2)...),
		}},
		{"apps/v1", "ReplicaSet", []axis{
			at("spec.replicas", n(0, 2)...), at("status.replicas", n(2, 3)...), at("status.fullyLabeledReplicas", n(1, 2)...),
			at("status.availableReplicas", n(1, 2)...), at("status.readyReplicas", n(1, 2)...),
			at("status.conditions", nil, conditions("ReplicaFailure", "True", "x"), conditions("ReplicaFailure", "False", "x")),
		}},
		{"v1", "Pod", []axis{
			phases, at("metadata.creationTimestamp", nil, "2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"),
			at("status.conditions", nil, conditions("Ready", "True", ""), conditions("Ready", "False", ""), conditions("PodScheduled", "False", "Unschedulable"), conditions("PodScheduled", "False", "x")),
			at("status.containerStatuses", nil, waiting("CrashLoopBackOff"), waiting("ImagePullBackOff"), []any{map[string]any{"name": "c", "state": map[string]any{"running": map[string]any{}}}}),
		}},
		{"batch/v1", "Job", []axis{
			at("spec.suspend", nil, true, false), at("spec.completions", n(2)...), at("status.startTime", nil, "2026-01-01T00:00:00Z"), at("status.succeeded", n(1, 2)...), at("status.active", n(1)...),
			at("metadata.deletionTimestamp", nil, "2026-01-01T00:00:00Z"), at("metadata.generation", nil, int64(2)), at("status.observedGeneration", nil, int64(1)),
			at("status.conditions", nil, conditions("Complete", "True", ""), conditions("Complete", "False", ""), conditions("Failed", "True", "x"), conditions("Failed", "False", "x"),
				conditions("FailureTarget", "True", "x"), conditions("SuccessCriteriaMet", "True", "x"), conditions("Suspended", "True", "x"), conditions("Failed", "True", "x", "Complete", "True", "x")),
		}},
		{"batch/v1", "CronJob", nil}, {"v1", "ConfigMap", nil}, {"v1", "Secret", nil}, {"policy/v1", "PodDisruptionBudget", nil},
		{"v1", "PersistentVolumeClaim", []axis{phases}},
		{"v1", "Service", []axis{at("spec.type", nil, "ClusterIP", "NodePort", "LoadBalancer", "ExternalName"), at("spec.clusterIP", nil, "", "None", "10.0.0.1"),
			at("status.loadBalancer", nil, map[string]any{"ingress": []any{map[string]any{"ip": "1.2.3.4"}}})}},
		{"apiextensions.k8s.io/v1", "CustomResourceDefinition", []axis{at("status.conditions", nil, conditions("Established", "True", "x"), conditions("Established", "False", "Installing"),
			conditions("Established", "False", "x"), conditions("Established", "Unknown", "x"), conditions("NamesAccepted", "False", "x"), conditions("NamesAccepted", "True", "x"),
			conditions("NamesAccepted", "False", "x", "Established", "True", "x"), conditions("Established", "True", "x", "NamesAccepted", "False", "x"))}},
		// All others (S6.25 to S6.27, S14.6, S14.7).
		{"networking.k8s.io/v1", "Ingress", nil}, {"rbac.authorization.k8s.io/v1", "Role", nil}, {"v1", "ServiceAccount", nil}, {"v1", "Namespace", []axis{phases}},
		{"v1", "PersistentVolume", []axis{phases}}, {"autoscaling/v2", "HorizontalPodAutoscaler", nil},
		{"helm.toolkit.fluxcd.io/v2", "HelmRelease", nil}, {"kustomize.toolkit.fluxcd.io/v1", "Kustomization", nil}, {"source.toolkit.fluxcd.io/v1", "GitRepository", nil},
		{"argoproj.io/v1alpha1", "Application", []axis{at("status.health", nil, map[string]any{"status": "Degraded"}), at("status.sync", nil, map[string]any{"status": "OutOfSync"})}},
	} {
		t.Run(tc.apiVersion+"/"+tc.kind, func(t *testing.T) {
			reader := fluxReader()
			seen := map[string]int{}
			compare := func(fields map[string]any) {
				o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": tc.apiVersion, "kind": tc.kind}}
				o.SetName("a")
				o.SetNamespace("ns")
				if o.GroupVersionKind().Group == "apps" {
					setField(t, o, "spec.selector", map[string]any{"matchLabels": map[string]any{"app": "a"}})
				}
				for path, value := range fields {
					setField(t, o, path, value)
				}
				theirs, err := reader.ReadStatusForObject(t.Context(), noPods{}, o.DeepCopy())
				if err != nil {
					t.Fatal(err)
				}
				got := evaluate(t.Context(), Target{Ref: flux.RefOf(o)}, o.DeepCopy(), nil)
				seen[got.Status]++
				trimmed := o.DeepCopy()
				trim(trimmed)
				if kept := evaluate(t.Context(), Target{Ref: flux.RefOf(o)}, trimmed, nil); !kept.same(got) {
					t.Errorf("%v: %s, but what a set keeps of it says %s", fields, got.text(), kept.text())
				}
				if got.Status != string(theirs.Status) || (got.Err == nil) != (theirs.Error == nil) {
					t.Errorf("%v: %s (%v), Flux says %s (%v)", fields, got.Status, got.Err, theirs.Status, theirs.Error)
				}
			}
			each(general, map[string]any{}, compare)
			each(tc.axes, map[string]any{}, compare)
			t.Log(seen)
			if len(seen) < 2 {
				t.Errorf("only %v: the combinations show nothing", seen)
			}
		})
	}
}

func setField(t *testing.T, o *unstructured.Unstructured, path string, value any) {
	t.Helper()
	outer, inner, _ := strings.Cut(path, ".")
	if err := unstructured.SetNestedField(o.Object, value, outer, inner); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// withPod is a cluster in which every workload has one pod, and no ReplicaSet.
type withPod struct {
	noPods
	pod *unstructured.Unstructured
}

func (c withPod) ListNamespaceScoped(_ context.Context, list *unstructured.UnstructuredList, _ string, _ labels.Selector) error {
	if list.GetKind() == "Pod" {
		list.Items = []unstructured.Unstructured{*c.pod.DeepCopy()}
	}
	return nil
}

// S6.24: which pods fail which workloads, as Flux's poller has it, as long as the pod is not of an older revision.
func TestS6_24SameAsFlux(t *testing.T) {
	reader := fluxReader()
	current := conditions("Available", "True", "", "Progressing", "True", "NewReplicaSetAvailable")
	for kind, statuses := range map[string][]map[string]any{
		"ReplicaSet": {{"observedGeneration": int64(2), "replicas": int64(1)}, {"observedGeneration": int64(2), "replicas": int64(1),
			"fullyLabeledReplicas": int64(1), "availableReplicas": int64(1), "readyReplicas": int64(1)}},
		"StatefulSet": {{"observedGeneration": int64(2), "replicas": int64(1), "updateRevision": "r1"}, {"observedGeneration": int64(2), "replicas": int64(1),
			"readyReplicas": int64(1), "currentReplicas": int64(1), "updatedReplicas": int64(1), "currentRevision": "r1", "updateRevision": "r1"}},
		"Deployment": {{"observedGeneration": int64(2), "replicas": int64(1)}, {"observedGeneration": int64(2), "replicas": int64(1),
			"updatedReplicas": int64(1), "availableReplicas": int64(1), "readyReplicas": int64(1), "conditions": current}},
		"DaemonSet": {{"observedGeneration": int64(2), "desiredNumberScheduled": int64(1)}, {"observedGeneration": int64(2), "desiredNumberScheduled": int64(1),
			"currentNumberScheduled": int64(1), "updatedNumberScheduled": int64(1), "numberAvailable": int64(1), "numberReady": int64(1)}},
	} {
		t.Run(kind, func(t *testing.T) {
			seen := map[string]int{}
			for _, state := range statuses {
				workload := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apps/v1", "kind": kind}}
				workload.SetName("a")
				workload.SetNamespace("ns")
				workload.SetGeneration(2)
				setField(t, workload, "spec.selector", map[string]any{"matchLabels": map[string]any{"app": "a"}})
				workload.Object["status"] = state
				each([]axis{
					at("status.phase", nil, "Pending", "Running", "Succeeded", "Failed", "Unknown"),
					at("status.conditions", nil, conditions("Ready", "True", ""), conditions("Ready", "False", ""), conditions("PodScheduled", "False", "Unschedulable"), conditions("PodScheduled", "False", "x")),
					at("status.containerStatuses", nil, []any{map[string]any{"name": "c", "state": map[string]any{"waiting": map[string]any{"reason": "CrashLoopBackOff"}}}},
						[]any{map[string]any{"name": "c", "state": map[string]any{"waiting": map[string]any{"reason": "ImagePullBackOff"}}}}),
					at("metadata.creationTimestamp", nil, "2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"),
					at("metadata.deletionTimestamp", nil, "2026-01-01T00:00:00Z"),
					at("metadata.labels", nil, map[string]any{"app": "a", "controller-revision-hash": "r1"}),
				}, map[string]any{}, func(fields map[string]any) {
					pod := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod"}}
					pod.SetName("a-0")
					pod.SetNamespace("ns")
					for path, value := range fields {
						setField(t, pod, path, value)
					}
					theirs, err := reader.ReadStatusForObject(t.Context(), withPod{pod: pod}, workload.DeepCopy())
					if err != nil {
						t.Fatal(err)
					}
					got := evaluate(t.Context(), Target{Ref: flux.RefOf(workload)}, workload.DeepCopy(), map[string]podState{"a-0": podStateOf(pod)})
					seen[got.Status]++
					if got.Status != string(theirs.Status) {
						t.Errorf("%v with a pod %v: %s, Flux says %s", state, fields, got.Status, theirs.Status)
					}
				})
			}
			if fails := kind == "ReplicaSet" || kind == "StatefulSet"; seen[Current] == 0 || seen[InProgress] == 0 || (seen[Failed] > 0) != fails {
				t.Errorf("got %v", seen)
			}
		})
	}
}
