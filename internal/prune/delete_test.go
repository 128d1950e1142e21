package prune

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
)

func TestDeleteInReverseOrder(t *testing.T) {
	c := newCluster(t)
	refs := c.create(configMap("a", "") + "\n---\n" + configMap("b", "") + `
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: a, namespace: NS}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: NS}
spec: {ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: a, namespace: NS}
spec:
  replicas: 0
  selector: {matchLabels: {app: a}}
  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: a}]}}`)
	s := &spy{WithWatch: c.client}
	var told []Result
	results, err := Delete(t.Context(), []Deletion{c.deletion(refs...)}, Options{Client: as(s), Report: func(r Result) { told = append(told, r) }})
	must(t, err)
	want := "deleted Deployment/a\ndeleted Service/a\ndeleted ConfigMap/b\ndeleted ConfigMap/a\ndeleted ServiceAccount/a\n"
	if got := outcomes(results); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := outcomes(told); got != want {
		t.Errorf("reported\n%s", got)
	}
	// S5.7. The Deployment changes while its controller is at work, which costs further tries.
	s.deleted = slices.Compact(s.deleted)
	if want := []string{"Deployment", "Service", "ConfigMap", "ServiceAccount"}; !slices.Equal(s.deleted, want) {
		t.Errorf("deleted %v, want %v", s.deleted, want)
	}
	for _, o := range s.options {
		// S5.10
		if *o.PropagationPolicy != metav1.DeletePropagationBackground || o.Preconditions.UID == nil {
			t.Errorf("deleted with %+v", o)
		}
	}
	for _, ref := range refs {
		if c.exists(ref) {
			t.Errorf("%s is still there", ref)
		}
	}
}

func TestWhatDeleteLeavesAlone(t *testing.T) {
	for _, tt := range []struct {
		name, metadata, want string
	}{
		{"S5.8 no owner labels", "  labels: {kustomize.toolkit.fluxcd.io/name: ''}", "kept ConfigMap/x: it does not carry the owner labels\n"},
		{"S5.8 one owner label", "  labels: {kustomize.toolkit.fluxcd.io/name: apps}", "kept ConfigMap/x: it does not carry the owner labels\n"},
		{"S5.8 another owner", "  labels: {kustomize.toolkit.fluxcd.io/name: web, kustomize.toolkit.fluxcd.io/namespace: flux-system}",
			`kept ConfigMap/x: its owner labels name Kustomization "flux-system/web"` + "\n"},
		{"S5.9 prune, any case", "  annotations: {kustomize.toolkit.fluxcd.io/prune: DisAbled}", "kept ConfigMap/x: it is marked kustomize.toolkit.fluxcd.io/prune: disabled\n"},
		{"S5.9 prune as a label", "  labels: {kustomize.toolkit.fluxcd.io/prune: disabled, kustomize.toolkit.fluxcd.io/name: apps, kustomize.toolkit.fluxcd.io/namespace: flux-system}",
			"kept ConfigMap/x: it is marked kustomize.toolkit.fluxcd.io/prune: disabled\n"},
		{"S5.9 reconcile", "  annotations: {kustomize.toolkit.fluxcd.io/reconcile: disabled}", "kept ConfigMap/x: it is marked kustomize.toolkit.fluxcd.io/reconcile: disabled\n"},
		{"S5.9 ssa Ignore", "  annotations: {kustomize.toolkit.fluxcd.io/ssa: Ignore}", "kept ConfigMap/x: it is marked kustomize.toolkit.fluxcd.io/ssa: ignore\n"},
		{"S5.9 ssa IfNotPresent does not protect", "  annotations: {kustomize.toolkit.fluxcd.io/ssa: IfNotPresent}", "deleted ConfigMap/x\n"},
		{"S5.9 ssa Merge does not protect", "  annotations: {kustomize.toolkit.fluxcd.io/ssa: Merge}", "deleted ConfigMap/x\n"},
		{"S16.3 part of Flux", "  labels: {app.kubernetes.io/part-of: flux, kustomize.toolkit.fluxcd.io/name: apps, kustomize.toolkit.fluxcd.io/namespace: flux-system}",
			"kept ConfigMap/x: it is part of Flux\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			refs := c.create(configMap("x", tt.metadata))
			results, err := Delete(t.Context(), []Deletion{c.deletion(refs...)}, Options{Client: as(c.client)})
			must(t, err)
			if got := outcomes(results); got != tt.want {
				t.Errorf("got %swant %s", got, tt.want)
			}
			if !results[0].Settled() {
				t.Error("S5.13: it is not settled")
			}
			if c.exists(refs[0]) != strings.HasPrefix(tt.want, "kept") {
				t.Error("the cluster says otherwise")
			}
			// Check says the same before.
			refs = c.create(configMap("z", tt.metadata))
			f, err := Check(t.Context(), accessTo(c.client, served(t)), c.plan(nil, refs), Guards{AllowEmpty: true})
			must(t, err)
			if kept := strings.HasPrefix(tt.want, "kept"); (len(f.Kept) == 1) != kept || (len(f.Doomed) == 1) == kept {
				t.Errorf("Check found %+v", f)
			}
		})
	}
}

