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

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

func TestWaitForNothing(t *testing.T) {
	got, err := wait(t.Context(), Clients{}, nil, Options{})
	if err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDeploymentRollsOut(t *testing.T) {
	e := newEnv(t)
	j := newJournal()
	targets := e.apply(deploymentOf("web", "web:1", 3, ""))
	got, err := wait(t.Context(), e.clients, targets, Options{Timeout: long, FailFast: true, Report: j.report})
	if err != nil {
		t.Fatalf("%v\n%s", err, j)
	}
	if len(got) != 1 || got[0].Status != Current || got[0].Ref != targets[0].Ref {
		t.Errorf("%+v", got)
	}
	// A change of an object that was ready closes the gate until the change is live (S6.21).
	e.apply(deploymentOf("web", "web:2", 3, ""))
	if _, err := wait(t.Context(), e.clients, targets, Options{Timeout: long, FailFast: true, Report: j.report}); err != nil {
		t.Fatalf("%v\n%s", err, j)
	}
	o := parse(t, deploymentOf("web", "web:2", 3, ""))
	live, err := e.resource(o).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s := evaluate(t.Context(), targets[0], live, nil); !s.Ready() {
		t.Errorf("the gate opened before the second image was live: %s", s.text())
	}
	noneLeft(t)
}

func TestEveryWorkloadBecomesReady(t *testing.T) {
	e := newEnv(t)
	pod := "{metadata: {labels: {app: %s}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: app, image: \"x:1\"}]}}"
	targets := e.apply(
		"apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec: {replicas: 2, serviceName: db, selector: {matchLabels: {app: db}}, template: "+fmt.Sprintf(pod, "db")+"}\n",
		"apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: agent}\nspec: {selector: {matchLabels: {app: agent}}, template: "+fmt.Sprintf(pod, "agent")+"}\n",
		jobOf("migrate", "", ""),
		deploymentOf("web", "web:1", 2, ""),
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: secret}\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n",
		"apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c}\nspec: {schedule: \"0 0 1 1 *\", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: \"a:1\"}]}}}}}\n",
		"apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i}\nspec: {defaultBackend: {service: {name: s, port: {number: 80}}}}\n",
		"apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: p}\nspec: {minAvailable: 0, selector: {matchLabels: {app: web}}}\n",
	)
	j := newJournal()
	if _, err := wait(t.Context(), e.clients, targets, Options{Timeout: long, FailFast: true, Report: j.report}); err != nil {
		t.Fatalf("%v\n%s", err, j)
	}
	for _, must := range []string{"Job/" + e.namespace + "/migrate status: 'Current': the Job is complete", "Ingress/", "CronJob/"} {
		if !j.has(must) {
			t.Errorf("no report %q in\n%s", must, j)
		}
	}
}

