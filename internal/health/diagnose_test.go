//go:build unix

package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/sluicerun/sluice/internal/flux"
)

// troubled applies a manifest, waits until a report has the text, and diagnoses what the object is then.
func (e *env) troubled(manifest, text string) Diagnosis {
	e.Helper()
	targets := e.apply(manifest)
	j := newJournal()
	ctx, cancel := context.WithCancelCause(e.Context())
	defer cancel(nil)
	enough := errors.New("seen enough")
	statuses, err := wait(ctx, e.clients, targets, Options{Timeout: long, FailFast: true, Report: func(s Status) {
		j.report(s)
		if strings.Contains(s.text(), text) {
			cancel(enough)
		}
	}})
	if err == nil || !j.has(text) {
		e.Fatalf("the object did not get into trouble (%v); reports:\n%s", err, j)
	}
	return Diagnose(e.Context(), e.clients, statuses[0], e.started)
}

func (d Diagnosis) String() string {
	return fmt.Sprintf("%s: %s\n object %s container %q image %q\n events %v\n logs %q (%s)\n hint %s\n notes %q",
		d.Reason, d.Text, d.Object, d.Container, d.Image, d.Events, d.Logs, d.LogsNote, d.Hint, d.Notes)
}

func TestDiagnoseImagePull(t *testing.T) {
	e := newEnv(t)
	const image = "ghcr.io/your-org/grade-api:does-not-exist"
	web := func(image string) string { return deploymentOf("web", image, 2, "") }
	targets := e.apply(web("ghcr.io/your-org/grade-api:v1"))
	if _, err := wait(t.Context(), e.clients, targets, Options{Timeout: long, FailFast: true}); err != nil {
		t.Fatal(err)
	}
	d := e.troubled(web(image), "ImagePull")
	if d.Reason != ImagePull || !strings.HasPrefix(d.Text, "cannot pull "+image+" (") || d.Image != image || d.Container != "app" {
		t.Errorf("%s", d)
	}
	if d.Object.Kind != "Pod" || !strings.HasPrefix(d.Object.Name, "web-") {
		t.Errorf("object %s", d.Object)
	}
	if d.LogsNote != "none, the container never started; the old pods still serve" || len(d.Logs) != 0 || d.Hint == "" || len(d.Notes) != 0 {
		t.Errorf("%s", d)
	}
}

func TestDiagnoseCrashLoop(t *testing.T) {
	e := newEnv(t)
	d := e.troubled(deploymentOf("web", "web:1", 1, `kubetest.sluice.run/fail: crash-loop, kubetest.sluice.run/exit-code: "7", kubetest.sluice.run/previous-log: "connecting\nno database\n"`), "CrashLoopBackOff")
	if d.Reason != CrashLoop || !strings.Contains(d.Text, "container app exited with code 7") || !strings.Contains(d.Text, "CrashLoopBackOff") {
		t.Errorf("%s", d)
	}
	if len(d.Logs) == 0 || d.Logs[len(d.Logs)-1] != "no database" || !strings.Contains(d.LogsNote, "before the last restart") {
		t.Errorf("%s", d)
	}
}

func TestDiagnoseNeverReady(t *testing.T) {
	e := newEnv(t)
	d := e.troubled(deploymentOf("web", "web:1", 1, `kubetest.sluice.run/fail: not-ready, kubetest.sluice.run/log: "listening on :8080\n"`), "is not ready")
	if d.Reason != NotReadyProbe || !strings.HasPrefix(d.Text, "container app runs but is not ready") || d.Hint == "" {
		t.Errorf("%s", d)
	}
	if strings.Join(d.Logs, "|") != "listening on :8080" || d.LogsNote != "container app" {
		t.Errorf("%s", d)
	}
}

func TestDiagnoseOOMKilled(t *testing.T) {
	e := newEnv(t)
	d := e.troubled(deploymentOf("web", "web:1", 1, `kubetest.sluice.run/fail: oom-killed`), "OOMKilled")
	if d.Reason != OOMKilled || !strings.Contains(d.Hint, "memory limit of container app") {
		t.Errorf("%s", d)
	}
}

func TestDiagnoseInvalidImage(t *testing.T) {
	e := newEnv(t)
	d := e.troubled(deploymentOf("web", "ghcr.io/Your-Org/web:", 1, ""), "InvalidImageName")
	if d.Reason != InvalidImage || !strings.Contains(d.Text, `cannot use image "ghcr.io/Your-Org/web:"`) {
		t.Errorf("%s", d)
	}
}

