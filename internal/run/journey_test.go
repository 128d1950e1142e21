//go:build unix

package run_test

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/inventory"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
	"github.com/sluicerun/sluice/internal/run"
)

// What runs go through while something is done to them: journeys between two
// states of a cluster, each leg of which is one run. Whatever became of that run,
// the next one must bring the cluster where an undisturbed one would have.

var (
	everywhere = flag.Bool("run.everywhere", false, "strike at every request, not only at some of each kind")
	workers    = flag.Int("run.workers", 6, "how many journeys are under way at once with -run.everywhere")
)

// Three Kustomizations in two states, each of which one run makes of the other:
// it installs objects, changes some, among them a Deployment that is waited for,
// moves one to another Kustomization, gives a Kustomization another name, makes an
// object anew that cannot change, and deletes what left, that Kustomization's among
// it.
func places(name string) map[string]string {
	configMap := func(name, value string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: NAMESPACE-live}\ndata: {x: %q}\n", name, value)
	}
	files := map[string]string{
		"base/kind.yaml":      gadgets,
		"base/namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: NAMESPACE-live}\n",
		"apps/d.yaml":         strings.Replace(deployment, "namespace: NAMESPACE", "namespace: NAMESPACE-live", 1),
		"apps/g1.yaml":        gadget("g1", 1),
		"apps/stays.yaml":     configMap("stays", "1"),
		"web/page.yaml":       configMap("page", "1"),
	}
	sealed := func(value string) string {
		return strings.Replace(configMap(remade, value), "metadata: {", "immutable: true\nmetadata: {annotations: {kustomize.toolkit.fluxcd.io/force: enabled}, ", 1)
	}
	there := map[string]string{
		"base/sealed.yaml":   sealed("1"),
		"base/settings.yaml": configMap("settings", "1"),
		"apps/leaves.yaml":   configMap("leaves", "1"),
		"apps/mover.yaml":    configMap("mover", "1"),
		"web/old.yaml":       configMap("old", "1"),
	}
	front := "web"
	if name == "B" {
		front = "site"
		files["apps/d.yaml"] = strings.ReplaceAll(files["apps/d.yaml"], "c:v1", "c:v2")
		files["apps/g1.yaml"] = gadget("g1", 2)
		there = map[string]string{
			"base/sealed.yaml":   sealed("2"),
			"base/settings.yaml": configMap("settings", "2"),
			"base/fresh.yaml":    configMap("fresh", "1"),
			"web/mover.yaml":     configMap("mover", "1"),
			"web/g2.yaml":        gadget("g2", 1),
		}
	}
	maps.Copy(files, there)
	files["entry/all.yaml"] = kustomizations("base", "base", "", "apps", "apps", "base", front, "web", "apps")
	return files
}

// remade is the object that each leg deletes and makes anew.
const remade = "sealed"

func gadget(name string, size int) string {
	return fmt.Sprintf("apiVersion: NAMESPACE.example.com/v1\nkind: Gadget\nmetadata: {name: %s, namespace: NAMESPACE-live}\nspec: {parts: [{name: a, size: %d, weight: 1}]}\n", name, size)
}

// kustomizations takes names, paths and what they depend on.
func kustomizations(args ...string) string {
	var all []string
	for each := range slices.Chunk(args, 3) {
		needs := ""
		if each[2] != "" {
			needs = ", dependsOn: [{name: " + each[2] + "}]"
		}
		all = append(all, fmt.Sprintf("apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: %s, namespace: NAMESPACE}\n"+
			"spec: {interval: 5m, retryInterval: 1ms, timeout: 1m, prune: true, path: %s, sourceRef: {kind: GitRepository, name: gitops}%s}\n", each[0], each[1], needs))
	}
	return strings.Join(all, "---\n")
}

// route is two legs, the second of which leads back to where the first began.
type route [2]leg

// leg is one run of a route.
type leg struct {
	name    string
	command run.Command
	// state is what is committed before; empty for nothing.
	state string
}

var (
	// between changes everything.
	between = route{{"there", run.CommandRun, "B"}, {"back", run.CommandRun, "A"}}
	// whole begins with an empty cluster, and ends with one.
	whole = route{{"install", run.CommandRun, "A"}, {"destroy", run.CommandDestroy, ""}}
)