func TestS5_8_MissingObjectsCountAsDeleted(t *testing.T) {
	c := newCluster(t)
	missing := flux.Ref{Version: "v1", Kind: "ConfigMap", Namespace: c.namespace, Name: "missing"}
	elsewhere := flux.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "no-such-namespace", Name: "missing"}
	results, err := Delete(t.Context(), []Deletion{c.deletion(missing, elsewhere)}, Options{Client: as(c.client)})
	must(t, err)
	for _, r := range results {
		if r.Outcome != Gone || !r.Settled() {
			t.Errorf("got %s", outcomes(results))
		}
	}
}

func TestAnotherVersionIsFound(t *testing.T) {
	c := newCluster(t)
	refs := c.create(configMap("x", ""))
	refs[0].Version = "v1beta7"
	results, err := Delete(t.Context(), []Deletion{c.deletion(refs...)}, Options{Client: as(c.client)})
	must(t, err)
	if got := outcomes(results); got != "deleted ConfigMap/x\n" {
		t.Errorf("got %s", got)
	}
}

func TestS5_11_KindThatIsGone(t *testing.T) {
	c := newCluster(t)
	gone := flux.Ref{Group: "gone.example.com", Version: "v1", Kind: "Widget", Namespace: c.namespace, Name: "x"}
	results, err := Delete(t.Context(), []Deletion{c.deletion(gone)}, Options{Client: as(c.client)})
	must(t, err)
	if got, want := outcomes(results), "gone Widget/x: the cluster no longer has the kind Widget of API group \"gone.example.com\"\n"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestS5_11_KindWhoseServerDoesNotAnswer(t *testing.T) {
	c := newCluster(t)
	group := c.namespace + ".example.com"
	c.create(`apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.` + group + `}
spec: {group: ` + group + `, version: v1, groupPriorityMinimum: 1, versionPriority: 1, insecureSkipTLSVerify: true, service: {name: none, namespace: NS}}`)
	ref := flux.Ref{Group: group, Version: "v1", Kind: "Widget", Namespace: c.namespace, Name: "x"}
	results, err := Delete(t.Context(), []Deletion{c.deletion(ref)}, Options{Client: as(connect(t, ""))})
	if err == nil || results[0].Outcome != Failed || results[0].Settled() {
		t.Fatalf("got %v, %s", err, outcomes(results))
	}
}

func TestObjectMadeAnewIsNotHit(t *testing.T) {
	c := newCluster(t)
	refs := c.create(configMap("x", ""))
	var once sync.Once
	s := &spy{WithWatch: c.client, before: func(client.Object) {
		once.Do(func() {
			must(t, c.client.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "x"}}))
			c.create(configMap("x", ""))
		})
	}}
	results, err := Delete(t.Context(), []Deletion{c.deletion(refs...)}, Options{Client: as(s)})
	if err == nil || !strings.Contains(err.Error(), "ConfigMap/"+c.namespace+"/x was made anew") || results[0].Outcome != Failed {
		t.Errorf("got %v", err)
	}
	if !c.exists(refs[0]) {
		t.Error("the new object was deleted")
	}
}

