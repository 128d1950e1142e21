package health

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestFindTrouble(t *testing.T) {
	const image = "ghcr.io/your-org/grade-api:v1.5.3"
	waiting := func(reason, message string) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}}}
	}
	crash := func(x corev1.ContainerStateTerminated) corev1.PodStatus {
		s := waiting("CrashLoopBackOff", "back-off 40s restarting failed container")
		s.Phase = corev1.PodRunning
		s.ContainerStatuses[0].RestartCount = 3
		s.ContainerStatuses[0].LastTerminationState.Terminated = &x
		return s
	}
	terminated := func(phase corev1.PodPhase, x corev1.ContainerStateTerminated) corev1.PodStatus {
		return corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Terminated: &x}}}}
	}
	unscheduled := func(message string) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message}}}
	}
	initFails := waiting("PodInitializing", "")
	initFails.InitContainerStatuses = []corev1.ContainerStatus{{Name: "migrate", RestartCount: 1,
		State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2, Reason: "Error"}}}}
	running := corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
		{Name: "app", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}
	ready := *running.DeepCopy()
	ready.ContainerStatuses[0].Ready = true
	gated := *ready.DeepCopy()
	gated.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ReadinessGatesNotReady", Message: "corresponding condition of pod readiness gate \"lb\" does not exist."}}
	bothFail := crash(corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error"})
	bothFail.ContainerStatuses = append(bothFail.ContainerStatuses, corev1.ContainerStatus{Name: "side",
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}})

	tests := []struct {
		name         string
		status       corev1.PodStatus
		reason, text string
		started      bool
	}{
		{"image, no message", waiting("ImagePullBackOff", ""), ImagePull, "cannot pull " + image + " (ImagePullBackOff)", false},
		{"image not found", waiting("ErrImagePull", `rpc error: code = NotFound desc = failed to pull: manifest unknown`), ImagePull, "cannot pull " + image + " (ErrImagePull: not found)", false},
		{"image denied", waiting("ImagePullBackOff", `pull access denied, repository does not exist or may require authorization: denied`), ImagePull, "cannot pull " + image + " (ImagePullBackOff: not found or no access)", false},
		{"image unauthorized", waiting("ImagePullBackOff", `401 Unauthorized`), ImagePull, "cannot pull " + image + " (ImagePullBackOff: access denied)", false},
		{"image limit", waiting("ImagePullBackOff", `toomanyrequests: You have reached your unauthenticated pull rate limit; denied`), ImagePull, "cannot pull " + image + " (ImagePullBackOff: rate limit)", false},
		{"image name", waiting("InvalidImageName", `couldn't parse image name`), InvalidImage, `cannot use image "` + image + `": couldn't parse image name (InvalidImageName)`, false},
		{"crash", crash(corev1.ContainerStateTerminated{ExitCode: 7, Reason: "Error"}), CrashLoop, "container app exited with code 7 (CrashLoopBackOff, 3 restarts)", true},
		{"crash with a message", crash(corev1.ContainerStateTerminated{ExitCode: 1, Message: "no database\n"}), CrashLoop, "container app exited with code 1: no database (CrashLoopBackOff, 3 restarts)", true},
		{"crash with code 0", crash(corev1.ContainerStateTerminated{ExitCode: 0, Reason: "Completed"}), CrashLoop, "container app exited with code 0 (CrashLoopBackOff, 3 restarts)", true},
		{"memory", crash(corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}), OOMKilled, "container app was killed because it used more memory than its limit (OOMKilled, exit code 137) (CrashLoopBackOff, 3 restarts)", true},
		{"exit", terminated(corev1.PodFailed, corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error"}), ContainerExited, "container app exited with code 3", true},
		{"cannot be run", terminated(corev1.PodFailed, corev1.ContainerStateTerminated{ExitCode: 127, Reason: "ContainerCannotRun"}), ContainerExited, "container app exited with code 127: ContainerCannotRun", true},
		{"exit 0", terminated(corev1.PodRunning, corev1.ContainerStateTerminated{ExitCode: 0}), "", "", false},
		{"config", waiting("CreateContainerConfigError", `secret "db" not found`), ContainerConfig, `container app cannot be started: secret "db" not found (CreateContainerConfigError)`, false},
		{"creating", waiting("ContainerCreating", ""), "", "", false},
		{"init container", initFails, CrashLoop, "container migrate exited with code 2 (CrashLoopBackOff, 1 restart)", true},
		{"unschedulable", unscheduled("0/1 nodes are available: 1 Insufficient cpu."), Unschedulable, "cannot be scheduled: 0/1 nodes are available: 1 Insufficient cpu.", false},
		{"claim", unscheduled("pod has unbound immediate PersistentVolumeClaims."), PVCPending, "cannot be scheduled: pod has unbound immediate PersistentVolumeClaims.", false},
		{"evicted", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "The node was low on resource: memory."}, PodFailed, "the pod has failed: The node was low on resource: memory (Evicted)", false},
		{"not ready", running, NotReadyProbe, "container app runs but is not ready", true},
		{"readiness gate", gated, NotReadyProbe, `the pod runs but is not ready: corresponding condition of pod readiness gate "lb" does not exist (ReadinessGatesNotReady)`, false},
		{"ready", ready, "", "", false},
		{"succeeded", corev1.PodStatus{Phase: corev1.PodSucceeded}, "", "", false},
		{"an image explains more than a crash", bothFail, ImagePull, "cannot pull side:1 (ErrImagePull)", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod := &corev1.Pod{Status: tt.status, Spec: corev1.PodSpec{
				InitContainers: []corev1.Container{{Name: "migrate", Image: "migrate:1"}},
				Containers:     []corev1.Container{{Name: "app", Image: image}, {Name: "side", Image: "side:1"}}}}
			got := findTrouble(pod)
			if got == nil {
				got = &trouble{}
			}
			if got.reason != tt.reason || got.text != tt.text || got.started != tt.started {
				t.Errorf("\n got %s %q started=%t\nwant %s %q started=%t", got.reason, got.text, got.started, tt.reason, tt.text, tt.started)
			}
			if strings.Contains(got.text, "\n") || got.reason != "" && got.short == "" {
				t.Errorf("short %q, text %q", got.short, got.text)
			}
		})
	}
}

