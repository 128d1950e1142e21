package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/flux"
)

// The stable codes of a diagnosis.
const (
	ImagePull       = "ImagePull"         // an image cannot be had
	InvalidImage    = "InvalidImage"      // an image's name is no name, or may not be pulled
	CrashLoop       = "CrashLoop"         // a container exits again and again
	ContainerExited = "ContainerExited"   // a container exited with a code that is not 0
	OOMKilled       = "OOMKilled"         // a container was killed for its memory
	ContainerConfig = "ContainerConfig"   // a container cannot be started as it is configured
	Unschedulable   = "Unschedulable"     // no node takes a pod
	NotReadyProbe   = "NotReadyProbe"     // a pod runs and does not become ready
	PodFailed       = "PodFailed"         // a pod ended as a whole, such as by eviction
	JobFailed       = "JobFailed"         // a Job failed and its pods say no more
	Quota           = "Quota"             // a quota or a limit range lets no pod be made
	Admission       = "Admission"         // the server refuses to make a pod
	PVCPending      = "PVCPending"        // a volume claim is not bound
	MountFailed     = "MountFailed"       // a volume cannot be mounted
	Deleting        = "Terminating"       // the object is being deleted
	Conditions      = "Conditions"        // the object's own conditions say why
	Missing         = "NotFound"          // the object does not exist
	NoSuchKind      = "KindNotServed"     // the cluster does not serve the kind
	Forbidden       = "Forbidden"         // the account may not read the object
	Unreachable     = "StatusUnknown"     // the object's status could not be read
	HasFailed       = "HealthCheckFailed" // the object has failed, and only the rule says why
	Timeout         = "Timeout"           // the time was up and nothing says why
)

const (
	// diagnoseLimit bounds what Diagnose may take: an answer that comes late keeps a failed job from ending.
	diagnoseLimit = 15 * time.Second
	// maxPods bounds how many pods are looked at for events.
	maxPods = 3
)

// Diagnosis is why an object is not ready.
type Diagnosis struct {
	// Reason is a stable code: one of this package's constants.
	Reason string
	// Text is one sentence without the object's name, such as "cannot pull ghcr.io/x/y:v1 (ImagePullBackOff)".
	Text string
	// Object is what the text is about: the pod, claim or ReplicaSet behind, or the object itself.
	Object flux.Ref
	// Container and Image are set where one container is the cause.
	Container, Image string
	// Events holds warnings about the object and what stands behind it, newest first, equal ones counted together.
	Events []Event
	// Logs holds the last lines of the container; LogsNote says which instance they are from, or why there are none.
	Logs     []string
	LogsNote string
	// Hint says what to do; it may be empty.
	Hint string
	// Notes says what could not be read, sorted.
	Notes []string
}

// Event is a warning event.
type Event struct {
	// Count is how often it was seen.
	Count           int
	Reason, Message string
}

// Diagnose finds out why an object is not ready: s is its status as Wait returned it, since the time from which on events
// matter, usually the start of the run. It reads the object, the pods behind it, warning events and logs, and takes at most 15
// seconds. It never fails; what could not be read is in the notes.
func Diagnose(ctx context.Context, c Clients, s Status, since time.Time) Diagnosis {
	ctx, cancel := context.WithTimeoutCause(ctx, diagnoseLimit, errors.New("the diagnosis took too long"))
	defer cancel()
	d := &diagnoser{clients: c, since: since, events: map[eventKey]*seenEvent{}}
	d.out.Object = s.Ref
	d.object(ctx, s)
	d.out.Events = d.sortedEvents()
	slices.Sort(d.out.Notes)
	d.out.Notes = slices.Compact(d.out.Notes)
	return d.out
}

type diagnoser struct {
	clients Clients
	since   time.Time
	events  map[eventKey]*seenEvent
	out     Diagnosis
}

func (d *diagnoser) note(what string, err error) {
	d.out.Notes = append(d.out.Notes, fmt.Sprintf("%s could not be read: %s", what, shortError(err)))
}

func (d *diagnoser) say(reason, text, hint string) {
	d.out.Reason, d.out.Text, d.out.Hint = reason, text, hint
}

func (d *diagnoser) object(ctx context.Context, s Status) {
	o, ok := d.read(ctx, s)
	if !ok {
		return
	}
	d.readEvents(ctx, o)
	if o.GetDeletionTimestamp() != nil {
		d.terminating(o)
		return
	}
	gk := o.GroupVersionKind().GroupKind()
	switch {
	case gk == podKind:
		if pod, err := asPod(o); err != nil {
			d.note("the pod", err)
		} else if d.pods(ctx, []*corev1.Pod{pod}) {
			return
		}
	case gk.Group == "" && gk.Kind == "PersistentVolumeClaim":
		d.claim(o)
		return
	default:
		if _, ok := podSelector(o); ok && d.workload(ctx, o, s) {
			return
		}
	}
	d.conditions(o, s)
}

