package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
)

func parse(t testing.TB, manifest string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	// Through the API's own JSON decoder, so that numbers have the types they have when they come from a server.
	raw, err := yaml.YAMLToJSON([]byte(manifest))
	if err == nil {
		err = o.UnmarshalJSON(raw)
	}
	if err != nil {
		t.Fatalf("%v in\n%s", err, manifest)
	}
	return o
}

const (
	deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: ns, generation: 2}\n" +
		"spec: {replicas: 3, progressDeadlineSeconds: 600, selector: {matchLabels: {app: a}}}\n"
	statefulSet = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: a, namespace: ns, generation: 2}\n" +
		"spec: {replicas: 3, selector: {matchLabels: {app: a}}}\n"
	daemonSet = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: a, namespace: ns, generation: 2}\nspec: {}\n"
	job       = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a, namespace: ns, generation: 1}\n"
	crd       = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: as.example.com}\n"
	custom    = "apiVersion: example.com/v1\nkind: A\nmetadata: {name: a, namespace: ns, generation: 2}\n"
	pvc       = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a, namespace: ns}\n"
)

func TestRules(t *testing.T) {
	tests := []struct {
		name, manifest, status, message string
	}{
		{"S6.20 being deleted", "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns, deletionTimestamp: \"2026-01-01T00:00:00Z\"}\nstatus: {phase: Terminating}\n", "Terminating", "deletion"},
		{"S6.21 generation not seen", custom + "status: {observedGeneration: 1, conditions: [{type: Ready, status: \"True\"}]}\n", "InProgress", "generation is 2"},
		{"S6.22 Reconciling", custom + "status: {conditions: [{type: Reconciling, status: \"True\", message: busy}]}\n", "InProgress", "busy"},
		{"S6.22 Stalled", custom + "status: {conditions: [{type: Stalled, status: \"True\", message: stuck}]}\n", "Failed", "stuck"},
		{"S6.22 the first that is True decides", custom + "status: {conditions: [{type: Reconciling, status: \"True\", message: busy}, {type: Stalled, status: \"True\"}]}\n", "InProgress", "busy"},

		{"S6.23 Deployment without status", deployment, "InProgress", "Replicas: 0/3"},
		{"S6.23 Deployment partly updated", deployment + "status: {observedGeneration: 2, replicas: 4, updatedReplicas: 1, readyReplicas: 3, availableReplicas: 3}\n", "InProgress", "1 of 3 pods updated"},
		{"S6.23 Deployment with an old pod left", deployment + "status: {observedGeneration: 2, replicas: 4, updatedReplicas: 3, readyReplicas: 4, availableReplicas: 4}\n", "InProgress", "1 pod to be removed"},
		{"S6.23 Deployment not ready", deployment + "status: {observedGeneration: 2, replicas: 3, updatedReplicas: 3, readyReplicas: 2, availableReplicas: 2}\n", "InProgress", "2 of 3 pods ready"},
		{"S6.23 Deployment not available", deployment + "status: {observedGeneration: 2, replicas: 3, updatedReplicas: 3, readyReplicas: 3, availableReplicas: 2}\n", "InProgress", "2 of 3 pods available"},
		{"S6.23 Deployment without NewReplicaSetAvailable", deployment + "status: {observedGeneration: 2, replicas: 3, updatedReplicas: 3, readyReplicas: 3, availableReplicas: 3, conditions: [{type: Available, status: \"True\"}, {type: Progressing, status: \"True\", reason: ReplicaSetUpdated}]}\n", "InProgress", "ReplicaSet"},
		{"S6.23 Deployment", deployment + "status: {observedGeneration: 2, replicas: 3, updatedReplicas: 3, readyReplicas: 3, availableReplicas: 3, conditions: [{type: Available, status: \"True\"}, {type: Progressing, status: \"True\", reason: NewReplicaSetAvailable}]}\n", "Current", ""},
		{"S6.23 Deployment past its deadline", deployment + "status: {observedGeneration: 2, conditions: [{type: Progressing, status: \"False\", reason: ProgressDeadlineExceeded}]}\n", "Failed", "deadline"},

		{"S6.23 StatefulSet without status", statefulSet, "InProgress", "Replicas: 0/3"},
		{"S6.23 StatefulSet part ready", statefulSet + "status: {observedGeneration: 2, replicas: 3, readyReplicas: 2, currentReplicas: 3, currentRevision: r1, updateRevision: r1}\n", "InProgress", "2 of 3 pods ready"},
		{"S6.23 StatefulSet part updated", statefulSet + "status: {observedGeneration: 2, replicas: 3, readyReplicas: 3, currentReplicas: 2, updatedReplicas: 1, currentRevision: r1, updateRevision: r2}\n", "InProgress", "1 of 3 pods updated"},
		{"S6.23 StatefulSet", statefulSet + "status: {observedGeneration: 2, replicas: 3, readyReplicas: 3, currentReplicas: 3, updatedReplicas: 3, currentRevision: r2, updateRevision: r2}\n", "Current", ""},

		{"S6.23 DaemonSet not observed", daemonSet, "InProgress", "observedGeneration not found"},
		{"S6.23 DaemonSet without nodes", daemonSet + "status: {observedGeneration: 2, desiredNumberScheduled: 0}\n", "Current", ""},
		{"S6.23 DaemonSet part ready", daemonSet + "status: {observedGeneration: 2, desiredNumberScheduled: 2, currentNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 1, numberReady: 1}\n", "InProgress", "1 of 2 pods ready"},

		{"S6.23 CronJob", "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\n", "Current", ""},
		{"S6.23 Service LoadBalancer", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: LoadBalancer, clusterIP: 10.0.0.1}\n", "Current", ""},
		{"S6.23 claim pending", pvc + "status: {phase: Pending}\n", "InProgress", "Pending"},
		{"S6.23 claim bound", pvc + "status: {phase: Bound}\n", "Current", ""},
		{"S6.23 CRD installing", crd + "status: {conditions: [{type: Established, status: \"False\", reason: Installing}]}\n", "InProgress", ""},
		{"S6.23 CRD established", crd + "status: {conditions: [{type: NamesAccepted, status: \"True\"}, {type: Established, status: \"True\"}]}\n", "Current", ""},
		{"S6.23 CRD names taken", crd + "status: {conditions: [{type: NamesAccepted, status: \"False\", message: taken}]}\n", "Failed", "taken"},
		{"S6.23 pod that failed is Current", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {phase: Failed}\n", "Current", ""},
		{"S6.23 pod that crashes", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {phase: Running, containerStatuses: [{name: c, state: {waiting: {reason: CrashLoopBackOff}}}]}\n", "Failed", "c"},

		{"S6.25 Ready True", custom + "status: {conditions: [{type: Ready, status: \"True\"}]}\n", "Current", ""},
		{"S6.25 Ready False", custom + "status: {conditions: [{type: Ready, status: \"False\", message: no backend}]}\n", "InProgress", "no backend"},
		{"S6.25 Ready Unknown", custom + "status: {conditions: [{type: Ready, status: Unknown, message: wait}]}\n", "InProgress", "wait"},
		{"S6.25 no condition", custom, "Current", ""},
		{"S6.26 Ingress", "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\n", "Current", ""},
		{"S6.27 HelmRelease not yet seen", "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: a, generation: 1}\nstatus: {observedGeneration: -1}\n", "InProgress", ""},

		{"S6.31 Job suspended", job + "spec: {suspend: true}\n", "Current", "suspended"},
		{"S6.31 Job not started", job + "spec: {completions: 2}\n", "InProgress", "not started"},
		{"S6.31 Job running", job + "spec: {completions: 2}\nstatus: {startTime: \"2026-01-01T00:00:00Z\", active: 1, succeeded: 1, failed: 1}\n", "InProgress", "1 of 2 pods finished, 1 failed"},
		{"S6.31 Job complete", job + "status: {conditions: [{type: Complete, status: \"True\"}]}\n", "Current", "complete"},
		{"S6.31 Job failed", job + "status: {conditions: [{type: Failed, status: \"True\", reason: BackoffLimitExceeded, message: Job has reached the specified backoff limit}]}\n", "Failed", "BackoffLimitExceeded"},
		{"S6.31 S6.20 does not apply to a Job", "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a, deletionTimestamp: \"2026-01-01T00:00:00Z\"}\nstatus: {conditions: [{type: Complete, status: \"True\"}]}\n", "Current", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := parse(t, tt.manifest)
			got := evaluate(t.Context(), Target{Ref: flux.RefOf(o)}, o, nil)
			if got.Err != nil {
				t.Fatal(got.Err)
			}
			if got.Status != tt.status || !strings.Contains(got.Message, tt.message) {
				t.Errorf("%s %q, want %s with %q", got.Status, got.Message, tt.status, tt.message)
			}
		})
	}
}

func TestStatefulSetOnDeleteIsCurrent(t *testing.T) {
	o := parse(t, statefulSet)
	if err := unstructured.SetNestedField(o.Object, "OnDelete", "spec", "updateStrategy", "type"); err != nil {
		t.Fatal(err)
	}
	if got := evaluate(t.Context(), Target{}, o, nil); got.Status != Current {
		t.Errorf("S6.23: %s, want Current", got.Status)
	}
}

// S6.24: which pods fail the workload they belong to.
func TestPodsThatFailTheirWorkload(t *testing.T) {
	crashing := `apiVersion: v1
kind: Pod
metadata: {name: a-0, namespace: ns, labels: {controller-revision-hash: %s}%s}
status: {phase: %s, containerStatuses: [{name: app, restartCount: 3, state: {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 7}}}]%s}
`
	progressing := statefulSet + "status: {observedGeneration: 2, replicas: 3, readyReplicas: 2, currentReplicas: 2, updatedReplicas: 1, currentRevision: r1, updateRevision: r2}\n"
	unscheduled := ", conditions: [{type: PodScheduled, status: \"False\", reason: Unschedulable}]"
	tests := []struct {
		name, workload, pod, status, message string
	}{
		{"of the new revision", progressing, fmt.Sprintf(crashing, "r2", "", "Running", ""), Failed, "1 pod has failed; CrashLoopBackOff: exit code 7"},
		{"of the old revision", progressing, fmt.Sprintf(crashing, "r1", "", "Running", ""), InProgress, "CrashLoopBackOff"},
		{"being deleted", progressing, fmt.Sprintf(crashing, "r2", `, deletionTimestamp: "2026-01-01T00:00:00Z"`, "Running", ""), InProgress, "1 of 3 pods updated"},
		{"unschedulable", progressing, fmt.Sprintf(crashing, "r2", `, creationTimestamp: "2026-01-01T00:00:00Z"`, "Pending", unscheduled), InProgress, "Unschedulable"},
		{"while Current", statefulSet + "status: {observedGeneration: 2, replicas: 3, readyReplicas: 3, currentReplicas: 3, currentRevision: r2, updateRevision: r2}\n",
			fmt.Sprintf(crashing, "r2", "", "Running", ""), Current, ""},
		{"before the change was seen", statefulSet + "status: {observedGeneration: 1, updateRevision: r1}\n", fmt.Sprintf(crashing, "r1", "", "Running", ""), InProgress, ""},
		{"of a Deployment", deployment + "status: {observedGeneration: 2, replicas: 3, updatedReplicas: 3, readyReplicas: 2, availableReplicas: 2}\n",
			fmt.Sprintf(crashing, "x", "", "Running", ""), InProgress, "2 of 3 pods ready; CrashLoopBackOff: exit code 7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := parse(t, tt.workload)
			got := evaluate(t.Context(), Target{Ref: flux.RefOf(o)}, o, map[string]podState{"a-0": podStateOf(parse(t, tt.pod))})
			if got.Status != tt.status || !strings.Contains(got.Message, tt.message) {
				t.Errorf("%s %q, want %s with %q", got.Status, got.Message, tt.status, tt.message)
			}
		})
	}
}