func TestS5_15_ObjectTakenOverAtTheLastMomentIsNotHit(t *testing.T) {
	c := newCluster(t)
	refs := c.create(configMap("x", ""))
	s := &spy{WithWatch: c.client, before: func(client.Object) {
		var cm corev1.ConfigMap
		must(t, c.client.Get(t.Context(), client.ObjectKey{Namespace: c.namespace, Name: "x"}, &cm))
		cm.Labels[flux.NameLabel] = "web"
		must(t, c.client.Update(t.Context(), &cm))
	}}
	results, err := Delete(t.Context(), []Deletion{c.deletion(refs...)}, Options{Client: as(s)})
	must(t, err)
	if got, want := outcomes(results), "kept ConfigMap/x: its owner labels name Kustomization \"flux-system/web\"\n"; got != want || !c.exists(refs[0]) {
		t.Errorf("got %s", got)
	}
}

func TestObjectThatNeverRestsIsDeleted(t *testing.T) {
	c := newCluster(t)
	refs := c.create(configMap("x", ""))
	n := 0
	s := &spy{WithWatch: c.client, before: func(client.Object) {
		var cm corev1.ConfigMap
		must(t, c.client.Get(t.Context(), client.ObjectKey{Namespace: c.namespace, Name: "x"}, &cm))
		n++
		cm.Data = map[string]string{"n": fmt.Sprint(n)}
		must(t, c.client.Update(t.Context(), &cm))
	}}
	results, err := Delete(t.Context(), []Deletion{c.deletion(refs...)}, Options{Client: as(s)})
	must(t, err)
	if got := outcomes(results); got != "deleted ConfigMap/x\n" || n != tries {
		t.Errorf("got %s after %d tries", got, n)
	}
}

func TestS5_12_FailuresStayTrackedAndTheOthersGoOn(t *testing.T) {
	c := newCluster(t)
	refs := c.create(configMap("keep", "") + "\n---\n" + configMap("a", "") + "\n---\n" + configMap("b", ""))
	p := c.plan(refs[:1], refs)
	failing := func(d Deletion) (Client, error) { return connect(t, "nobody"), nil }
	results, err := Delete(t.Context(), p.Deletions, Options{Client: failing})
	var access *inventory.AccessError
	if !errors.As(err, &access) || access.Resource.Resource != "configmaps" || access.Namespace != c.namespace {
		t.Fatalf("got %v", err)
	}
	after := p.After(results)
	if len(after) != 1 || len(after[0].Entries) != 3 {
		t.Errorf("got %+v", after)
	}
	other := c.create(configMap("other", "  labels: {kustomize.toolkit.fluxcd.io/name: later, kustomize.toolkit.fluxcd.io/namespace: flux-system}"))
	later := c.deletion(other...)
	later.Node, later.Timeout = id("later"), time.Second
	results, err = Delete(t.Context(), []Deletion{{Node: id("broken"), Entries: inventory.Entries(refs[1:])}, later},
		Options{Client: func(d Deletion) (Client, error) {
			if d.Node.Name == "broken" {
				return nil, errors.New("no such account")
			}
			return c.client, nil
		}})
	want := "failed ConfigMap/a: no such account\nfailed ConfigMap/b: no such account\ndeleted ConfigMap/other\n"
	if got := outcomes(results); err == nil || got != want {
		t.Errorf("got %v\n%s", err, got)
	}
}

