package prune

import (
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/inventory"
)

// release removes the finalizers of an object as soon as its deletion has begun.
func (c *cluster) release(ref flux.Ref) {
	c.t.Helper()
	w, err := c.client.Watch(c.t.Context(), &corev1.ConfigMapList{}, client.InNamespace(ref.Namespace), client.MatchingFields{"metadata.name": ref.Name})
	must(c.t, err)
	var done sync.WaitGroup
	done.Go(func() {
		for e := range w.ResultChan() {
			if cm, ok := e.Object.(*corev1.ConfigMap); ok && cm.DeletionTimestamp != nil {
				c.unfinish(ref)
				w.Stop()
			}
		}
	})
	c.t.Cleanup(done.Wait)
}

// What has finalizers is waited for after all else has been deleted, other Kustomizations included; what is still there then is named
// with what holds it, stays on record and is no failure. It is deleted once: later runs look at it.
func TestWhatIsSlowToGoIsWaitedForAtTheEnd(t *testing.T) {
	c := newCluster(t)
	held := "  finalizers: [example.com/hold]"
	refs := c.create(configMap("held", held) + "\n---\n" + configMap("released", held))
	other := c.create(configMap("other", "  labels: {kustomize.toolkit.fluxcd.io/name: later, kustomize.toolkit.fluxcd.io/namespace: flux-system}"))
	t.Cleanup(func() { c.unfinish(refs[0]) })
	c.release(refs[1])
	later := c.deletion(other...)
	later.Node, later.Timeout = id("later"), time.Second
	left := &inventory.Record{ID: c.owner, Root: id("root"), Entries: inventory.Entries(refs), Prune: true, Timeout: 3 * time.Second}
	p, err := Candidates(Input{Records: []*inventory.Record{left}})
	must(t, err)
	s := &spy{WithWatch: c.client}
	var told []string
	results, err := Delete(t.Context(), append(p.Deletions, later), Options{Client: as(s),
		Report: func(r Result) { told = append(told, string(r.Outcome)+" "+r.Ref.Name) }})
	must(t, err)
	want := "deleted ConfigMap/released\n" +
		"lingers ConfigMap/held: it is still there 3s after it was deleted; it waits for finalizers: example.com/hold: ConfigMap/" + c.namespace +
		"/held is still there 3s after it was deleted; it waits for finalizers: example.com/hold\ndeleted ConfigMap/other\n"
	if got := outcomes(results); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := strings.Join(told, ", "); got != "deleted other, deleted released, lingers held" {
		t.Errorf("told %s", got)
	}
	hint := "kubectl -n " + c.namespace + ` patch configmap held --type=merge -p '{"metadata":{"finalizers":null}}'`
	var lingers *LingerError
	if len(results) > 1 && (!asLinger(results[1].Err, &lingers) || !strings.HasSuffix(lingers.Hint(), hint)) {
		t.Errorf("hint %v", lingers)
	}
	after := p.After(results)
	if len(after) != 1 || after[0].Delete || len(after[0].Entries) != 1 || after[0].Entries[0] != inventory.EntryOf(refs[0]) {
		t.Fatalf("the record would hold %+v", after)
	}

	// A plan does not count it, no guard is asked for it, and the next run does not delete it again.
	left.Entries, left.Timeout = after[0].Entries, time.Millisecond
	if p, err = Candidates(Input{Records: []*inventory.Record{left}}); err != nil {
		t.Fatal(err)
	}
	f := c.check(p, Guards{})
	if len(f.Doomed) != 0 || len(f.Refusals) != 0 || len(f.Kept) != 1 || !strings.HasPrefix(f.Kept[0].Reason, "it is being deleted since 20") ||
		!strings.HasSuffix(f.Kept[0].Reason, " and waits for finalizers: example.com/hold") {
		t.Errorf("a plan tells %+v", f)
	}
	deleted := len(s.deleted)
	results, err = Delete(t.Context(), p.Deletions, Options{Client: as(s)})
	must(t, err)
	if len(results) != 1 || results[0].Outcome != Lingers || len(s.deleted) != deleted {
		t.Errorf("the next run deletes %v: %s", s.deleted[deleted:], outcomes(results))
	}
	c.unfinish(refs[0])
	results, err = Delete(t.Context(), p.Deletions, Options{Client: as(s)})
	must(t, err)
	if after := p.After(results); outcomes(results) != "gone ConfigMap/held\n" || !after[0].Delete {
		t.Errorf("got %s, %+v", outcomes(results), after)
	}
}

func asLinger(err error, to **LingerError) bool {
	l, ok := err.(*LingerError)
	*to = l
	return ok
}

