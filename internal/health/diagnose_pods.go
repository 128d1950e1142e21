package health

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluicerun/sluice/internal/flux"
)

// replicaSetRevision is where a Deployment numbers its ReplicaSets.
const replicaSetRevision = "deployment.kubernetes.io/revision"

// workload looks for the cause behind a workload: in its pods, else in why there are none. It returns false if neither says
// anything.
func (d *diagnoser) workload(ctx context.Context, o *unstructured.Unstructured, s Status) bool {
	selector, _ := podSelector(o)
	owner := o
	gk := o.GroupVersionKind().GroupKind()
	if gk == (schema.GroupKind{Group: "apps", Kind: "Deployment"}) {
		l := dynamicLister{d.clients.Dynamic.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}).Namespace(o.GetNamespace())}
		newest := newestReplicaSet(ownedBy(d.list(ctx, l, "the ReplicaSets", selector.String()), o.GetUID()))
		if newest != nil {
			owner = newest
			d.readEvents(ctx, owner)
		}
	}
	l := dynamicLister{d.clients.Dynamic.Resource(podResource).Namespace(o.GetNamespace())}
	all := d.list(ctx, l, "the pods", selector.String())
	var behind, others []*corev1.Pod
	for _, u := range all {
		pod, err := asPod(u)
		if err != nil {
			d.note("a pod", err)
			continue
		}
		// Without the ReplicaSet's name, which an account may not be allowed to read, every pod that matches counts.
		if owner != o || gk.Kind != "Deployment" {
			if !metav1.IsControlledBy(pod, owner) {
				others = append(others, pod)
				continue
			}
		}
		behind = append(behind, pod)
	}
	if d.pods(ctx, behind) {
		d.afterPods(o, gk, behind, others)
		return true
	}
	return d.noPods(o, owner, s)
}

// afterPods adds what only the workload shows: whether older pods still serve, and a StatefulSet that cannot help itself.
func (d *diagnoser) afterPods(o *unstructured.Unstructured, gk schema.GroupKind, behind, others []*corev1.Pod) {
	if gk.Kind == "Deployment" && slices.ContainsFunc(others, serves) {
		d.out.LogsNote = strings.TrimPrefix(d.out.LogsNote+"; the old pods still serve", "; ")
	}
	if gk.Kind != "StatefulSet" {
		return
	}
	policy, _, _ := unstructured.NestedString(o.Object, "spec", "podManagementPolicy")
	revision, _, _ := unstructured.NestedString(o.Object, "status", "updateRevision")
	for _, p := range behind {
		if p.Name == d.out.Object.Name && policy != "Parallel" && revision != "" && p.Labels[revisionLabel] != revision {
			d.out.Hint = fmt.Sprintf("a StatefulSet does not replace a pod that never became ready: delete pod %s, which is of the older revision", p.Name)
		}
	}
}

func serves(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	}) && p.DeletionTimestamp == nil
}

func ownedBy(all []*unstructured.Unstructured, owner types.UID) []*unstructured.Unstructured {
	return slices.DeleteFunc(all, func(o *unstructured.Unstructured) bool {
		c := metav1.GetControllerOf(o)
		return c == nil || c.UID != owner
	})
}

func newestReplicaSet(sets []*unstructured.Unstructured) *unstructured.Unstructured {
	if len(sets) == 0 {
		return nil
	}
	return slices.MaxFunc(sets, func(a, b *unstructured.Unstructured) int {
		// A ReplicaSet whose revision is no number is older than any that has one.
		ra, _ := strconv.Atoi(a.GetAnnotations()[replicaSetRevision])
		rb, _ := strconv.Atoi(b.GetAnnotations()[replicaSetRevision])
		return cmp.Or(cmp.Compare(ra, rb), a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time), cmp.Compare(a.GetName(), b.GetName()))
	})
}

// pods names the pod that explains most, with its container's log. It returns false if no pod is in trouble.
func (d *diagnoser) pods(ctx context.Context, pods []*corev1.Pod) bool {
	type candidate struct {
		pod *corev1.Pod
		t   *trouble
	}
	var found []candidate
	for _, p := range pods {
		if p.DeletionTimestamp != nil {
			continue
		}
		if t := findTrouble(p); t != nil {
			found = append(found, candidate{p, t})
		}
	}
	// What is plainly broken explains more than what is only not ready; among equals the newest pod is what this run made.
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.t.rank, b.t.rank), b.pod.CreationTimestamp.Compare(a.pod.CreationTimestamp.Time),
			cmp.Compare(a.pod.Name, b.pod.Name))
	})
	for i, f := range found {
		if i < maxPods {
			d.readEventsOf(ctx, f.pod.Namespace, f.pod.UID)
		}
	}
	if len(found) == 0 {
		return d.startingPods(ctx, pods)
	}
	pod, t := found[0].pod, found[0].t
	d.out.Object = refOf("Pod", pod.Namespace, pod.Name)
	d.out.Container, d.out.Image = t.container, t.image
	text := t.text
	if t.reason == PVCPending {
		text += d.unboundClaims(ctx, pod)
	}
	if t.reason == NotReadyProbe {
		if e := d.newestEvent("Unhealthy"); e != "" {
			text += ": " + e
		}
	}
	d.say(t.reason, text, podHint(pod, t))
	switch {
	case t.container == "":
		d.out.LogsNote = "none, no container of the pod has started"
		if t.reason == NotReadyProbe || t.reason == PodFailed {
			d.readFirstLog(ctx, pod)
		}
	case !t.started:
		d.out.LogsNote = "none, the container never started"
	default:
		d.readLog(ctx, pod, t)
	}
	return true
}