// journey is a world on a route.
type journey struct {
	*world
	route route
	// want is what is live after each leg.
	want [2]snapshot
	// live is what is live now, next the leg that comes next.
	live  snapshot
	next  int
	round int

	objects *dynamic.DynamicClient
	api     client.Client
	store   *inventory.ClusterStore
	head    string
	state   string // namespace of the records
	files   []string
}

// newJourney goes the whole route once, undisturbed.
func newJourney(t *testing.T, way route) *journey {
	t.Helper()
	j := &journey{world: newWorld(t, nil), route: way}
	var err error
	if j.objects, err = dynamic.NewForConfig(kubetest.Shared(t).Config()); err != nil {
		t.Fatal(err)
	}
	if j.api, err = client.New(kubetest.Shared(t).Config(), client.Options{}); err != nil {
		t.Fatal(err)
	}
	j.files = []string{"entry/apps.yaml"}
	j.state, j.store = j.namespace, inventory.NewClusterStore(j.api, j.namespace)
	t.Cleanup(j.clear)
	if way[0].state != "A" {
		j.bring("A")
		j.mustEnd(j.travel(run.CommandRun, nil), event.Live)
		j.live = j.look()
	}
	for range way {
		l := j.depart()
		j.Take()
		j.mustEnd(j.travel(l.command, nil), goal(l.command))
		requests := j.Take()
		t.Logf("%s: %d requests, %d of which write", l.name, len(requests), len(proxy.Writing(requests)))
		j.want[j.next] = j.look()
		j.arrive(j.want[j.next])
	}
	return j
}

func goal(c run.Command) event.Verdict {
	if c == run.CommandDestroy {
		return event.VerdictDestroyed
	}
	return event.Live
}

func (j *journey) mustEnd(e ended, want event.Verdict) {
	j.Helper()
	if e.Verdict != want {
		j.Fatal(e)
	}
}

// clear removes what is not in the test's namespace.
func (j *journey) clear() {
	background := metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{PropagationPolicy: &background}
	ctx := context.Background() // the test's own has ended
	errs := []error{
		j.objects.Resource(resources["customresourcedefinitions"]).Delete(ctx, j.in("gadgets.NAMESPACE.example.com"), options),
		j.client.CoreV1().Namespaces().Delete(ctx, j.in("NAMESPACE-live"), options),
	}
	for round := range j.round {
		errs = append(errs, j.client.CoreV1().Namespaces().Delete(ctx, j.stateOf(round+1), options))
	}
	for _, err := range errs {
		if err != nil && !apierrors.IsNotFound(err) {
			j.Error(err)
		}
	}
}

func (j *journey) stateOf(round int) string { return fmt.Sprintf("%s-state-%d", j.namespace, round) }

// depart makes the commit of the next leg. The first install of all finds nothing
// in the cluster, not even the namespace of its records.
func (j *journey) depart() leg {
	j.Helper()
	l := j.route[j.next]
	if l.name == "install" {
		j.round++
		j.state = j.stateOf(j.round)
	}
	if l.state != "" {
		j.bring(l.state)
	}
	j.store = inventory.NewClusterStore(j.api, j.state)
	return l
}

func (j *journey) arrive(live snapshot) {
	j.live = live
	j.next = 1 - j.next
}

// bring commits a state.
func (j *journey) bring(state string) {
	j.Helper()
	files := places(state)
	var changes []gittest.Change
	for _, name := range j.files {
		if _, stays := files[name]; !stays {
			changes = append(changes, gittest.Remove(name))
		}
	}
	j.files = slices.Sorted(maps.Keys(files))
	for _, name := range j.files {
		changes = append(changes, gittest.File(name, j.in(files[name])))
	}
	head, err := j.repo.Commit("state "+state, changes...)
	if err != nil {
		j.Fatal(err)
	}
	j.head = head
}

// travel makes a run of the present commit.
func (j *journey) travel(command run.Command, meanwhile func(event.Event), more ...func(*run.Options)) ended {
	j.Helper()
	return j.do(command, meanwhile, append([]func(*run.Options){func(o *run.Options) {
		o.Identity = fmt.Sprintf("%s-%d", j.Name(), time.Now().UnixNano())
		o.StateNamespace = j.state
		o.Retries, o.Timeout, o.LockWait = 2, 5*time.Minute, time.Minute
	}}, more...)...)
}