// A Namespace goes when what is in it has gone. What hangs in it is told as the server tells it.
func TestNamespaceIsWaitedForAndWhatHangsInItIsNamed(t *testing.T) {
	c := newCluster(t)
	free := c.create("apiVersion: v1\nkind: Namespace\nmetadata: {name: NS-free}")
	results, err := Delete(t.Context(), []Deletion{c.deletion(free...)}, Options{Client: as(c.client)})
	must(t, err)
	if got := outcomes(results); got != "deleted Namespace/"+free[0].Name+"\n" {
		t.Errorf("got %s", got)
	}
	if f, err := lookup(t.Context(), c.client, free[0]); err != nil || !f.gone {
		t.Errorf("it is told as deleted and is there: %v", err)
	}

	held := c.create("apiVersion: v1\nkind: Namespace\nmetadata: {name: NS-held}")
	inside := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: held[0].Name, Name: "x", Finalizers: []string{"example.com/hold"}}}
	must(t, c.client.Create(t.Context(), inside))
	t.Cleanup(func() { c.unfinish(flux.Ref{Version: "v1", Kind: "ConfigMap", Namespace: inside.Namespace, Name: "x"}) })
	d := c.deletion(held...)
	d.Timeout = 20 * time.Second
	results, err = Delete(t.Context(), []Deletion{d}, Options{Client: as(c.client)})
	must(t, err)
	if got := outcomes(results); !strings.HasPrefix(got, "lingers Namespace/"+held[0].Name+": it is still there 20s after it was deleted: ") ||
		!strings.Contains(got, "example.com/hold in 1 resource instances") {
		t.Errorf("got %s", got)
	}
}

// An account that may get and delete, and neither list nor watch, waits all the same.
func TestS5_19_WaitWithoutTheRightToWatch(t *testing.T) {
	c := newCluster(t)
	refs := c.create(configMap("held", "  finalizers: [example.com/hold]") + "\n---\n" + configMap("released", "  finalizers: [example.com/hold]"))
	t.Cleanup(func() { c.unfinish(refs[0]) })
	user := "system:serviceaccount:" + c.namespace + ":reader"
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "reader"},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "delete"}}}}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "reader"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: c.namespace, Name: "reader"}}}
	must(t, c.client.Create(t.Context(), role))
	must(t, c.client.Create(t.Context(), binding))
	reader := connect(t, user)
	for { // the authorizer learns of a binding a moment after it was made
		err := reader.Get(t.Context(), client.ObjectKey{Namespace: c.namespace, Name: "held"}, &corev1.ConfigMap{})
		if err == nil {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	c.release(refs[1])
	d := c.deletion(refs...)
	d.Wait, d.Timeout = true, 4*time.Second
	results, err := Delete(t.Context(), []Deletion{d}, Options{Client: as(reader)})
	want := "deleted ConfigMap/released\nfailed ConfigMap/held: ConfigMap/" + c.namespace +
		"/held is still there 4s after it was deleted; it waits for finalizers: example.com/hold\n"
	if got := outcomes(results); err == nil || got != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
	}
}

// One object that two API groups serve is not deleted under one name right after it was applied under the other, as Flux does (S5.5);
// another one that only has the same name is.
func TestS5_5_ObjectOfTwoGroupsIsNotDeleted(t *testing.T) {
	c := newCluster(t)
	core := c.create(`apiVersion: v1
kind: Event
metadata: {name: e, namespace: NS}
involvedObject: {kind: ConfigMap, namespace: NS, name: x}
reason: Test`)
	modern := core[0]
	modern.Group = "events.k8s.io"
	p := c.plan([]flux.Ref{modern}, core)
	if f := c.check(p, Guards{}); len(f.Doomed) != 0 || len(f.Kept) != 1 {
		t.Errorf("a plan tells %+v", f)
	}
	results, err := Delete(t.Context(), p.Deletions, Options{Client: as(c.client)})
	must(t, err)
	want := "kept Event/e: it is the same object as Event/" + c.namespace + "/e of API group \"events.k8s.io\", which this commit holds\n"
	if got := outcomes(results); got != want || !c.exists(core[0]) {
		t.Errorf("got %s", got)
	}
	// It is the other one's now.
	if after := p.After(results); len(after) != 1 || len(after[0].Entries) != 1 || after[0].Entries[0] != inventory.EntryOf(modern) {
		t.Errorf("got %+v", after)
	}

	c.define()
	widget := c.widget("e", "")
	impostor := widget
	impostor.Group = "other.example.com"
	p = c.plan([]flux.Ref{impostor}, []flux.Ref{widget})
	results, err = Delete(t.Context(), p.Deletions, Options{Client: as(c.client)})
	must(t, err)
	if got := outcomes(results); got != "deleted Widget/e\n" {
		t.Errorf("got %s", got)
	}
}