type evaluatorFunc func(*unstructured.Unstructured) (*status.Result, error)

func (f evaluatorFunc) Evaluate(_ context.Context, o *unstructured.Unstructured) (*status.Result, error) {
	return f(o)
}

func TestExpressionsReplaceTheRules(t *testing.T) {
	fails := evaluatorFunc(func(*unstructured.Unstructured) (*status.Result, error) {
		return &status.Result{Status: status.FailedStatus, Message: "as told"}, nil
	})
	if got := evaluate(t.Context(), Target{Expr: fails}, parse(t, custom), nil); got.Status != Failed || got.Message != "as told" {
		t.Errorf("S6.45: %+v", got)
	}
	if got := evaluate(t.Context(), Target{Expr: fails}, parse(t, job+"spec: {suspend: true}\n"), nil); got.Status != Current {
		t.Errorf("S6.45: a Job keeps its own rule: %+v", got)
	}
	broken := evaluatorFunc(func(*unstructured.Unstructured) (*status.Result, error) { return nil, errors.New("no such key: x") })
	if got := evaluate(t.Context(), Target{Expr: broken}, parse(t, custom), nil); got.Status != Unknown || got.Err == nil {
		t.Errorf("S6.44: %+v", got)
	}
}

func TestNotReadyErrorText(t *testing.T) {
	ref := func(kind, name string) flux.Ref { return flux.Ref{Kind: kind, Namespace: "n", Name: name} }
	e := &NotReadyError{Elapsed: 60*time.Second + 1234*time.Microsecond, Timeout: time.Minute, TimedOut: true, Statuses: []Status{
		{Ref: ref("Deployment", "a"), Status: InProgress, Message: "1 of 3 pods updated"},
		{Ref: ref("Job", "b"), Status: Failed},
		{Ref: ref("Service", "c"), Status: Unknown, Err: errors.New("services is forbidden")},
	}}
	want := "health check failed after 1m0s: timeout of 1m0s waiting for: [Deployment/n/a status: 'InProgress': 1 of 3 pods updated, " +
		"Job/n/b status: 'Failed', Service/n/c status: 'Unknown': services is forbidden]"
	if got := e.Error(); got != want {
		t.Errorf("S6.16:\n got %s\nwant %s", got, want)
	}
	e.TimedOut, e.Elapsed = false, 1500*time.Millisecond
	want = "health check failed after 1.5s: failed early due to stalled resources: [Job/n/b status: 'Failed']"
	if got := e.Error(); got != want {
		t.Errorf("S6.16:\n got %s\nwant %s", got, want)
	}
	if !errors.Is(e, e.Statuses[2].Err) {
		t.Error("the statuses' errors are not reachable")
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine(" a\n\tb\x1b[31m  c\x00 "); got != "a b [31m c" {
		t.Errorf("%q", got)
	}
	if got := oneLine(strings.Repeat("é", maxText)); len(got) > maxText+len("…") || !strings.HasSuffix(got, "é…") {
		t.Errorf("%d bytes, end %q", len(got), got[len(got)-6:])
	}
	if got := logLine("  \x1b[31mred\x1b[0m\ttext\r"); got != "  red text" {
		t.Errorf("%q", got)
	}
}