// again is the run after one that was disturbed. It must end well, and bring
// everything to where an undisturbed run would have. Then the next leg can begin.
func (j *journey) again(l leg) {
	j.Helper()
	// A destroy that was disturbed at its very end has nothing left to do.
	e := j.travel(l.command, nil, func(o *run.Options) { o.IfExists = true })
	if want := goal(l.command); e.Verdict != want {
		j.Errorf("the next run ended %s", e)
	}
	now := j.look()
	j.arrived(now)
	j.arrive(now)
}

// arrived compares what is live with what an undisturbed run has left, and looks
// for deletions that should not have been.
func (j *journey) arrived(now snapshot) {
	j.Helper()
	want := j.want[j.next]
	for _, key := range slices.Sorted(maps.Keys(want.texts)) {
		switch got, there := now.texts[key]; {
		case !there:
			j.Errorf("%s is missing", key)
		case got != want.texts[key]:
			j.Errorf("%s is\n%s\nwant\n%s", key, got, want.texts[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(now.texts)) {
		if _, expected := want.texts[key]; !expected {
			j.Errorf("%s is left: %s", key, now.texts[key])
		}
	}
	for key, uid := range j.live.uids {
		if got := now.uids[key]; got != "" && want.uids[key] != "" && got != uid && !strings.HasSuffix(key, "/"+remade) {
			j.Errorf("%s was made anew", key)
		}
	}
	for _, r := range j.Requests() {
		if r.Verb != "delete" || r.Name == remade {
			continue
		}
		if _, lives := want.texts[j.key(r.Resource, r.Namespace, r.Name)]; lives || r.Name == "" {
			j.Errorf("%s is deleted", r)
		}
	}
}

// snapshot is what there is of a journey in the cluster, without what may differ
// between two ways to the same state: versions and times.
type snapshot struct {
	texts map[string]string // by key
	uids  map[string]string // of objects, not of records
}

// key is that of an object in a snapshot.
func (j *journey) key(resource, namespace, name string) string {
	return j.anyState(strings.Join([]string{resource, namespace, name}, "/"))
}

// anyState makes a text not depend on where the records are.
func (j *journey) anyState(text string) string { return strings.ReplaceAll(text, j.state, "STATE") }

var resources = map[string]schema.GroupVersionResource{
	"configmaps":                {Version: "v1", Resource: "configmaps"},
	"namespaces":                {Version: "v1", Resource: "namespaces"},
	"deployments":               {Group: "apps", Version: "v1", Resource: "deployments"},
	"leases":                    {Group: "coordination.k8s.io", Version: "v1", Resource: "leases"},
	"customresourcedefinitions": {Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
}

// look takes a snapshot.
func (j *journey) look() snapshot {
	j.Helper()
	s := snapshot{texts: map[string]string{}, uids: map[string]string{}}
	add := func(gvr schema.GroupVersionResource, namespace, name string) {
		options := metav1.ListOptions{}
		if name != "" {
			options.FieldSelector = "metadata.name=" + name
		}
		list, err := j.objects.Resource(gvr).Namespace(namespace).List(j.Context(), options)
		if apierrors.IsNotFound(err) {
			return // its definition is gone
		}
		if err != nil {
			j.Fatal(err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			if o.GetName() == "kube-root-ca.crt" {
				continue
			}
			key := j.key(gvr.Resource, namespace, o.GetName())
			s.texts[key], s.uids[key] = j.anyState(j.text(o)), string(o.GetUID())
		}
	}
	live := j.in("NAMESPACE-live")
	add(resources["configmaps"], live, "")
	add(resources["deployments"], live, "")
	add(schema.GroupVersionResource{Group: j.in("NAMESPACE.example.com"), Version: "v1", Resource: "gadgets"}, live, "")
	add(resources["namespaces"], "", live)
	add(resources["customresourcedefinitions"], "", j.in("gadgets.NAMESPACE.example.com"))
	add(resources["leases"], j.state, "")
	j.records(s)
	return s
}

// text is what is declared of an object, and who has declared it.
func (j *journey) text(o *unstructured.Unstructured) string {
	o = o.DeepCopy()
	var owners []string
	for _, m := range o.GetManagedFields() {
		if m.Subresource != "" || m.Manager == "kube-controller-manager" {
			continue
		}
		owners = append(owners, fmt.Sprintf("%s %s %s", m.Manager, m.Operation, m.FieldsV1))
	}
	slices.Sort(owners)
	annotations := o.GetAnnotations()
	delete(annotations, "deployment.kubernetes.io/revision")
	parts := map[string]any{"labels": o.GetLabels(), "annotations": annotations, "finalizers": o.GetFinalizers(), "owners": owners, "dying": o.GetDeletionTimestamp() != nil}
	for field, value := range o.Object {
		if !slices.Contains([]string{"metadata", "status"}, field) {
			parts[field] = value
		}
	}
	text, err := json.Marshal(parts)
	if err != nil {
		j.Fatal(err)
	}
	return string(text)
}

// records adds what is on record. Revisions are those of the present commit or not.
func (j *journey) records(s snapshot) {
	j.Helper()
	survey, err := j.store.Survey(j.Context())
	if err != nil {
		j.Fatal(err)
	}
	for _, u := range survey.Unreadable {
		j.Errorf("%s: %v", u.Object, u.Err)
	}
	revision := func(text string) string {
		if strings.HasSuffix(text, j.head) {
			return "this"
		}
		return cmp.Or(text, "none")
	}
	add := func(name string, parts ...any) {
		s.texts[j.key("configmaps", j.state, name)] = j.anyState(fmt.Sprintf("%+v", parts))
	}
	for _, state := range survey.States {
		for _, r := range state.Sorted() {
			var entries []string
			for _, e := range r.Entries {
				entries = append(entries, e.String())
			}
			slices.Sort(entries)
			add(inventory.RecordName(r.ID), r.ID, r.Root, r.Parent, r.Path, r.Source, revision(r.Revision), r.Digest, r.Result, entries,
				r.Prune, r.DeletionPolicy, r.Suspended, r.DependsOn, r.ServiceAccount, r.Timeout, r.Marker)
		}
		if r := state.Root; r != nil {
			add(inventory.RootName(r.ID), r.ID, r.Path, revision(r.Started.Commit), r.Started.Result, revision(r.Finished.Commit), r.Finished.Result, r.Nodes)
		}
	}
	// Nothing else is in the namespace of the records.
	list, err := j.client.CoreV1().ConfigMaps(j.state).List(j.Context(), metav1.ListOptions{})
	if err != nil {
		j.Fatal(err)
	}
	for _, c := range list.Items {
		if key := j.key("configmaps", j.state, c.Name); s.texts[key] == "" && c.Name != "kube-root-ca.crt" {
			s.texts[key] = "a ConfigMap"
		}
	}
}

// breakLock frees the lock of a run that was killed: most often, as if it had been
// taken for a second only, so that the next run finds that it has expired; else by
// hand, as docs/state.md says. Without a killed run's lock it does nothing.
func (j *journey) breakLock(byHand bool) {
	j.Helper()
	for _, lease := range j.leasesIn(j.state) {
		if n := lease.Spec.LeaseDurationSeconds; n == nil || *n > 60 {
			j.Errorf("the lock of a killed run lives for %v", n)
		}
		leases := j.client.CoordinationV1().Leases(j.state)
		err := error(nil)
		if byHand {
			err = leases.Delete(j.Context(), lease.Name, metav1.DeleteOptions{})
		} else {
			second := int32(1)
			lease.Spec.LeaseDurationSeconds = &second
			_, err = leases.Update(j.Context(), &lease, metav1.UpdateOptions{})
		}
		if err != nil {
			j.Error(err)
		}
	}
}

// everyone runs journeys side by side. Each of them calls strike on every leg with
// 1, 2, 3 and so on, those of others left out, until that returns false on both.
func everyone(t *testing.T, way route, strike func(j *journey, n int) bool) {
	for first := range *workers {
		t.Run(fmt.Sprint("of ", first+1), func(t *testing.T) {
			t.Parallel()
			var j *journey
			for n := first + 1; ; n += *workers {
				struck := false
				for range way {
					if j == nil {
						j = newJourney(t, way)
					}
					if !j.leg(fmt.Sprint(n), func() { struck = strike(j, n) || struck }) {
						j = nil // it may be anywhere
					}
				}
				if !struck {
					return
				}
			}
		})
	}
}

// leg makes what a function does with the journey a test of its own, named after the
// next leg. It reports whether that passed.
func (j *journey) leg(name string, do func()) bool {
	outer := j.T
	defer func() { j.T = outer }()
	return outer.Run(j.route[j.next].name+"/"+name, func(t *testing.T) {
		j.T = t
		do()
	})
}