// read gets the object. If it cannot, what it says is the diagnosis.
func (d *diagnoser) read(ctx context.Context, s Status) (*unstructured.Unstructured, bool) {
	m, err := resolve(ctx, d.clients.Mapper, s.Ref.GVK().GroupKind())
	if meta.IsNoMatchError(err) {
		d.say(NoSuchKind, fmt.Sprintf("the cluster does not serve kind %s of %s", s.Ref.Kind, apiGroup(s.Ref.GVK().GroupKind())),
			"apply the CustomResourceDefinition first: in the same Kustomization, or in one that this depends on")
		return nil, false
	}
	if err != nil {
		d.say(Unreachable, "the cluster could not be asked for kind "+s.Ref.Kind+": "+shortError(err), "")
		return nil, false
	}
	namespace, err := namespaceFor(m, s.Ref)
	var misnamed *misnamedError
	if errors.As(err, &misnamed) {
		d.say(Missing, "the kind is namespaced and no namespace is given", misnamed.Hint())
		return nil, false
	}
	o, err := newLister(d.clients, m, namespace, true).get(ctx, s.Ref.Name)
	switch {
	case err == nil:
		return o, true
	case apierrors.IsNotFound(err):
		d.say(Missing, "does not exist", missingHint(s.Ref))
	case apierrors.IsForbidden(err):
		d.say(Forbidden, "the account may not read it: "+shortError(err),
			fmt.Sprintf("grant get, list and watch on %s to the account that runs this", m.Resource.GroupResource()))
	default:
		d.say(Unreachable, "could not be read: "+shortError(err), "")
	}
	return nil, false
}

func missingHint(r flux.Ref) string {
	if r.Namespace == "" {
		return "see whether something deletes it, and whether its name in spec.healthChecks is the final one"
	}
	return "see whether something deletes it, and whether its name and namespace in spec.healthChecks are the final ones"
}

// terminating says what keeps an object from going away.
func (d *diagnoser) terminating(o *unstructured.Unstructured) {
	text := "is being deleted since " + o.GetDeletionTimestamp().UTC().Format(time.RFC3339)
	if f := o.GetFinalizers(); len(f) > 0 {
		text += "; waits for finalizers " + strings.Join(f, ", ")
	}
	for _, c := range conditionsOf(o) {
		if strings.HasPrefix(c.Type, "Namespace") && c.Status == corev1.ConditionTrue {
			text += "; " + oneLine(c.Message)
		}
	}
	d.say(Deleting, text, "let what handles its finalizers finish, or find out why it does not; then run again")
}

func (d *diagnoser) claim(o *unstructured.Unstructured) {
	phase := status.GetStringField(o.Object, ".status.phase", "unknown")
	class := "the default storage class"
	if name := status.GetStringField(o.Object, ".spec.storageClassName", ""); name != "" {
		class = "storage class " + name
	}
	d.say(PVCPending, fmt.Sprintf("the volume claim is not bound (phase %s, %s)", phase, class),
		"see that the storage class exists and has a provisioner; a class that waits for its first consumer binds only once a pod uses the claim")
}

// conditions falls back to what the object says of itself.
func (d *diagnoser) conditions(o *unstructured.Unstructured, s Status) {
	byType := map[string]status.BasicCondition{}
	for _, c := range conditionsOf(o) {
		byType[c.Type] = c
	}
	for _, c := range []struct {
		name string
		when corev1.ConditionStatus
	}{
		{"Stalled", corev1.ConditionTrue}, {"Failed", corev1.ConditionTrue}, {"NamesAccepted", corev1.ConditionFalse},
		{"ReplicaFailure", corev1.ConditionTrue}, {"Ready", corev1.ConditionFalse}, {"Ready", corev1.ConditionUnknown},
		{"Established", corev1.ConditionFalse}, {"Progressing", corev1.ConditionFalse}, {"Available", corev1.ConditionFalse},
		{"Reconciling", corev1.ConditionTrue},
	} {
		if have, ok := byType[c.name]; ok && have.Status == c.when {
			d.say(Conditions, sentence(fmt.Sprintf("condition %s is %s", c.name, c.when), have.Reason, have.Message), "")
			return
		}
	}
	reason, text := Timeout, "did not become ready in time"
	if s.Status == Failed {
		reason, text = HasFailed, "has failed" // by a rule or an expression of spec.healthCheckExprs: its message says which
	}
	if s.Err != nil {
		d.say(Unreachable, "its status could not be told: "+shortError(s.Err), "")
		return
	}
	if s.Message != "" {
		text += ": " + s.Message
	}
	d.say(reason, text, "")
}

func conditionsOf(o *unstructured.Unstructured) []status.BasicCondition {
	c, err := status.GetObjectWithConditions(o.Object)
	if err != nil {
		// Conditions of another shape say nothing that could be read here.
		return nil
	}
	return c.Status.Conditions
}

// list reads all objects of a resource in a namespace that match a selector; nil with a note if it cannot.
func (d *diagnoser) list(ctx context.Context, l lister, what, selector string) []*unstructured.Unstructured {
	var all []*unstructured.Unstructured
	o := metav1.ListOptions{LabelSelector: selector, Limit: pageSize}
	for {
		items, list, err := l.list(ctx, o)
		if err != nil {
			d.note(what, err)
			return nil
		}
		all = append(all, items...)
		if o.Continue = list.GetContinue(); o.Continue == "" {
			return all
		}
	}
}

func shortError(err error) string {
	var s apierrors.APIStatus
	if errors.As(err, &s) {
		return oneLine(s.Status().Message)
	}
	return oneLine(err.Error())
}

func refOf(kind, namespace, name string) flux.Ref {
	return flux.Ref{Version: "v1", Kind: kind, Namespace: namespace, Name: cmp.Or(name, "")}
}