// S6.11, S6.31: a Job that failed ends the wait at once, however long the others would take.
func TestFailFast(t *testing.T) {
	e := newEnv(t)
	targets := e.apply(jobOf("migrate", "kubetest.sluice.run/fail: crash-loop, kubetest.sluice.run/exit-code: \"3\"", ""), deploymentOf("web", "web:does-not-exist", 1, ""))
	started := time.Now()
	got, err := wait(t.Context(), e.clients, targets, Options{Timeout: 10 * long, FailFast: true})
	var n *NotReadyError
	if !errors.As(err, &n) || n.TimedOut || time.Since(started) > long {
		t.Fatalf("%v after %s", err, time.Since(started))
	}
	if len(got) != 2 || len(n.Statuses) != 2 || len(n.Causes()) != 1 || n.Causes()[0].Ref != targets[0].Ref {
		t.Errorf("statuses %+v, causes %+v", n.Statuses, n.Causes())
	}
	if want := "failed early due to stalled resources: [Job/" + e.namespace + "/migrate status: 'Failed': the Job has failed: "; !strings.Contains(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
	noneLeft(t)
}

// S6.11: without fail-fast the wait goes on until nothing can change any more, which is not until the limit here.
func TestWithoutFailFast(t *testing.T) {
	e := newEnv(t)
	targets := e.apply(jobOf("migrate", "kubetest.sluice.run/fail: crash-loop, kubetest.sluice.run/exit-code: \"3\"", ""), deploymentOf("web", "web:1", 1, ""))
	_, err := wait(t.Context(), e.clients, targets, Options{Timeout: long})
	var n *NotReadyError
	if !errors.As(err, &n) || n.TimedOut {
		t.Fatalf("Failed and Current are final: %v", err)
	}
	if len(n.Statuses) != 1 || n.Statuses[0].Status != Failed {
		t.Errorf("the Deployment was to become Current first: %+v", n.Statuses)
	}
}

// S6.24 and S6.23: a StatefulSet whose pod crashes has failed; a Deployment has not.
func TestCrashingPodsFailAStatefulSet(t *testing.T) {
	e := newEnv(t)
	targets := e.apply(`apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 1
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}, annotations: {kubetest.sluice.run/fail: crash-loop}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: app, image: "db:1"}]}
`)
	_, err := wait(t.Context(), e.clients, targets, Options{Timeout: long, FailFast: true})
	var n *NotReadyError
	if !errors.As(err, &n) || n.TimedOut || n.Statuses[0].Status != Failed {
		t.Fatalf("%v", err)
	}
	if !strings.Contains(err.Error(), "1 pod has failed; CrashLoopBackOff") {
		t.Errorf("%v", err)
	}
}

// The limit's error names the limit and what the pods say, and the watch of the pods feeds the reports.
func TestTimeoutNamesTheTroubleOfThePods(t *testing.T) {
	e := newEnv(t)
	const image = "ghcr.io/your-org/web:does-not-exist"
	targets := e.apply(deploymentOf("web", image, 2, ""))
	j := newJournal()
	_, err := wait(t.Context(), e.clients, targets, Options{Timeout: 5 * time.Second, FailFast: true, Report: j.report})
	var n *NotReadyError
	if !errors.As(err, &n) || !n.TimedOut {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"timeout of 5s waiting for: [Deployment/" + e.namespace + "/web status: 'InProgress': ", "0 of 2 pods ready; ", "ImagePull", image} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %s", err, want)
		}
	}
	if !j.has(image) {
		t.Errorf("no report names the image:\n%s", j)
	}
	// Corrected, it recovers.
	e.apply(deploymentOf("web", "ghcr.io/your-org/web:v1", 2, ""))
	if _, err := wait(t.Context(), e.clients, targets, Options{Timeout: long, FailFast: true}); err != nil {
		t.Error(err)
	}
}

// S6.12: an object that is missing, or goes away, is waited for until the limit; a Job with a TTL is done when it is gone.
func TestMissingObjects(t *testing.T) {
	e := newEnv(t)
	const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
	targets := e.apply(configMap)
	targets = append(targets, Target{Ref: flux.Ref{Version: "v1", Kind: "ConfigMap", Namespace: e.namespace, Name: "later"}})
	j := newJournal()
	type result struct {
		statuses []Status
		err      error
	}
	done := make(chan result)
	go func() {
		s, err := wait(t.Context(), e.clients, targets, Options{Timeout: long, Report: j.report})
		done <- result{s, err}
	}()
	j.await(t, "ConfigMap/"+e.namespace+"/later status: 'NotFound'")
	e.delete(configMap)
	j.await(t, "ConfigMap/"+e.namespace+"/c status: 'NotFound'")
	e.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\n", configMap)
	if r := <-done; r.err != nil {
		t.Errorf("%v\n%s", r.err, j)
	}

	gone := flux.Ref{Group: "batch", Version: "v1", Kind: "Job", Namespace: e.namespace, Name: "gone"}
	if _, err := wait(t.Context(), e.clients, []Target{{Ref: gone, TTLJob: true}}, Options{Timeout: long}); err != nil {
		t.Errorf("a Job with a TTL: %v", err)
	}
	_, err := wait(t.Context(), e.clients, []Target{{Ref: gone}}, Options{Timeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "timeout of 300ms waiting for: [Job/"+e.namespace+"/gone status: 'NotFound'") {
		t.Errorf("a Job without one: %v", err)
	}
}

func TestJobWithTTLDeletesItself(t *testing.T) {
	e := newEnv(t)
	targets := e.apply(jobOf("migrate", "", "ttlSecondsAfterFinished: 0"))
	targets[0].TTLJob = true
	if _, err := wait(t.Context(), e.clients, targets, Options{Timeout: long, FailFast: true}); err != nil {
		t.Error(err)
	}
}

// S6.14
func TestNamespacedKindWithoutNamespaceEndsAtOnce(t *testing.T) {
	e := newEnv(t)
	targets := append(e.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"),
		Target{Ref: flux.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Name: "web"}})
	started := time.Now()
	_, err := wait(t.Context(), e.clients, targets, Options{Timeout: long})
	if err == nil || time.Since(started) > long/2 {
		t.Fatalf("%v after %s", err, time.Since(started))
	}
	if want := "failed early due to stalled resources: [can't determine status for Deployment/web: the kind is namespaced and no namespace is given]"; !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
	var hint interface{ Hint() string }
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "spec.healthChecks") {
		t.Errorf("no hint: %v", hint)
	}
}

