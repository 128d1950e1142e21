//go:build unix

package kubetest

import (
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// failure is what a pod that fails in one way must come to.
type failure struct {
	name        string
	image       string            // example.com/app:v1 if ""
	annotations map[string]string // below kubetest.sluice.run
	init        string            // image of an init container, none if ""
	phase       corev1.PodPhase
	done        func(app corev1.ContainerStatus, pod *corev1.Pod) bool
	event       string // reason: beginning of the message
}

func waiting(reason, message string) func(corev1.ContainerStatus, *corev1.Pod) bool {
	return func(app corev1.ContainerStatus, _ *corev1.Pod) bool {
		return app.State.Waiting != nil && app.State.Waiting.Reason == reason && strings.HasPrefix(app.State.Waiting.Message, message)
	}
}

func crashed(reason string, exitCode, restarts int32) func(corev1.ContainerStatus, *corev1.Pod) bool {
	return func(app corev1.ContainerStatus, pod *corev1.Pod) bool {
		last := app.LastTerminationState.Terminated
		return waiting("CrashLoopBackOff", "back-off ")(app, pod) && app.RestartCount == restarts &&
			last != nil && last.ExitCode == exitCode && last.Reason == reason
	}
}

var failures = []failure{
	{
		name: "image tag", image: "example.com/app:v2-missing", phase: corev1.PodPending,
		done:  waiting("ImagePullBackOff", `Back-off pulling image "example.com/app:v2-missing": ErrImagePull: rpc error: code = NotFound`),
		event: `Failed: Failed to pull image "example.com/app:v2-missing": rpc error: code = NotFound desc = failed to pull`,
	},
	{
		name: "image pull by annotation", annotations: map[string]string{"fail": "image-pull"}, phase: corev1.PodPending,
		done:  waiting("ImagePullBackOff", `Back-off pulling image "example.com/app:v1"`),
		event: `BackOff: Back-off pulling image "example.com/app:v1"`,
	},
	{
		name: "image name", image: "example.com/App:v1", phase: corev1.PodPending,
		done:  waiting("InvalidImageName", `Failed to apply default image tag "example.com/App:v1"`),
		event: `InspectFailed: Failed to apply default image tag "example.com/App:v1": couldn't parse image name`,
	},
	{
		name: "init image", init: "example.com/init:missing", phase: corev1.PodPending,
		done: func(app corev1.ContainerStatus, pod *corev1.Pod) bool {
			return waiting("PodInitializing", "")(app, pod) && len(pod.Status.InitContainerStatuses) == 1 &&
				waiting("ImagePullBackOff", "Back-off")(pod.Status.InitContainerStatuses[0], pod)
		},
		event: `Failed: Failed to pull image "example.com/init:missing"`,
	},
	{
		name: "crash loop", annotations: map[string]string{"fail": "crash-loop", "exit-code": "3", "restarts": "2", "message": `it's "over": {x}`},
		phase: corev1.PodRunning,
		done: func(app corev1.ContainerStatus, pod *corev1.Pod) bool {
			return crashed("Error", 3, 2)(app, pod) && app.LastTerminationState.Terminated.Message == `it's "over": {x}`
		},
		event: "BackOff: Back-off restarting failed container app in pod ",
	},
	{
		name: "out of memory", annotations: map[string]string{"fail": "oom-killed"}, phase: corev1.PodRunning,
		done:  crashed("OOMKilled", 137, 3),
		event: "BackOff: Back-off restarting failed container app in pod ",
	},
	{
		name: "init crash loop", init: "example.com/init:v1", annotations: map[string]string{"fail": "init-crash-loop", "exit-code": "2"}, phase: corev1.PodPending,
		done: func(app corev1.ContainerStatus, pod *corev1.Pod) bool {
			return waiting("PodInitializing", "")(app, pod) && crashed("Error", 2, 3)(pod.Status.InitContainerStatuses[0], pod)
		},
		event: "BackOff: Back-off restarting failed container init in pod ",
	},
	{
		name: "config error", annotations: map[string]string{"fail": "config-error", "message": `secret "db" not found`}, phase: corev1.PodPending,
		done:  waiting("CreateContainerConfigError", `secret "db" not found`),
		event: `Failed: Error: secret "db" not found`,
	},
	{
		name: "creating", annotations: map[string]string{"fail": "creating"}, phase: corev1.PodPending,
		done:  waiting("ContainerCreating", ""),
		event: "FailedMount: MountVolume.SetUp failed for volume ",
	},
	{
		name: "not ready", annotations: map[string]string{"fail": "not-ready"}, phase: corev1.PodRunning,
		done: func(app corev1.ContainerStatus, _ *corev1.Pod) bool {
			return app.State.Running != nil && !app.Ready
		},
		event: "Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 503",
	},
	{
		name: "typing error", annotations: map[string]string{"fail": "crashloop"}, phase: corev1.PodPending,
		done:  func(app corev1.ContainerStatus, _ *corev1.Pod) bool { return app.Name == "" },
		event: `KubetestUnknownMode: annotation kubetest.sluice.run/fail: unknown value "crashloop", want one of config-error, crash-loop`,
	},
}

func TestFailures(t *testing.T) {
	for _, f := range failures {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			image := f.image
			if image == "" {
				image = "example.com/app:v1"
			}
			manifest := "{apiVersion: v1, kind: Pod, " + podTemplate(image, "Always", f.annotations) + "}"
			manifest = strings.Replace(manifest, "metadata: {", "metadata: {name: web, ", 1)
			if f.init != "" {
				manifest = strings.Replace(manifest, "containers: [", "initContainers: [{name: init, image: "+f.init+"}], containers: [", 1)
			}
			b.create(manifest)
			await(b, "", "v1", "pods", "the failure", func(p *corev1.Pod) bool {
				var app corev1.ContainerStatus
				for _, s := range p.Status.ContainerStatuses {
					if s.Name == "app" {
						app = s
					}
				}
				for _, c := range p.Status.Conditions {
					if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
						t.Errorf("the pod became ready")
					}
				}
				return p.Status.Phase == f.phase && f.done(app, p)
			})
			reason, message, _ := strings.Cut(f.event, ": ")
			await(b, "", "v1", "events", "the event "+f.event, func(e *corev1.Event) bool {
				return e.InvolvedObject.Name == "web" && e.Reason == reason && strings.HasPrefix(e.Message, message)
			})
		})
	}
}

