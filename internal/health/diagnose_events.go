package health

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

const (
	maxEvents   = 10
	logLines    = 20
	logBytes    = 64 << 10
	maxLogLine  = 400
	eventsSkew  = 5 * time.Second
	eventsPages = 2
)

type eventKey struct{ reason, message string }

type seenEvent struct {
	count int
	last  time.Time
}

// podName is how kubelets name a pod at the end of a message, which would make equal messages of several pods different.
var podName = regexp.MustCompile(`( in pod|restarting failed container=\S+ pod=)\s*[a-z0-9.-]+_[a-z0-9-]+\([0-9a-f-]+\)`)

func (d *diagnoser) readEvents(ctx context.Context, o *unstructured.Unstructured) {
	d.readEventsOf(ctx, o.GetNamespace(), o.GetUID())
}

// readEventsOf adds the warnings about one object that were seen since the run started. Events about cluster-scoped objects
// are in the namespace "default".
func (d *diagnoser) readEventsOf(ctx context.Context, namespace string, uid types.UID) {
	l := dynamicLister{d.clients.Dynamic.Resource(corev1.SchemeGroupVersion.WithResource("events")).Namespace(cmp.Or(namespace, metav1.NamespaceDefault))}
	o := metav1.ListOptions{Limit: pageSize, FieldSelector: fields.SelectorFromSet(fields.Set{"type": corev1.EventTypeWarning, "involvedObject.uid": string(uid)}).String()}
	for range eventsPages {
		items, list, err := l.list(ctx, o)
		if err != nil {
			d.note("events", err)
			return
		}
		for _, item := range items {
			e := &corev1.Event{}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, e); err != nil {
				d.note("an event", err)
				continue
			}
			d.addEvent(e)
		}
		if o.Continue = list.GetContinue(); o.Continue == "" {
			return
		}
	}
}

func (d *diagnoser) addEvent(e *corev1.Event) {
	count, last := int(e.Count), e.LastTimestamp.Time
	if e.Series != nil {
		count, last = int(e.Series.Count), e.Series.LastObservedTime.Time
	}
	for _, t := range []time.Time{e.EventTime.Time, e.FirstTimestamp.Time, e.CreationTimestamp.Time} {
		if last.IsZero() {
			last = t
		}
	}
	// The server's clock counts whole seconds, and is not this machine's.
	if last.Before(d.since.Add(-eventsSkew)) {
		return
	}
	key := eventKey{e.Reason, oneLine(podName.ReplaceAllString(e.Message, ""))}
	seen := d.events[key]
	if seen == nil {
		seen = &seenEvent{}
		d.events[key] = seen
	}
	seen.count += max(count, 1)
	if last.After(seen.last) {
		seen.last = last
	}
}

// newestEvent is the message of the newest warning with a reason; "" if there is none.
func (d *diagnoser) newestEvent(reason string) string {
	for _, e := range d.sortedEvents() {
		if e.Reason == reason {
			return e.Message
		}
	}
	return ""
}

func (d *diagnoser) sortedEvents() []Event {
	keys := make([]eventKey, 0, len(d.events))
	for k := range d.events {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b eventKey) int {
		return cmp.Or(d.events[b].last.Compare(d.events[a].last), cmp.Compare(a.reason, b.reason), cmp.Compare(a.message, b.message))
	})
	var out []Event
	for _, k := range keys[:min(len(keys), maxEvents)] {
		out = append(out, Event{Count: d.events[k].count, Reason: k.reason, Message: k.message})
	}
	return out
}

// readFirstLog reads the log of a pod whose trouble names no container.
func (d *diagnoser) readFirstLog(ctx context.Context, pod *corev1.Pod) {
	if len(pod.Spec.Containers) > 0 {
		d.readLog(ctx, pod, &trouble{container: pod.Spec.Containers[0].Name})
	}
}

// readLog reads the last lines of a container: of the instance that ended before this one if there was one, since that one
// knows why.
func (d *diagnoser) readLog(ctx context.Context, pod *corev1.Pod, t *trouble) {
	if d.clients.Logs == nil {
		d.out.LogsNote = "not read, logs are not available here"
		return
	}
	lines, bytes := int64(logLines), int64(logBytes)
	var failure error
	for _, previous := range []bool{true, false} {
		if previous && t.restarts == 0 {
			continue
		}
		got, err := d.logOf(ctx, pod, corev1.PodLogOptions{Container: t.container, Previous: previous, TailLines: &lines, LimitBytes: &bytes})
		if err != nil {
			failure = cmpErr(failure, err)
			continue
		}
		if len(got) == 0 {
			continue
		}
		d.out.Logs = got
		d.out.LogsNote = "container " + t.container
		if previous {
			d.out.LogsNote += fmt.Sprintf(", the instance before the last restart (%s)", restarts(t.restarts))
		}
		return
	}
	if failure != nil {
		d.out.LogsNote = fmt.Sprintf("not read, the cluster gives no log of container %s: %s", t.container, shortError(failure))
		return
	}
	d.out.LogsNote = fmt.Sprintf("none, container %s has written nothing", t.container)
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (d *diagnoser) logOf(ctx context.Context, pod *corev1.Pod, o corev1.PodLogOptions) (lines []string, err error) {
	r, err := d.clients.Logs.ContainerLog(ctx, pod.Namespace, pod.Name, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	scanner := bufio.NewScanner(io.LimitReader(r, logBytes))
	scanner.Buffer(nil, 2*logBytes)
	for scanner.Scan() {
		lines = append(lines, logLine(scanner.Text()))
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines[max(0, len(lines)-logLines):], nil
}

// escapes are terminal control sequences, which programs write into logs for colour.
var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(\x07|\x1b\\\\)")

// logLine makes a line fit to be shown anywhere: no control sequences, bounded, indentation kept.
func logLine(s string) string {
	s = escapes.ReplaceAllString(strings.ToValidUTF8(s, "�"), "")
	s = strings.TrimRight(strings.Map(printable, s), " ")
	if len(s) > maxLogLine {
		cut := maxLogLine
		for cut > 0 && s[cut]&0xC0 == 0x80 {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}
