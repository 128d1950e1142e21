package gate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
)

// firstGeneration is metadata.generation of every object here: nobody counts how
// often a spec in Git has changed.
const firstGeneration = 1

// Object is a Kustomization as it would stand in the cluster if Flux's controller
// ran it. It starts as the last run left it, and its methods do to the status
// what the controller does at that point. It is safe for concurrent use.
type Object struct {
	mu sync.Mutex
	k  kustomizev1.Kustomization
	// moment counts the states that expressions are to look at, and shown is
	// the last of them.
	moment   int
	shown    map[string]any
	shownErr error
}

// New returns the object of a Kustomization that has never run. The parent is the
// one whose build holds it, or nil: its owner labels and common metadata are on
// the object (S4.1, S1.9).
func New(k *flux.Kustomization, parent *flux.Kustomization) *Object {
	o := &Object{k: kustomizev1.Kustomization{
		TypeMeta: metav1.TypeMeta{APIVersion: kustomizev1.GroupVersion.String(), Kind: kustomizev1.KustomizationKind},
		ObjectMeta: metav1.ObjectMeta{Name: k.Name, Namespace: k.Namespace, Generation: firstGeneration,
			Labels: maps.Clone(k.Labels), Annotations: maps.Clone(k.Annotations)},
		Spec: *k.Spec.DeepCopy(),
	}}
	if parent != nil {
		owner := map[string]string{flux.NameLabel: parent.Name, flux.NamespaceLabel: parent.Namespace}
		o.k.Labels = merged(o.k.Labels, owner)
		if common := parent.Spec.CommonMetadata; common != nil {
			o.k.Labels = merged(o.k.Labels, common.Labels)
			o.k.Annotations = merged(o.k.Annotations, common.Annotations)
		}
	}
	o.k.Status.ObservedGeneration = -1 // the default of the definition
	o.show()
	return o
}

func merged(have, more map[string]string) map[string]string {
	if have == nil && len(more) > 0 {
		have = map[string]string{}
	}
	maps.Copy(have, more)
	return have
}

// Remember fills the status with what the record of the last run knows, if there
// was one. The text of a failure is not kept in it.
func (o *Object) Remember(record *inventory.Record) {
	if !record.Stored() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.show()
	s := &o.k.Status
	s.LastAppliedRevision, s.LastAppliedOriginRevision = record.Revision, record.OriginRevision
	s.LastAttemptedRevision = record.Revision
	s.History = record.Clone().History
	last := ""
	if newest := s.History.Latest(); newest != nil {
		last = newest.LastReconciledStatus
		s.LastAttemptedRevision = cmp.Or(newest.Metadata["revision"], s.LastAttemptedRevision)
	}
	s.Inventory = inventoryOf(record.Entries)
	if record.Revision != "" {
		s.ObservedGeneration = firstGeneration // it succeeded once
	}
	at := record.Updated
	switch record.Result {
	case inventory.Ready:
		o.set(at, meta.ReadyCondition, metav1.ConditionTrue, meta.ReconciliationSucceededReason, "Applied revision: "+record.Revision)
		if o.checksHealth() {
			o.set(at, meta.HealthyCondition, metav1.ConditionTrue, meta.SucceededReason, "Health check passed")
		}
	case inventory.Unhealthy:
		o.fail(at, meta.HealthCheckFailedReason, "health check failed in the last run")
	case inventory.Failed:
		reason := meta.ReconciliationFailedReason
		if last == inventory.StatusPruneFailed {
			reason = meta.PruneFailedReason
		}
		o.fail(at, reason, "the last run failed")
	default: // cut off: what a controller leaves that was killed
		o.progress(at, "Reconciliation in progress")
	}
}

// Started notes that its turn, or another attempt, has come. This is no state
// to look at: nothing has happened yet, and an expression that were true now would
// be so by chance of what ran first.
func (o *Object) Started(revision string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.k.Status.LastAttemptedRevision = revision
	o.progress(time.Now(), fmt.Sprintf("Detecting drift for revision %s with a timeout of %s", revision, o.k.GetTimeout()))
}

// Applied notes that all its objects are in the cluster. Waits says that health
// is waited for now.
func (o *Object) Applied(revision string, entries []inventory.Entry, waits bool) {
	o.change(func(now time.Time) {
		o.k.Status.Inventory = inventoryOf(entries)
		if !waits {
			o.drop(meta.HealthyCondition)
			return
		}
		text := fmt.Sprintf("Running health checks for revision %s with a timeout of %s", revision, o.k.GetTimeout())
		o.progress(now, text)
		o.set(now, meta.HealthyCondition, metav1.ConditionUnknown, meta.ProgressingReason, text)
	})
}

