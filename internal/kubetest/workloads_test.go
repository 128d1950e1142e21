//go:build unix

package kubetest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/yaml"
)

// patience is how long a test waits for what takes a second on an idle machine.
const patience = 15 * time.Second

// bench is what the tests of workloads share: the cluster, a namespace and clients.
type bench struct {
	*testing.T
	cluster   *Cluster
	namespace string
	clients   kubernetes.Interface
	dynamic   dynamic.Interface
}

func newBench(t *testing.T) *bench {
	t.Helper()
	c := Shared(t)
	clients, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	dyn, err := dynamic.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	return &bench{T: t, cluster: c, namespace: Namespace(t, c), clients: clients, dynamic: dyn}
}

// create creates the objects of a YAML stream in the namespace of the test.
func (b *bench) create(manifests string) {
	b.Helper()
	for _, text := range strings.Split(manifests, "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
			b.Fatalf("parse: %v\n%s", err, text)
		}
		gvr, _ := meta.UnsafeGuessKindToResource(object.GroupVersionKind())
		if _, err := b.dynamic.Resource(gvr).Namespace(b.namespace).Create(b.Context(), object, metav1.CreateOptions{}); err != nil {
			b.Fatalf("create %s %q: %v", object.GetKind(), object.GetName(), err)
		}
	}
}

// await waits until an object of the resource in the namespace satisfies done, and returns it. It watches and does not poll.
func await[T any](b *bench, group, version, resource, what string, done func(*T) bool) *T {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	objects := b.dynamic.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: resource}).Namespace(b.namespace)
	var last, found *T
	_, err := watchtools.UntilWithSync(ctx, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return objects.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return objects.Watch(ctx, o)
		},
	}, &unstructured.Unstructured{}, nil, func(e watch.Event) (bool, error) {
		if e.Type == watch.Deleted {
			return false, nil
		}
		object := new(T)
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(e.Object.(*unstructured.Unstructured).Object, object); err != nil {
			return false, err
		}
		last = object
		if done(object) {
			found = object
		}
		return found != nil, nil
	})
	if err != nil {
		text, _ := yaml.Marshal(last)
		b.Fatalf("wait for %s: %v; seen last:\n%s", what, err, text)
	}
	return found
}

// pod returns a pod template's or a pod's fields, with annotations below kubetest.sluice.run and one container "app".
func podTemplate(image, restartPolicy string, annotations map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "metadata: {labels: {app: web}, annotations: {a: b")
	for key, value := range annotations {
		fmt.Fprintf(&b, ", kubetest.sluice.run/%s: %q", key, value)
	}
	fmt.Fprintf(&b, "}}, spec: {restartPolicy: %s, terminationGracePeriodSeconds: 0, containers: [{name: app, image: %q}]}", restartPolicy, image)
	return b.String()
}

func deployment(image string, annotations map[string]string) string {
	return `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 2, progressDeadlineSeconds: 600,
selector: {matchLabels: {app: web}}, template: {` + podTemplate(image, "Always", annotations) + `}}}`
}

func job(image string, restartPolicy string, annotations map[string]string) string {
	return `{apiVersion: batch/v1, kind: Job, metadata: {name: task}, spec: {backoffLimit: 0,
template: {` + podTemplate(image, restartPolicy, annotations) + `}}}`
}