// unboundClaims names the claims that a pod waits for, and reads the warnings about them.
func (d *diagnoser) unboundClaims(ctx context.Context, pod *corev1.Pod) string {
	l := dynamicLister{d.clients.Dynamic.Resource(corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims")).Namespace(pod.Namespace)}
	var unbound []string
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		name := v.PersistentVolumeClaim.ClaimName
		claim, err := l.get(ctx, name)
		switch {
		case apierrors.IsNotFound(err):
			unbound = append(unbound, name+" (does not exist)")
		case err != nil:
			d.note("claim "+name, err)
		default:
			if phase, _, _ := unstructured.NestedString(claim.Object, "status", "phase"); phase != "Bound" {
				unbound = append(unbound, fmt.Sprintf("%s (%s)", name, phase))
				d.readEvents(ctx, claim)
			}
		}
	}
	if len(unbound) == 0 {
		return ""
	}
	return "; waits for claim " + strings.Join(unbound, ", ")
}

// startingPods looks at pods that are only slow: a container that is being created for long has a reason in its events.
func (d *diagnoser) startingPods(ctx context.Context, pods []*corev1.Pod) bool {
	n := 0
	for _, p := range pods {
		if p.Status.Phase != corev1.PodPending || p.DeletionTimestamp != nil || n == maxPods {
			continue
		}
		n++
		d.readEventsOf(ctx, p.Namespace, p.UID)
		for _, reason := range []string{"FailedMount", "FailedAttachVolume"} {
			if e := d.newestEvent(reason); e != "" {
				d.out.Object = refOf("Pod", p.Namespace, p.Name)
				d.out.LogsNote = "none, no container of the pod has started"
				d.say(MountFailed, "a volume cannot be mounted: "+e, "see that the ConfigMap, Secret or claim which the pod mounts exists in namespace "+p.Namespace)
				return true
			}
		}
		if e := d.newestEvent("FailedCreatePodSandBox"); e != "" {
			d.out.Object = refOf("Pod", p.Namespace, p.Name)
			d.out.LogsNote = "none, no container of the pod has started"
			d.say(ContainerConfig, "the pod cannot be started: "+e, "see the node's container runtime and network")
			return true
		}
	}
	return false
}

func podHint(pod *corev1.Pod, t *trouble) string {
	switch t.reason {
	case ImagePull:
		switch {
		case strings.Contains(t.text, "access denied"):
			return fmt.Sprintf("give the pod's ServiceAccount in namespace %s an imagePullSecret that may pull it", pod.Namespace)
		case strings.Contains(t.text, "not found"):
			return "push that tag, or deploy one that exists"
		}
		return "see that the tag exists and that the cluster may pull it"
	case InvalidImage:
		return "correct the image's name; a variable that was not set may have left it incomplete"
	case OOMKilled:
		return fmt.Sprintf("raise the memory limit of container %s, or have it use less", t.container)
	case Unschedulable:
		return "free or add nodes, or lower what the pod requests"
	case PVCPending:
		return "see why the claim is not bound: its storage class, its size, its access mode"
	case ContainerConfig:
		return "see that the ConfigMaps and Secrets which the container names exist in namespace " + pod.Namespace
	case NotReadyProbe:
		return "see what the readiness probe asks, and what the container answers"
	}
	return ""
}

// noPods explains a workload that has no pod in trouble: the server lets none be made, or a condition says why.
func (d *diagnoser) noPods(o, owner *unstructured.Unstructured, s Status) bool {
	message := ""
	for _, u := range []*unstructured.Unstructured{owner, o} {
		for _, c := range conditionsOf(u) {
			if c.Type == "ReplicaFailure" && c.Status == corev1.ConditionTrue && message == "" {
				message = oneLine(c.Message)
			}
		}
	}
	if message == "" {
		message = d.newestEvent("FailedCreate")
	}
	if message != "" {
		d.out.Object = flux.RefOf(owner)
		d.out.LogsNote = "none, there is no pod"
		reason, hint := refusal(message)
		d.say(reason, "no pod can be made: "+message, hint)
		return true
	}
	if isJob(o.GroupVersionKind().GroupKind()) {
		for _, c := range conditionsOf(o) {
			if c.Type == "Failed" && c.Status == corev1.ConditionTrue {
				d.out.LogsNote = "none, the Job's pods are gone"
				text := sentence("the Job has failed", c.Reason, c.Message)
				if strings.HasPrefix(s.Message, text) {
					// The wait saw the pods before they went.
					text = s.Message
				}
				d.say(JobFailed, text, "set restartPolicy: Never in the Job's pod template to keep failed pods and their logs")
				return true
			}
		}
	}
	return false
}

// refusal tells what kind of refusal the API server's words are.
func refusal(message string) (reason, hint string) {
	m := strings.ToLower(message)
	switch {
	case strings.Contains(m, "exceeded quota"), strings.Contains(m, "failed quota"), strings.Contains(m, "limitrange"),
		strings.Contains(m, "minimum memory usage"), strings.Contains(m, "maximum memory usage"), strings.Contains(m, "maximum cpu usage"):
		return Quota, "raise the namespace's quota, or request less"
	case strings.Contains(m, "serviceaccount") && strings.Contains(m, "not found"):
		return Admission, "apply the ServiceAccount that the pods name"
	}
	return Admission, "make the pod template fit what the cluster's admission asks for"
}