func TestLogs(t *testing.T) {
	b := newBench(t)
	b.create("{apiVersion: v1, kind: Pod, " + strings.Replace(podTemplate("example.com/app:v1", "Always", map[string]string{
		"fail": "crash-loop", "log": "listening\n", "previous-log": "one\ntwo\npanic: no database",
	}), "metadata: {", "metadata: {name: crashing, ", 1) + "}")
	b.create("{apiVersion: v1, kind: Pod, " + strings.Replace(podTemplate("example.com/app:missing", "Always", nil),
		"metadata: {", "metadata: {name: imageless, ", 1) + "}")
	await(b, "", "v1", "pods", "the crash", func(p *corev1.Pod) bool {
		return p.Name == "crashing" && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount > 0
	})
	await(b, "", "v1", "pods", "the missing image", func(p *corev1.Pod) bool {
		return p.Name == "imageless" && len(p.Status.ContainerStatuses) == 1 && waiting("ImagePullBackOff", "")(p.Status.ContainerStatuses[0], p)
	})
	two := int64(2)
	for _, test := range []struct {
		pod     string
		options corev1.PodLogOptions
		want    string
	}{
		{"crashing", corev1.PodLogOptions{}, "listening\n"},
		{"crashing", corev1.PodLogOptions{Previous: true}, "one\ntwo\npanic: no database\n"},
		{"crashing", corev1.PodLogOptions{Previous: true, TailLines: &two}, "two\npanic: no database\n"},
		{"imageless", corev1.PodLogOptions{}, `container "app" in pod "imageless" is waiting to start: trying and failing to pull image`},
		{"imageless", corev1.PodLogOptions{Previous: true}, `previous terminated container "app" in pod "imageless" not found`},
	} {
		var got string
		stream, err := b.clients.CoreV1().Pods(b.namespace).GetLogs(test.pod, &test.options).Stream(t.Context())
		if err != nil {
			got = err.Error()
		} else {
			data, err := io.ReadAll(stream)
			stream.Close()
			if err != nil {
				t.Fatal(err)
			}
			got = string(data)
		}
		if got != test.want {
			t.Errorf("logs of %s with %+v: %q, want %q", test.pod, test.options, got, test.want)
		}
	}
}

func TestPodGoesWhenDeleted(t *testing.T) {
	b := newBench(t)
	b.create(deployment("example.com/web:v1", nil))
	pod := await(b, "", "v1", "pods", "a running pod", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
	pods, err := b.clients.CoreV1().Pods(b.namespace).Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + pod.Name, TimeoutSeconds: new(int64(20))})
	if err != nil {
		t.Fatal(err)
	}
	defer pods.Stop()
	if err := b.clients.CoreV1().Pods(b.namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for e := range pods.ResultChan() {
		if e.Type == "DELETED" {
			return
		}
	}
	t.Fatal("the pod is still there")
}