// Succeeded notes that it is ready.
func (o *Object) Succeeded(revision string, waited time.Duration) {
	o.change(func(now time.Time) {
		s := &o.k.Status
		s.LastAppliedRevision, s.ObservedGeneration = revision, firstGeneration
		o.drop(meta.ReconcilingCondition)
		o.drop(meta.StalledCondition)
		o.set(now, meta.ReadyCondition, metav1.ConditionTrue, meta.ReconciliationSucceededReason, "Applied revision: "+revision)
		if o.condition(meta.HealthyCondition) != nil {
			o.set(now, meta.HealthyCondition, metav1.ConditionTrue, meta.SucceededReason, "Health check passed in "+waited.String())
		}
	})
}

// Failed notes that an attempt failed, for one of Flux's reasons of the
// condition Ready (S9.2).
func (o *Object) Failed(reason, text string) {
	o.change(func(now time.Time) { o.fail(now, reason, text) })
}

// Attempted adds an attempt that reached the cluster to the history (S1.15). It
// shows with the next state.
func (o *Object) Attempted(digest string, took time.Duration, status, revision string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.k.Status.History.Upsert(digest, time.Now(), took, status, map[string]string{"revision": revision})
}

// Moment counts the states that there were for expressions to look at: each time
// it was applied, an attempt failed, or it came to its end. It is 0 while all is
// as the last run left it.
func (o *Object) Moment() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.moment
}

// State describes the status for people: the conditions in their order.
func (o *Object) State() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := ""
	for _, c := range o.k.Status.Conditions {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%s=%s (%s)", c.Type, c.Status, c.Reason)
	}
	return cmp.Or(text, "no conditions: it has never run")
}

// content is the object as expressions see it. The caller must not change it.
func (o *Object) content() (map[string]any, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.shown, o.shownErr
}

func (o *Object) change(do func(now time.Time)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	do(time.Now())
	o.moment++
	o.show()
}

func (o *Object) show() {
	o.shown, o.shownErr = runtime.DefaultUnstructuredConverter.ToUnstructured(&o.k)
}

// checksHealth says whether the spec asks for health checks, which is when Flux
// keeps the condition Healthy (S9.1).
func (o *Object) checksHealth() bool { return o.k.Spec.Wait || len(o.k.Spec.HealthChecks) > 0 }

func (o *Object) progress(at time.Time, text string) {
	o.drop(meta.StalledCondition)
	o.set(at, meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingReason, text)
	o.set(at, meta.ReadyCondition, metav1.ConditionUnknown, meta.ProgressingReason, "Reconciliation in progress")
}

func (o *Object) fail(at time.Time, reason, text string) {
	o.set(at, meta.ReadyCondition, metav1.ConditionFalse, reason, text)
	if reason == meta.HealthCheckFailedReason {
		o.set(at, meta.HealthyCondition, metav1.ConditionFalse, reason, text)
	}
	if c := o.condition(meta.ReconcilingCondition); c != nil {
		o.set(at, c.Type, c.Status, meta.ProgressingWithRetryReason, c.Message)
	}
}

func (o *Object) condition(kind string) *metav1.Condition {
	i := slices.IndexFunc(o.k.Status.Conditions, func(c metav1.Condition) bool { return c.Type == kind })
	if i < 0 {
		return nil
	}
	return &o.k.Status.Conditions[i]
}

func (o *Object) drop(kind string) {
	o.k.Status.Conditions = slices.DeleteFunc(o.k.Status.Conditions, func(c metav1.Condition) bool { return c.Type == kind })
}

// set writes a condition. Its transition time moves when anything of it but the
// generation changes, and the list is kept in Flux's order, since expressions may
// count on it: Stalled, Reconciling, Ready, then the others by name.
func (o *Object) set(at time.Time, kind string, status metav1.ConditionStatus, reason, text string) {
	c := metav1.Condition{Type: kind, Status: status, Reason: reason, Message: text, ObservedGeneration: o.k.Generation,
		LastTransitionTime: metav1.NewTime(at.UTC().Truncate(time.Second))}
	if have := o.condition(kind); have != nil {
		if have.Status == c.Status && have.Reason == c.Reason && have.Message == c.Message {
			c.LastTransitionTime = have.LastTransitionTime
		}
		*have = c
		return
	}
	o.k.Status.Conditions = append(o.k.Status.Conditions, c)
	slices.SortFunc(o.k.Status.Conditions, func(a, b metav1.Condition) int {
		return cmp.Or(cmp.Compare(rank(a.Type), rank(b.Type)), cmp.Compare(a.Type, b.Type))
	})
}

func rank(kind string) int {
	if i := slices.Index([]string{meta.StalledCondition, meta.ReconcilingCondition, meta.ReadyCondition}, kind); i >= 0 {
		return i
	}
	return 3
}

func inventoryOf(entries []inventory.Entry) *kustomizev1.ResourceInventory {
	all := &kustomizev1.ResourceInventory{Entries: []kustomizev1.ResourceRef{}}
	for _, e := range entries {
		all.Entries = append(all.Entries, kustomizev1.ResourceRef{ID: e.ID, Version: e.Version})
	}
	return all
}