func TestClusterScopedKindMayBeGivenANamespace(t *testing.T) {
	e := newEnv(t)
	ref := flux.Ref{Version: "v1", Kind: "Namespace", Namespace: e.namespace, Name: e.namespace}
	if _, err := wait(t.Context(), e.clients, []Target{{Ref: ref}}, Options{Timeout: long}); err != nil {
		t.Error(err)
	}
}

// S6.20, S6.26
func TestTerminatingNamespaceIsNotReady(t *testing.T) {
	e := newEnv(t)
	namespace := e.namespace + "-ending"
	e.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: " + namespace + "}\n")
	keeper := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: keeper, namespace: " + namespace + ", finalizers: [example.com/keep]}\n"
	e.apply(keeper)
	free := func() {
		o := parse(e, keeper)
		if _, err := e.resource(o).Patch(context.Background(), o.GetName(), types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
	t.Cleanup(free)
	e.delete("apiVersion: v1\nkind: Namespace\nmetadata: {name: " + namespace + "}\n")
	ref := flux.Ref{Version: "v1", Kind: "Namespace", Name: namespace}
	j := newJournal()
	statuses, err := wait(t.Context(), e.clients, []Target{{Ref: ref}}, Options{Timeout: 2 * time.Second, Report: j.report})
	if err == nil || statuses[0].Status != Terminating {
		t.Fatalf("%v, %v", statuses, err)
	}
	e.awaitCondition("apiVersion: v1\nkind: Namespace\nmetadata: {name: "+namespace+"}\n", "NamespaceFinalizersRemaining")
	d := Diagnose(t.Context(), e.clients, statuses[0], e.started)
	if d.Reason != Deleting || !strings.Contains(d.Text, "example.com/keep") {
		t.Errorf("%+v", d)
	}
}

const gradebookCRD = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gradebooks.%[1]s}
spec:
  group: %[1]s
  scope: Namespaced
  names: {kind: GradeBook, plural: gradebooks, singular: gradebook}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// S6.15, S6.23, S6.25: a kind that is not served yet is awaited, not an error; the definition is Current when it is