func TestPodTroubleIsTheNewestPods(t *testing.T) {
	at := func(s int64) metav1.Time { return metav1.Unix(s, 0) }
	pods := map[string]podState{
		"a": {created: at(10), trouble: "old"},
		"b": {created: at(30), trouble: "leaving", deleted: true},
		"c": {created: at(20), trouble: "new"},
		"d": {created: at(20), trouble: "newer by name only"},
		"e": {created: at(40)},
	}
	for range 20 { // a map's order must not show
		if got := podTrouble(pods); got != "new" {
			t.Fatalf("%q", got)
		}
	}
	if got := podTrouble(nil); got != "" {
		t.Errorf("%q", got)
	}
}

func TestEventsAreCountedTogetherSortedAndBounded(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	d := &diagnoser{since: start, events: map[eventKey]*seenEvent{}}
	add := func(reason, message string, count int32, after time.Duration) {
		d.addEvent(&corev1.Event{Reason: reason, Message: message, Count: count, LastTimestamp: metav1.NewTime(start.Add(after))})
	}
	add("BackOff", "Back-off restarting failed container app in pod web-1_ns(0a1b-2c)", 2, 3*time.Second)
	add("BackOff", "Back-off restarting failed container app in pod web-2_ns(ffff-00)", 3, 9*time.Second)
	add("Failed", "Error: ErrImagePull", 1, 9*time.Second)
	add("Old", "from an earlier run", 9, -time.Minute)
	d.addEvent(&corev1.Event{Reason: "New", Message: "with event time", EventTime: metav1.NewMicroTime(start.Add(time.Second))})
	d.addEvent(&corev1.Event{Reason: "Series", Message: "s", Series: &corev1.EventSeries{Count: 4, LastObservedTime: metav1.NewMicroTime(start.Add(20 * time.Second))}})
	want := []Event{
		{4, "Series", "s"},
		{5, "BackOff", "Back-off restarting failed container app"},
		{1, "Failed", "Error: ErrImagePull"},
		{1, "New", "with event time"},
	}
	got := d.sortedEvents()
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %+v, want %+v", i, got[i], want[i])
		}
	}
	for i := range 3 * maxEvents {
		add("Many", strings.Repeat("x", i), 1, time.Minute)
	}
	if got := d.sortedEvents(); len(got) != maxEvents {
		t.Errorf("%d events, want %d", len(got), maxEvents)
	}
}

func TestRefusal(t *testing.T) {
	for message, want := range map[string]string{
		`pods "a" is forbidden: exceeded quota: q, requested: cpu=1, used: cpu=1, limited: cpu=1`:            Quota,
		`pods "a" is forbidden: failed quota: q: must specify limits.cpu`:                                    Quota,
		`pods "a" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi`:                 Quota,
		`admission webhook "policy.example.com" denied the request: no latest tag`:                           Admission,
		`pods "a" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false`: Admission,
		`pods "a" is forbidden: error looking up service account ns/sa: serviceaccount "sa" not found`:       Admission,
	} {
		if got, hint := refusal(message); got != want || hint == "" {
			t.Errorf("%s: %s %q, want %s", message, got, hint, want)
		}
	}
}