func TestDiagnoseContainerConfig(t *testing.T) {
	e := newEnv(t)
	d := e.troubled(deploymentOf("web", "web:1", 1, `kubetest.sluice.run/fail: config-error`), "Error")
	if d.Reason != ContainerConfig || d.LogsNote != "none, the container never started" {
		t.Errorf("%s", d)
	}
}

func TestDiagnoseInitContainer(t *testing.T) {
	e := newEnv(t)
	d := e.troubled(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {kubetest.sluice.run/fail: init-crash-loop}}
    spec:
      terminationGracePeriodSeconds: 0
      initContainers: [{name: migrate, image: "migrate:1"}]
      containers: [{name: app, image: "web:1"}]
`, "CrashLoopBackOff")
	if d.Reason != CrashLoop || d.Container != "migrate" || d.Image != "migrate:1" {
		t.Errorf("%s", d)
	}
}

func TestDiagnoseJob(t *testing.T) {
	e := newEnv(t)
	d := e.troubled(jobOf("migrate", `kubetest.sluice.run/fail: crash-loop, kubetest.sluice.run/exit-code: "3", kubetest.sluice.run/log: "no such table\n"`, ""), "status: 'Failed'")
	if d.Reason != ContainerExited || !strings.Contains(d.Text, "container app exited with code 3") {
		t.Errorf("%s", d)
	}
	if strings.Join(d.Logs, "|") != "no such table" {
		t.Errorf("%s", d)
	}
	if !slices.ContainsFunc(d.Events, func(e Event) bool { return e.Reason == "BackoffLimitExceeded" }) {
		t.Errorf("%s", d)
	}
}

// A Job whose pods restart their container deletes them when it fails. What the wait saw of them is what is left.
func TestDiagnoseJobWithoutPods(t *testing.T) {
	e := newEnv(t)
	m := jobOf("migrate", `kubetest.sluice.run/fail: crash-loop, kubetest.sluice.run/exit-code: "3"`, "activeDeadlineSeconds: 6")
	d := e.troubled(strings.Replace(strings.Replace(m, "Never", "OnFailure", 1), "backoffLimit: 0", "backoffLimit: 100", 1), "status: 'Failed'")
	if d.Reason != JobFailed || !strings.HasSuffix(d.Text, "(DeadlineExceeded); CrashLoopBackOff: exit code 3") || d.Hint == "" {
		t.Errorf("%s", d)
	}
}

func TestDiagnoseUnschedulable(t *testing.T) {
	e := newEnv(t)
	m := strings.Replace(deploymentOf("web", "web:1", 1, ""), "containers: [{name: app,", `containers: [{name: app, resources: {requests: {cpu: "100000"}},`, 1)
	d := e.troubled(m, "Unschedulable")
	if d.Reason != Unschedulable || !strings.Contains(d.Text, "Insufficient cpu") || d.LogsNote != "none, no container of the pod has started" {
		t.Errorf("%s", d)
	}
	if !slices.ContainsFunc(d.Events, func(e Event) bool { return e.Reason == "FailedScheduling" && e.Count > 0 }) {
		t.Errorf("%s", d)
	}
}

func TestDiagnoseClaimOfAPod(t *testing.T) {
	e := newEnv(t)
	e.apply("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {storageClassName: no-such-class, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n")
	m := strings.Replace(deploymentOf("web", "web:1", 1, ""), "containers:", "volumes: [{name: data, persistentVolumeClaim: {claimName: data}}], containers:", 1)
	d := e.troubled(m, "Unschedulable")
	if d.Reason != PVCPending || !strings.Contains(d.Text, "waits for claim data (Pending)") {
		t.Errorf("%s", d)
	}
}

func TestDiagnoseQuota(t *testing.T) {
	e := newEnv(t)
	quota := "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none}\nspec: {hard: {pods: \"0\"}}\n"
	e.apply(quota)
	e.awaitField(quota, "status", "hard", "pods")
	targets := e.apply(deploymentOf("web", "web:1", 1, ""))
	e.awaitCondition(deploymentOf("web", "web:1", 1, ""), "ReplicaFailure")
	d := Diagnose(t.Context(), e.clients, Status{Ref: targets[0].Ref, Status: InProgress}, e.started)
	if d.Reason != Quota || !strings.Contains(d.Text, "exceeded quota: none") || d.Object.Kind != "ReplicaSet" || d.LogsNote != "none, there is no pod" {
		t.Errorf("%s", d)
	}
	if !slices.ContainsFunc(d.Events, func(e Event) bool { return e.Reason == "FailedCreate" }) {
		t.Errorf("%s", d)
	}
}

func TestDiagnoseConditionsAndMissing(t *testing.T) {
	e := newEnv(t)
	group := e.namespace + ".example.com"
	definition := fmt.Sprintf(gradebookCRD, group)
	t.Cleanup(func() { e.delete(definition) })
	if _, err := wait(t.Context(), e.clients, e.apply(definition), Options{Timeout: long}); err != nil {
		t.Fatal(err)
	}
	ref := flux.Ref{Group: group, Version: "v1", Kind: "GradeBook", Namespace: e.namespace, Name: "algebra"}
	if _, err := wait(t.Context(), e.clients, []Target{{Ref: ref}}, Options{Timeout: 500 * time.Millisecond}); err == nil {
		t.Fatal("nothing was to be ready")
	}
	if d := Diagnose(t.Context(), e.clients, Status{Ref: ref, Status: NotFound}, e.started); d.Reason != Missing || d.Text != "does not exist" || d.Hint == "" {
		t.Errorf("%s", d)
	}
	manifest := "apiVersion: " + group + "/v1\nkind: GradeBook\nmetadata: {name: algebra}\n"
	o := parse(t, manifest)
	e.apply(manifest)
	e.setStatus(o, `{"status":{"conditions":[{"type":"Ready","status":"False","reason":"NoBackend","message":"no backend\nanswers."}]}}`)
	d := Diagnose(t.Context(), e.clients, Status{Ref: ref, Status: InProgress}, e.started)
	if d.Reason != Conditions || d.Text != "condition Ready is False: no backend answers (NoBackend)" {
		t.Errorf("%s", d)
	}
	ref.Kind = "Gradebook"
	if d := Diagnose(t.Context(), e.clients, Status{Ref: ref, Status: Unknown}, e.started); d.Reason != NoSuchKind || d.Hint == "" {
		t.Errorf("%s", d)
	}
	service := e.apply("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n")[0].Ref
	if d := Diagnose(t.Context(), e.clients, Status{Ref: service, Status: InProgress, Message: "no address"}, e.started); d.Reason != Timeout || d.Text != "did not become ready in time: no address" {
		t.Errorf("%s", d)
	}
}

// An account that may read Deployments and nothing behind them gets what there is, and is told what is not.
// S6.30: who may not list pods and ReplicaSets waits for the workload's own status, where Flux calls it Unknown.
func TestDiagnoseUnderRestrictedRights(t *testing.T) {
	e := newEnv(t)
	e.troubled(deploymentOf("web", "web:does-not-exist", 1, ""), "ImagePull")
	e.apply("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: few}\nrules: [{apiGroups: [apps], resources: [deployments], verbs: [get, list, watch]}]\n",
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: few}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: few}\nsubjects: [{kind: User, name: few}]\n")
	config := rest.CopyConfig(e.config)
	config.Impersonate.UserName = "few"
	few := e.clientsFor(config)
	ref := flux.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: e.namespace, Name: "web"}
	// The wait tells when the right has taken effect, and that it does without the pods.
	j := newJournal()
	statuses, err := wait(t.Context(), few, []Target{{Ref: ref}}, Options{Timeout: 3 * time.Second, Report: j.report})
	if err == nil || statuses[0].Status != InProgress || statuses[0].Message != "0 of 1 pod ready" {
		t.Fatalf("%v %v\n%s", statuses, err, j)
	}
	d := Diagnose(t.Context(), few, statuses[0], e.started)
	if d.Reason == ImagePull || d.Text == "" || len(d.Notes) != 3 {
		t.Fatalf("%s", d)
	}
	for _, want := range []string{"events could not be read: ", "the ReplicaSets could not be read: ", "the pods could not be read: "} {
		if !slices.ContainsFunc(d.Notes, func(n string) bool { return strings.HasPrefix(n, want) && strings.Contains(n, "forbidden") }) {
			t.Errorf("no note %q in %q", want, d.Notes)
		}
	}
	config.Impersonate.UserName = "nobody"
	if d := Diagnose(t.Context(), e.clientsFor(config), statuses[0], e.started); d.Reason != Forbidden || !strings.Contains(d.Hint, "deployments.apps") {
		t.Errorf("%s", d)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if d := Diagnose(ended, e.clients, statuses[0], e.started); d.Reason == "" || d.Text == "" {
		t.Errorf("a context that has ended: %s", d)
	}
}