func TestS5_19_WaitForTermination(t *testing.T) {
	c := newCluster(t)
	finalizer := "  finalizers: [example.com/hold]"
	refs := c.create(configMap("held", finalizer) + "\n---\n" + configMap("free", "") + "\n---\n" + configMap("released", finalizer))
	t.Cleanup(func() { c.unfinish(refs[0]) })
	d := c.deletion(refs...)
	d.Wait, d.Timeout = true, 6*time.Second
	// Only once its deletion has begun is the finalizer removed, so the wait has to see it happen.
	w, err := c.client.Watch(t.Context(), &corev1.ConfigMapList{}, client.InNamespace(c.namespace), client.MatchingFields{"metadata.name": "released"})
	must(t, err)
	go func() {
		for e := range w.ResultChan() {
			if cm, ok := e.Object.(*corev1.ConfigMap); ok && cm.DeletionTimestamp != nil {
				c.unfinish(refs[2])
				w.Stop()
			}
		}
	}()
	results, err := Delete(t.Context(), []Deletion{d}, Options{Client: as(c.client)})
	want := "deleted ConfigMap/released\nfailed ConfigMap/held: ConfigMap/" + c.namespace +
		"/held is still there 6s after it was deleted; it waits for finalizers: example.com/hold\ndeleted ConfigMap/free\n"
	if got := outcomes(results); err == nil || got != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
	}
	// Where nobody asks to wait, what is held is no failure (S5.10).
	d.Wait, d.Timeout = false, time.Second
	results, err = Delete(t.Context(), []Deletion{d}, Options{Client: as(c.client)})
	must(t, err)
	if got := outcomes(results); !strings.HasPrefix(got, "gone ConfigMap/released\nlingers ConfigMap/held: it is still there though it was deleted at 20") ||
		!strings.Contains(got, "; it waits for finalizers: example.com/hold") || results[1].Settled() {
		t.Errorf("got\n%s", got)
	}
}

// What the wait did not see the end of stays on record, and so does the Kustomization that left Git: the next run looks again. Flux
// lets go of it.
func TestS5_19_TimeoutLeavesWhatIsNotGone(t *testing.T) {
	c := newCluster(t)
	refs := c.create(configMap("held", "  finalizers: [example.com/hold]") + "\n---\n" + configMap("free", ""))
	t.Cleanup(func() { c.unfinish(refs[0]) })
	left := &inventory.Record{ID: c.owner, Root: id("root"), Entries: inventory.Entries(refs), DeletionPolicy: "WaitForTermination", Timeout: 2 * time.Second}
	remaining := func() After {
		t.Helper()
		p, err := Candidates(Input{Records: []*inventory.Record{left}})
		must(t, err)
		results, err := Delete(t.Context(), p.Deletions, Options{Client: as(c.client)})
		after := p.After(results)
		if len(after) != 1 || (err == nil) != after[0].Delete {
			t.Fatalf("got %v and %+v", err, after)
		}
		return after[0]
	}
	after := remaining()
	if after.Delete || len(after.Entries) != 1 || after.Entries[0] != inventory.EntryOf(refs[0]) {
		t.Fatalf("got %+v", after)
	}
	left.Entries = after.Entries
	c.unfinish(refs[0])
	if after := remaining(); !after.Delete || len(after.Entries) > 0 {
		t.Errorf("got %+v", after)
	}
}

func TestS5_10_BackgroundDeletionIsNotWaitedFor(t *testing.T) {
	c := newCluster(t)
	refs := c.create(configMap("owner", "  finalizers: [example.com/hold]"))
	t.Cleanup(func() { c.unfinish(refs[0]) })
	var owner corev1.ConfigMap
	key := client.ObjectKey{Namespace: c.namespace, Name: "owner"}
	must(t, c.client.Get(t.Context(), key, &owner))
	dependents := c.create(configMap("dependent", fmt.Sprintf("  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: %s}]", owner.UID)))
	w, err := c.client.Watch(t.Context(), &corev1.ConfigMapList{}, client.InNamespace(c.namespace), client.MatchingFields{"metadata.name": "dependent"})
	must(t, err)
	defer w.Stop()
	d := c.deletion(refs...)
	d.Timeout = time.Millisecond
	results, err := Delete(t.Context(), []Deletion{d}, Options{Client: as(c.client)})
	must(t, err)
	if len(results) != 1 || results[0].Outcome != Lingers {
		t.Fatalf("got %s", outcomes(results))
	}
	// It is still there, held by its own finalizer and not by one that the server adds to wait for dependents or to orphan them.
	must(t, c.client.Get(t.Context(), key, &owner))
	if owner.DeletionTimestamp == nil || !slices.Equal(owner.Finalizers, []string{"example.com/hold"}) {
		t.Errorf("got %+v", owner.ObjectMeta)
	}
	if !c.exists(dependents[0]) {
		t.Error("the dependent went first")
	}
	// Its dependents follow when it is gone.
	c.unfinish(refs[0])
	for e := range w.ResultChan() {
		if e.Type == watch.Deleted {
			return
		}
	}
	t.Error("the watch ended")
}