func TestDeploymentRollsOut(t *testing.T) {
	b := newBench(t)
	b.create(deployment("example.com/web:v1", nil))
	start := time.Now()
	d := await(b, "apps", "v1", "deployments", "the roll-out", func(d *appsv1.Deployment) bool {
		return d.Status.AvailableReplicas == 2
	})
	t.Logf("rolled out in %s", time.Since(start))

	// A second version replaces the pods.
	d.Spec.Template.Spec.Containers[0].Image = "example.com/web:v2"
	if _, err := b.clients.AppsV1().Deployments(b.namespace).Update(t.Context(), d, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(b, "apps", "v1", "deployments", "the second roll-out", func(d *appsv1.Deployment) bool {
		return d.Status.ObservedGeneration >= 2 && d.Status.UpdatedReplicas == 2 && d.Status.AvailableReplicas == 2 && d.Status.Replicas == 2
	})
}

func TestStatefulSetBindsItsVolumes(t *testing.T) {
	b := newBench(t)
	b.create(`{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db}, spec: {replicas: 2, serviceName: db,
selector: {matchLabels: {app: web}}, template: {` + podTemplate("example.com/db:v1", "Always", nil) + `},
volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]}}`)
	await(b, "apps", "v1", "statefulsets", "both pods", func(s *appsv1.StatefulSet) bool { return s.Status.ReadyReplicas == 2 })
	claim := await(b, "", "v1", "persistentvolumeclaims", "a bound claim", func(c *corev1.PersistentVolumeClaim) bool {
		return c.Name == "data-db-1" && c.Status.Phase == corev1.ClaimBound
	})

	// The volume goes with its claim.
	if err := b.clients.AppsV1().StatefulSets(b.namespace).Delete(t.Context(), "db", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	volumes, err := b.clients.CoreV1().PersistentVolumes().Watch(t.Context(), metav1.ListOptions{
		FieldSelector: "metadata.name=" + claim.Spec.VolumeName,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer volumes.Stop()
	if err := b.clients.CoreV1().PersistentVolumeClaims(b.namespace).Delete(t.Context(), claim.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(patience)
	for {
		select {
		case e := <-volumes.ResultChan():
			if e.Type == watch.Deleted {
				return
			}
		case <-deadline:
			t.Fatal("the volume outlived its claim")
		}
	}
}

func TestDaemonSetRunsOnEveryNode(t *testing.T) {
	b := newBench(t)
	b.create(`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: agent}, spec: {
selector: {matchLabels: {app: web}}, template: {` + podTemplate("example.com/agent:v1", "Always", nil) + `}}}`)
	await(b, "apps", "v1", "daemonsets", "3 pods", func(d *appsv1.DaemonSet) bool {
		return d.Status.DesiredNumberScheduled == 3 && d.Status.NumberAvailable == 3
	})
}

func TestJobCompletes(t *testing.T) {
	for _, policy := range []string{"Never", "OnFailure"} {
		t.Run(policy, func(t *testing.T) {
			b := newBench(t)
			b.create(job("example.com/task:v1", policy, nil))
			await(b, "batch", "v1", "jobs", "completion", func(j *batchv1.Job) bool { return jobIs(j, batchv1.JobComplete) })
		})
	}
}

func TestJobFails(t *testing.T) {
	for _, policy := range []string{"Never", "OnFailure"} {
		t.Run(policy, func(t *testing.T) {
			b := newBench(t)
			b.create(job("example.com/task:v1", policy, map[string]string{"fail": "crash-loop", "exit-code": "3"}))
			await(b, "batch", "v1", "jobs", "failure", func(j *batchv1.Job) bool { return jobIs(j, batchv1.JobFailed) })
		})
	}
}

func jobIs(j *batchv1.Job, condition batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == condition && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

func TestServiceGetsAnAddress(t *testing.T) {
	b := newBench(t)
	b.create(`{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer, ports: [{port: 80}]}}`)
	await(b, "", "v1", "services", "an address", func(s *corev1.Service) bool { return len(s.Status.LoadBalancer.Ingress) == 1 })
}

func TestReadyDelay(t *testing.T) {
	b := newBench(t)
	b.create(deployment("example.com/web:v1", map[string]string{"ready-delay": "1s"}))
	await(b, "apps", "v1", "deployments", "the roll-out", func(d *appsv1.Deployment) bool { return d.Status.AvailableReplicas == 2 })
	pods, err := b.clients.CoreV1().Pods(b.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		for _, c := range pod.Status.Conditions {
			if took := c.LastTransitionTime.Sub(pod.CreationTimestamp.Time); c.Type == corev1.PodReady && took < time.Second {
				t.Errorf("pod %q was ready after %s, want at least 1s", pod.Name, took)
			}
		}
	}
}
