package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	podKind     = schema.GroupKind{Kind: "Pod"}
	podResource = corev1.SchemeGroupVersion.WithResource("pods")
)

// revisionLabel names the revision of a StatefulSet or DaemonSet that a pod belongs to.
const revisionLabel = "controller-revision-hash"

// podState is what a wait remembers of a pod: little, since there may be many.
type podState struct {
	created       metav1.Time
	revision      string
	failed        bool
	deleted       bool
	unschedulable bool
	trouble       string
}

// podStateOf reduces a pod. An object that cannot be read as one counts as a pod that nothing is known of.
func podStateOf(o *unstructured.Unstructured) podState {
	s := podState{created: o.GetCreationTimestamp(), revision: o.GetLabels()[revisionLabel], deleted: o.GetDeletionTimestamp() != nil}
	if r, err := status.Compute(o); err == nil {
		s.failed = r.Status == status.FailedStatus
	}
	pod, err := asPod(o)
	if err != nil {
		return s
	}
	s.unschedulable = unschedulable(pod) != nil
	if t := findTrouble(pod); t != nil {
		s.trouble = t.short
	}
	return s
}

func asPod(o *unstructured.Unstructured) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, pod); err != nil {
		return nil, fmt.Errorf("pod %s/%s: %w", o.GetNamespace(), o.GetName(), err)
	}
	return pod, nil
}

// podTrouble is the trouble of the newest pod that has one and is not being deleted; "" if all is well.
func podTrouble(pods map[string]podState) string {
	var worst podState
	for _, p := range pods {
		if p.trouble == "" || p.deleted {
			continue
		}
		if c := cmp.Compare(p.created.Unix(), worst.created.Unix()); worst.trouble == "" || c > 0 || c == 0 && p.trouble < worst.trouble {
			worst = p
		}
	}
	return worst.trouble
}

// podSelector returns the selector of a workload whose pods tell more than its status does.
func podSelector(o *unstructured.Unstructured) (labels.Selector, bool) {
	switch o.GroupVersionKind().GroupKind() {
	case schema.GroupKind{Group: "apps", Kind: "Deployment"}, schema.GroupKind{Group: "apps", Kind: "ReplicaSet"},
		schema.GroupKind{Group: "apps", Kind: "StatefulSet"}, schema.GroupKind{Group: "apps", Kind: "DaemonSet"},
		schema.GroupKind{Group: "batch", Kind: "Job"}:
	default:
		return nil, false
	}
	raw, found, err := unstructured.NestedMap(o.Object, "spec", "selector")
	if err != nil || !found {
		return nil, false
	}
	var s metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &s); err != nil {
		return nil, false
	}
	selector, err := metav1.LabelSelectorAsSelector(&s)
	if err != nil || selector.Empty() {
		return nil, false
	}
	return selector, true
}

// trouble is why a pod is not ready. rank orders troubles: a lower one explains more.
type trouble struct {
	rank   int
	reason string // code of the diagnosis
	text   string // a sentence without the pod's name
	short  string // for a progress line
	// container is empty where the pod as a whole is in trouble; started says that there may be a log.
	container, image string
	started          bool
	restarts         int32
}

// The reasons for which a kubelet does not get an image, in the words of its container states.
var imageReasons = map[string]bool{
	"ImagePullBackOff": true, "ErrImagePull": true, "RegistryUnavailable": true, "ImageInspectError": true,
	"SignatureValidationFailed": true,
}

// findTrouble returns what keeps a pod from being ready, or nil if nothing does, or nothing yet.
func findTrouble(pod *corev1.Pod) *trouble {
	if pod.Status.Phase == corev1.PodSucceeded {
		return nil
	}
	if c := unschedulable(pod); c != nil {
		message := oneLine(c.Message)
		if strings.Contains(message, "PersistentVolumeClaim") || strings.Contains(message, "persistentvolumeclaim") {
			return &trouble{rank: 1, reason: PVCPending, text: "cannot be scheduled: " + message, short: "Unschedulable: " + message}
		}
		return &trouble{rank: 1, reason: Unschedulable, text: "cannot be scheduled: " + message, short: "Unschedulable: " + message}
	}
	var found []*trouble
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			if t := containerTrouble(pod, &statuses[i]); t != nil {
				found = append(found, t)
			}
		}
	}
	if len(found) > 0 {
		return slices.MinFunc(found, func(a, b *trouble) int { return cmp.Compare(a.rank, b.rank) })
	}
	if pod.Status.Phase == corev1.PodFailed {
		text := sentence("the pod has failed", pod.Status.Reason, pod.Status.Message)
		return &trouble{rank: 2, reason: PodFailed, text: text, short: cmp.Or(pod.Status.Reason, "pod failed")}
	}
	return notReady(pod)
}

func containerTrouble(pod *corev1.Pod, s *corev1.ContainerStatus) *trouble {
	t := &trouble{container: s.Name, image: specImage(pod, s), restarts: s.RestartCount,
		started: s.RestartCount > 0 || s.State.Running != nil || s.State.Terminated != nil || s.LastTerminationState.Terminated != nil}
	if w := s.State.Waiting; w != nil {
		return waitingTrouble(t, s, w)
	}
	if x := s.State.Terminated; x != nil && x.ExitCode != 0 {
		t.rank = 2
		t.reason, t.text = exitText(s.Name, x)
		t.short = shortExit(x)
		return t
	}
	return nil
}

