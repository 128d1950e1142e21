package health

import (
	"context"
	"fmt"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// evaluate says what an object's own content says of its status (S6.20 to S6.45). pods are those behind it, where they are
// known; nil where they are not.
func evaluate(ctx context.Context, t Target, o *unstructured.Unstructured, pods map[string]podState) Status {
	gk := o.GroupVersionKind().GroupKind()
	s := Status{Ref: t.Ref}
	var result *status.Result
	var err error
	switch {
	case isJob(gk):
		result, err = jobStatus(o)
	case t.Expr != nil:
		result, err = t.Expr.Evaluate(ctx, o)
	default:
		result, err = status.Compute(o)
	}
	if err != nil {
		s.Status, s.Err = Unknown, err
		return s
	}
	s.Status, s.Message = string(result.Status), result.Message
	if t.Expr != nil && !isJob(gk) {
		return s
	}
	if s.Status == InProgress {
		if text := progress(gk, o); text != "" {
			s.Message = text
		}
		if n := failedPods(gk, o, pods); n > 0 {
			s.Status, s.Message = Failed, fmt.Sprintf("%d pods have failed", n)
			if n == 1 {
				s.Message = "1 pod has failed"
			}
		}
	}
	if s.Status == InProgress || s.Status == Failed {
		if trouble := podTrouble(pods); trouble != "" {
			s.Message += "; " + trouble
		}
	}
	return s
}

// jobStatus is Flux's own rule for Jobs (S6.31): a Job must finish. kstatus would call a running one Current.
func jobStatus(o *unstructured.Unstructured) (*status.Result, error) {
	if suspended, _, err := unstructured.NestedBool(o.Object, "spec", "suspend"); err != nil {
		return nil, err
	} else if suspended {
		return &status.Result{Status: status.CurrentStatus, Message: "the Job is suspended"}, nil
	}
	withConditions, err := status.GetObjectWithConditions(o.Object)
	if err != nil {
		return nil, err
	}
	for _, c := range withConditions.Status.Conditions {
		if c.Status != "True" {
			continue
		}
		switch c.Type {
		case "Complete":
			return &status.Result{Status: status.CurrentStatus, Message: "the Job is complete"}, nil
		case "Failed":
			return &status.Result{Status: status.FailedStatus, Message: sentence("the Job has failed", c.Reason, c.Message)}, nil
		}
	}
	return &status.Result{Status: status.InProgressStatus, Message: "the Job has not started"}, nil
}

// failedPods counts the pods that fail a StatefulSet or ReplicaSet while it is not Current (S6.24). Pods of an older revision
// are not counted: the change that is waited for is what replaces them. Before the controller has seen that change, nobody can
// tell which pods are old, so none counts.
func failedPods(gk schema.GroupKind, o *unstructured.Unstructured, pods map[string]podState) int {
	revision := ""
	switch gk {
	case schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}:
	case schema.GroupKind{Group: "apps", Kind: "StatefulSet"}:
		if !observed(o) {
			return 0
		}
		revision = status.GetStringField(o.Object, ".status.updateRevision", "")
	default:
		return 0
	}
	n := 0
	for _, p := range pods {
		if p.failed && !p.deleted && !p.unschedulable && (revision == "" || p.revision == "" || p.revision == revision) {
			n++
		}
	}
	return n
}

func observed(o *unstructured.Unstructured) bool {
	seen, found, err := unstructured.NestedInt64(o.Object, "status", "observedGeneration")
	return err == nil && found && seen == o.GetGeneration()
}

// progress words how far a workload is, for the kinds that count pods; "" leaves kstatus' own message.
func progress(gk schema.GroupKind, o *unstructured.Unstructured) string {
	count := func(field string) int { return status.GetIntField(o.Object, ".status."+field, 0) }
	if isJob(gk) {
		if status.GetStringField(o.Object, ".status.startTime", "") == "" {
			return ""
		}
		parallel := status.GetIntField(o.Object, ".spec.parallelism", 1)
		text := fmt.Sprintf("%d of %s finished", count("succeeded"),
			pods(status.GetIntField(o.Object, ".spec.completions", parallel)))
		if failed := count("failed"); failed > 0 {
			text += fmt.Sprintf(", %d failed", failed)
		}
		return text
	}
	if gk.Group != "apps" || !observed(o) {
		return ""
	}
	want, updated, ready, available, total := status.GetIntField(o.Object, ".spec.replicas", 1),
		count("updatedReplicas"), count("readyReplicas"), count("availableReplicas"), count("replicas")
	switch gk.Kind {
	case "Deployment":
	case "StatefulSet":
		if status.GetStringField(o.Object, ".status.currentRevision", "") == status.GetStringField(o.Object, ".status.updateRevision", "") {
			// Once the controller has moved the current revision on, it no longer counts updated pods.
			updated = total
		}
		if partition := status.GetIntField(o.Object, ".spec.updateStrategy.rollingUpdate.partition", 0); partition > 0 && updated >= want-partition {
			updated = want
		}
		available = ready
	case "DaemonSet":
		want, updated, ready, available, total = count("desiredNumberScheduled"), count("updatedNumberScheduled"),
			count("numberReady"), count("numberAvailable"), count("currentNumberScheduled")
	default:
		return ""
	}
	switch {
	case total < want:
		return fmt.Sprintf("%d of %s created", total, pods(want))
	case updated < want:
		return fmt.Sprintf("%d of %s updated", updated, pods(want))
	case total > want:
		return fmt.Sprintf("%s to be removed", pods(total-want))
	case ready < want:
		return fmt.Sprintf("%d of %s ready", ready, pods(want))
	case available < want:
		return fmt.Sprintf("%d of %s available", available, pods(want))
	}
	return ""
}

func pods(n int) string {
	if n == 1 {
		return "1 pod"
	}
	return fmt.Sprintf("%d pods", n)
}

// sentence joins a lead with a condition's reason and message, leaving out what is empty or said already.
func sentence(lead, reason, message string) string {
	message = strings.TrimRight(oneLine(message), ".")
	switch {
	case message == "" && reason == "":
		return lead
	case message == "":
		return lead + ": " + reason
	case reason == "" || strings.Contains(message, reason):
		return lead + ": " + message
	}
	return lead + ": " + message + " (" + reason + ")"
}

// maxText bounds every text that comes from the cluster; a longer one is a dump, not a message.
const maxText = 500

// oneLine makes a text from the cluster fit to stand in one line: white space collapsed, control characters gone, bounded.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.Map(printable, strings.ToValidUTF8(s, "�"))), " ")
	if len(s) <= maxText {
		return s
	}
	cut := maxText
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut] + "…"
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
		return ' '
	}
	return r
}