// established, and a resource without conditions at once.
func TestKindThatComesLater(t *testing.T) {
	e := newEnv(t)
	group := e.namespace + ".example.com"
	definition := fmt.Sprintf(gradebookCRD, group)
	targets := []Target{
		{Ref: flux.Ref{Group: group, Version: "v1", Kind: "GradeBook", Namespace: e.namespace, Name: "algebra"}},
		{Ref: flux.Ref{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition", Name: "gradebooks." + group}},
	}
	_, err := wait(t.Context(), e.clients, targets, Options{Timeout: 400 * time.Millisecond, FailFast: true})
	if err == nil || !strings.Contains(err.Error(), "algebra status: 'Unknown': the cluster does not serve kind GradeBook of group "+group) {
		t.Fatalf("%v", err)
	}
	j := newJournal()
	done := make(chan error)
	go func() {
		_, err := wait(t.Context(), e.clients, targets, Options{Timeout: long, FailFast: true, Report: j.report})
		done <- err
	}()
	j.await(t, "does not serve kind")
	t.Cleanup(func() { e.delete(definition) })
	e.apply(definition)
	// NotFound says that the kind is now known.
	j.await(t, "algebra status: 'NotFound'")
	e.apply("apiVersion: " + group + "/v1\nkind: GradeBook\nmetadata: {name: algebra}\n")
	if err := <-done; err != nil {
		t.Errorf("%v\n%s", err, j)
	}
	noneLeft(t)
}

// S6.13: an account without rights makes the status Unknown with the server's words, tried again until the limit; the right
// that is granted meanwhile is noticed. An account that may only get objects, or only those it names, can wait too.
func TestRights(t *testing.T) {
	e := newEnv(t)
	one := e.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
	two := append(e.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n"), one...)
	as := func(user string) Clients {
		config := rest.CopyConfig(e.config)
		config.Impersonate.UserName = user
		return e.clientsFor(config)
	}
	grant := func(user, rule string) {
		e.apply("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: "+user+"}\nrules: ["+rule+"]\n",
			"apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: "+user+"}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: "+user+"}\nsubjects: [{kind: User, name: "+user+"}]\n")
	}
	for _, targets := range [][]Target{one, two} {
		statuses, err := wait(t.Context(), as("nobody"), targets, Options{Timeout: 500 * time.Millisecond, FailFast: true})
		if err == nil || statuses[0].Status != Unknown || !apierrors.IsForbidden(statuses[0].Err) {
			t.Errorf("%d objects: %v, %v", len(targets), statuses, err)
		}
		if !strings.Contains(fmt.Sprint(err), "timeout of 500ms waiting for: [ConfigMap/"+e.namespace+"/a status: 'Unknown': configmaps") {
			t.Errorf("%v", err)
		}
	}

	done := make(chan error)
	j := newJournal()
	go func() {
		_, err := wait(t.Context(), as("late"), two, Options{Timeout: long, Report: j.report})
		done <- err
	}()
	j.await(t, "forbidden")
	grant("late", `{apiGroups: [""], resources: [configmaps], verbs: [get, list, watch]}`)
	if err := <-done; err != nil {
		t.Errorf("a right granted during the wait: %v\n%s", err, j)
	}

	grant("reader", `{apiGroups: [""], resources: [configmaps], verbs: [get]}`)
	grant("names", `{apiGroups: [""], resources: [configmaps], resourceNames: [a, b], verbs: [get, list, watch]}`)
	for _, user := range []string{"reader", "names"} {
		// RBAC takes effect when the server's own watch has seen it, so a first refusal is no failure.
		if _, err := wait(t.Context(), as(user), two, Options{Timeout: long}); err != nil {
			t.Errorf("%s: %v", user, err)
		}
		later := Target{Ref: flux.Ref{Version: "v1", Kind: "ConfigMap", Namespace: e.namespace, Name: "b"}}
		e.delete("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n")
		go func() {
			_, err := wait(t.Context(), as(user), []Target{one[0], later}, Options{Timeout: long, Report: j.report})
			done <- err
		}()
		j.await(t, "b status: 'NotFound'")
		e.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n")
		if err := <-done; err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	noneLeft(t)
}

// S6.32: who impersonates another account waits for a Job's end, too, and learns
// of its failure; S6.4: whatever version the reference has.
func TestS6_32JobOfAnotherUser(t *testing.T) {
	e := newEnv(t)
	e.apply("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: deployer}\nrules: [{apiGroups: [batch], resources: [jobs], verbs: [get, list, watch]}]\n",
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: deployer}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: deployer}\n"+
			"subjects: [{kind: ServiceAccount, name: deployer, namespace: "+e.namespace+"}]\n")
	config := rest.CopyConfig(e.config)
	config.Impersonate.UserName = "system:serviceaccount:" + e.namespace + ":deployer"
	deployer := e.clientsFor(config)

	const suspended = "suspend: true"
	target := e.apply(jobOf("migrate", "", suspended))[0]
	target.Ref.Version = "v1alpha7"
	if _, err := wait(t.Context(), deployer, []Target{target}, Options{Timeout: long, FailFast: true}); err != nil {
		t.Fatalf("a suspended Job: %v", err)
	}
	e.apply(jobOf("migrate", "", "suspend: false"))
	statuses, err := wait(t.Context(), deployer, []Target{target}, Options{Timeout: long, FailFast: true})
	if err != nil || statuses[0].Message != "the Job is complete" {
		t.Errorf("%v, %v", statuses, err)
	}
	broken := e.apply(jobOf("broken", "kubetest.sluice.run/fail: crash-loop, kubetest.sluice.run/exit-code: \"3\"", ""))
	statuses, err = wait(t.Context(), deployer, broken, Options{Timeout: long, FailFast: true})
	if err == nil || statuses[0].Status != Failed {
		t.Errorf("%v, %v", statuses, err)
	}
}

func TestCancelReturnsTheCauseAndWhatIsKnown(t *testing.T) {
	e := newEnv(t)
	targets := append(e.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"),
		Target{Ref: flux.Ref{Version: "v1", Kind: "Secret", Namespace: e.namespace, Name: "never"}})
	stopped := errors.New("the job was cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	j := newJournal()
	var at time.Time
	statuses, err := wait(ctx, e.clients, targets, Options{Timeout: long, Report: func(s Status) {
		j.report(s)
		if s.Ref.Kind == "Secret" {
			go func() { at = time.Now(); cancel(stopped) }()
		}
	}})
	took := time.Since(at)
	if !errors.Is(err, stopped) || took > 2*time.Second {
		t.Errorf("%v, %s after the cancel", err, took)
	}
	var n *NotReadyError
	if errors.As(err, &n) {
		t.Error("a cancel is not a verdict on health")
	}
	if len(statuses) != 2 || statuses[0].Ref.Kind != "ConfigMap" || statuses[1].Status != NotFound {
		t.Errorf("%+v", statuses)
	}
	noneLeft(t)

	if _, err := wait(ctx, e.clients, targets, Options{}); !errors.Is(err, stopped) {
		t.Errorf("a context that has ended: %v", err)
	}
}

// A large group costs one list, in pages of 500, and no watch if all is well from the start. The namespace holds one ConfigMap
// more than the test makes, hence the second page.
func TestRequestsOfALargeGroup(t *testing.T) {
	e := newEnv(t)
	var targets []Target
	for i := range 500 {
		targets = append(targets, e.apply(fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d}\n", i))...)
	}
	targets = append(targets, e.apply("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")...)
	var r proxy.Recorder
	config := rest.CopyConfig(e.config)
	config.Wrap(r.Wrap)
	statuses, err := wait(t.Context(), e.clientsFor(config), targets, Options{Timeout: long})
	if err != nil || len(statuses) != 501 {
		t.Fatalf("%d statuses, %v", len(statuses), err)
	}
	var got []string
	for _, q := range r.Requests() {
		got = append(got, q.Verb+" "+q.Path+" "+q.Query.Get("fieldSelector"))
	}
	slices.Sort(got)
	base := "list /api/v1/namespaces/" + e.namespace
	want := []string{base + "/configmaps ", base + "/configmaps ", base + "/secrets metadata.name=s"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("requests\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestClaimWithoutProvisioner(t *testing.T) {
	e := newEnv(t)
	targets := e.apply("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {storageClassName: no-such-class, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n")
	statuses, err := wait(t.Context(), e.clients, targets, Options{Timeout: 2 * time.Second, FailFast: true})
	if err == nil || statuses[0].Status != InProgress {
		t.Fatalf("%v, %v", statuses, err)
	}
	d := Diagnose(t.Context(), e.clients, statuses[0], e.started)
	if d.Reason != PVCPending || !strings.Contains(d.Text, "no-such-class") || d.Hint == "" {
		t.Errorf("%+v", d)
	}
}

// BenchmarkGate tells how long a gate takes to open once what it waits for has happened.
func BenchmarkGate(b *testing.B) {
	e := newEnv(b)
	var total time.Duration
	n := 0
	for b.Loop() {
		n++
		name := fmt.Sprintf("gate-%d", n)
		j := newJournal()
		done := make(chan time.Time)
		go func() {
			_, err := wait(b.Context(), e.clients, []Target{{Ref: flux.Ref{Version: "v1", Kind: "ConfigMap", Namespace: e.namespace, Name: name}}},
				Options{Timeout: long, Report: j.report})
			if err != nil {
				b.Error(err)
			}
			done <- time.Now()
		}()
		j.await(b, "NotFound")
		e.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n")
		applied := time.Now()
		total += (<-done).Sub(applied)
	}
	b.ReportMetric(float64(total.Microseconds())/float64(n)/1000, "ms/gate")
}