// The account of a Kustomization may be gone before the objects (S5.20). Whether they are is then asked as sluice itself.
func TestS5_20_AccountThatIsGone(t *testing.T) {
	c := newCluster(t)
	refs := c.create(configMap("there", ""))
	missing := flux.Ref{Version: "v1", Kind: "ConfigMap", Namespace: c.namespace, Name: "missing"}
	d := c.deletion(refs[0], missing)
	nobody := connect(t, "system:serviceaccount:"+c.namespace+":gone")
	results, err := Delete(t.Context(), []Deletion{d}, Options{Client: as(nobody), Own: as(c.client)})
	var access *inventory.AccessError
	if !errors.As(err, &access) || access.Verb != "get" || !strings.HasSuffix(access.Hint(), " to ServiceAccount "+c.namespace+"/gone") {
		t.Errorf("got %v", err)
	}
	if len(results) != 2 || results[0].Outcome != Failed || results[1].Outcome != Gone || !c.exists(refs[0]) {
		t.Errorf("got %s", outcomes(results))
	}
	results, err = Delete(t.Context(), []Deletion{d}, Options{Client: as(nobody)})
	if err == nil || results[1].Outcome != Failed {
		t.Errorf("nobody to ask: %v, %s", err, outcomes(results))
	}
}

func TestWhatOthersNeedIsDeletedAfterTheirFinalizersAreGone(t *testing.T) {
	c := newCluster(t)
	crd := c.define()
	resource := c.widget("w", "  finalizers: [example.com/operator]")
	t.Cleanup(func() { c.unfinish(resource) })
	operator := c.create(`apiVersion: v1
kind: ServiceAccount
metadata:
  name: operator
  namespace: NS
  labels: {kustomize.toolkit.fluxcd.io/name: operator, kustomize.toolkit.fluxcd.io/namespace: flux-system}`)
	custom := c.deletion(resource)
	custom.Needs, custom.Timeout = ids("between"), 2*time.Second
	infra := c.deletion(operator...)
	infra.Node = id("operator")
	// The need may go through a Kustomization whose own objects are deleted in between.
	between := Deletion{Node: id("between"), Needs: ids("operator")}
	deletions := []Deletion{custom, between, infra}
	results, err := Delete(t.Context(), deletions, Options{Client: as(c.client)})
	want := "failed Widget/w: Widget/" + c.namespace + "/w is still there 2s after it was deleted; it waits for finalizers: example.com/operator\n" +
		"not-tried ServiceAccount/operator: Widget/" + c.namespace + "/w of Kustomization \"flux-system/apps\", which needs it, is still being deleted\n"
	if got := outcomes(results); err == nil || got != want {
		t.Fatalf("got %v\n%s\nwant\n%s", err, got, want)
	}
	if !c.exists(operator[0]) {
		t.Error("the operator was deleted")
	}
	c.unfinish(resource)
	results, err = Delete(t.Context(), deletions, Options{Client: as(c.client)})
	must(t, err)
	if got, want := outcomes(results), "gone Widget/w\ndeleted ServiceAccount/operator\n"; got != want {
		t.Errorf("got\n%s", got)
	}
	_ = crd
}

func TestCancelledDeletion(t *testing.T) {
	c := newCluster(t)
	refs := c.create(configMap("a", "") + `
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: NS}
spec: {ports: [{port: 80}]}`)
	next := c.create(`apiVersion: v1
kind: ServiceAccount
metadata: {name: a, namespace: NS}`)
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	later := c.deletion(next...)
	later.Node = id("later")
	results, err := Delete(ctx, []Deletion{c.deletion(refs...), later}, Options{Client: as(c.client), Report: func(r Result) {
		if r.Ref.Kind == "Service" {
			cancel(interrupted)
		}
	}})
	want := "deleted Service/a\nnot-tried ConfigMap/a: the run was cancelled\nnot-tried ServiceAccount/a: the run was cancelled\n"
	if got := outcomes(results); got != want || !errors.Is(err, interrupted) {
		t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
	}
	if !c.exists(refs[0]) || !c.exists(next[0]) {
		t.Error("something was deleted after the end")
	}
}