func waitingTrouble(t *trouble, s *corev1.ContainerStatus, w *corev1.ContainerStateWaiting) *trouble {
	message := oneLine(w.Message)
	switch {
	case imageReasons[w.Reason]:
		t.rank, t.reason = 0, ImagePull
		t.text = fmt.Sprintf("cannot pull %s (%s)", t.image, w.Reason)
		if why := pullCause(message); why != "" {
			t.text = fmt.Sprintf("cannot pull %s (%s: %s)", t.image, w.Reason, why)
		}
		t.short = w.Reason + ": " + t.image
	case w.Reason == "InvalidImageName" || w.Reason == "ErrImageNeverPull":
		t.rank, t.reason = 0, InvalidImage
		t.text = sentence(fmt.Sprintf("cannot use image %q", t.image), w.Reason, message)
		t.short = w.Reason + ": " + t.image
	case w.Reason == "CrashLoopBackOff":
		t.rank, t.reason = 1, CrashLoop
		t.short = "CrashLoopBackOff"
		t.text = fmt.Sprintf("container %s crashes again and again (CrashLoopBackOff, %s)", s.Name, restarts(s.RestartCount))
		if x := s.LastTerminationState.Terminated; x != nil {
			reason, text := exitText(s.Name, x)
			if reason == OOMKilled {
				t.reason = OOMKilled
			}
			t.text = fmt.Sprintf("%s (CrashLoopBackOff, %s)", text, restarts(s.RestartCount))
			t.short = "CrashLoopBackOff: " + shortExit(x)
		}
	case strings.HasSuffix(w.Reason, "Error"):
		t.rank, t.reason = 1, ContainerConfig
		t.text = sentence(fmt.Sprintf("container %s cannot be started", s.Name), w.Reason, message)
		t.short = w.Reason + ": " + message
	default:
		// ContainerCreating and PodInitializing are how every pod begins.
		return nil
	}
	return t
}

// notReady tells a pod that runs and is not ready from one that is only beginning: a container that has started and that its
// probe does not let through is a fact, and so is a readiness gate.
func notReady(pod *corev1.Pod) *trouble {
	if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
		return nil
	}
	for i := range pod.Status.ContainerStatuses {
		s := &pod.Status.ContainerStatuses[i]
		if s.State.Running != nil && !s.Ready {
			text := fmt.Sprintf("container %s runs but is not ready", s.Name)
			return &trouble{rank: 4, reason: NotReadyProbe, container: s.Name, image: specImage(pod, s), started: true,
				restarts: s.RestartCount, text: text, short: text}
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status != corev1.ConditionTrue && c.Reason != "" {
			text := sentence("the pod runs but is not ready", c.Reason, c.Message)
			return &trouble{rank: 4, reason: NotReadyProbe, text: text, short: text}
		}
	}
	return nil
}

func unschedulable(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			return c
		}
	}
	return nil
}

// exitText words the end of a container.
func exitText(container string, x *corev1.ContainerStateTerminated) (reason, text string) {
	if x.Reason == "OOMKilled" {
		return OOMKilled, fmt.Sprintf("container %s was killed because it used more memory than its limit (OOMKilled, exit code %d)", container, x.ExitCode)
	}
	text = fmt.Sprintf("container %s exited with code %d", container, x.ExitCode)
	if x.Signal != 0 {
		text += fmt.Sprintf(" on signal %d", x.Signal)
	}
	if message := oneLine(x.Message); message != "" {
		text += ": " + message
	} else if x.Reason != "" && x.Reason != "Error" && x.Reason != "Completed" {
		text += ": " + x.Reason
	}
	return ContainerExited, text
}

func shortExit(x *corev1.ContainerStateTerminated) string {
	if x.Reason == "OOMKilled" {
		return "OOMKilled"
	}
	return fmt.Sprintf("exit code %d", x.ExitCode)
}

func restarts(n int32) string {
	if n == 1 {
		return "1 restart"
	}
	return fmt.Sprintf("%d restarts", n)
}

// specImage is the image as the manifest names it. A status may hold a resolved name, which users don't recognise.
func specImage(pod *corev1.Pod, s *corev1.ContainerStatus) string {
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range containers {
			if c.Name == s.Name && c.Image != "" {
				return c.Image
			}
		}
	}
	return s.Image
}

// pullCause finds in a container runtime's message why an image could not be had; "" if it says nothing known. Texts of
// containerd, CRI-O and the registries' own error codes.
func pullCause(message string) string {
	m := strings.ToLower(message)
	for _, c := range []struct{ cause, words string }{
		{"not found or no access", "may require"},
		{"rate limit", "toomanyrequests|too many requests|rate limit"},
		{"not found", "not found|manifest unknown|manifest_unknown|name unknown|name_unknown|does not exist"},
		{"access denied", "unauthorized|access denied|denied|forbidden|authentication required|no basic auth"},
		{"wrong platform", "no match for platform|no matching manifest"},
		{"certificate not trusted", "x509"},
		{"registry unreachable", "no such host|connection refused|i/o timeout|tls handshake timeout|deadline exceeded|network is unreachable"},
		{"disk full", "no space left"},
	} {
		for w := range strings.SplitSeq(c.words, "|") {
			if strings.Contains(m, w) {
				return c.cause
			}
		}
	}
	return ""
}
