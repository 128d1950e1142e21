//go:build unix

package run_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
	"github.com/sluicerun/sluice/internal/run"
)

// Tests of what two runs do to each other. What a killed or stopped process does is
// tested with processes, in package cli.

// newTwice makes a world whose commits are told apart by a value: that of ConfigMap a,
// which Kustomization apps has, and of b, which next has, after apps. The first commit is live.
func newTwice(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, map[string]string{"a.yaml": configMapA})
	w.commit(nil, gittest.File("entry/next.yaml", w.kustomization("next", "next", ", dependsOn: [{name: apps}]")))
	if e := w.at(w.set("1"))(run.CommandRun); e.Verdict != event.Live {
		t.Fatal(e)
	}
	return w
}

// set commits a value and returns the commit.
func (w *world) set(value string) string {
	w.Helper()
	valued := func(text string) string { return w.in(strings.ReplaceAll(text, `"1"`, fmt.Sprintf("%q", value))) }
	hash, err := w.repo.Commit("set "+value, gittest.File("apps/a.yaml", valued(configMapA)), gittest.File("next/b.yaml", valued(configMapB)))
	if err != nil {
		w.Fatal(err)
	}
	return hash
}

// at returns what runs commands of a commit.
func (w *world) at(commit string, more ...func(*run.Options)) func(run.Command) ended {
	return func(command run.Command) ended {
		return w.do(command, nil, slices.Concat([]func(*run.Options){func(o *run.Options) {
			o.Source.Revision, o.Sources = commit, nil
			o.Identity += "-" + string(command) + "-" + commit
		}}, more)...)
	}
}

// second starts a command that finds the lock taken and waits for it, by way of a
// proxy of its own, and returns when it waits.
func (w *world) second(command run.Command, change func(*run.Options)) (*proxy.Proxy, <-chan ended) {
	w.Helper()
	p := proxy.New(w.T, kubetest.Shared(w.T))
	kubeconfig := filepath.Join(w.TempDir(), "kubeconfig")
	if err := p.WriteKubeconfig(kubeconfig); err != nil {
		w.Fatal(err)
	}
	waits, done := make(chan struct{}), make(chan ended, 1)
	go func() {
		told := false
		done <- w.do(command, func(ev event.Event) {
			if n, ok := ev.(event.Notice); ok && n.Code == "lock-wait" && !told {
				told = true
				close(waits)
			}
		}, func(o *run.Options) {
			o.Cluster.Kubeconfig, o.LockWait, o.Sources = kubeconfig, time.Minute, nil
			o.Identity += "-second"
			change(o)
		})
	}()
	select {
	case <-waits:
	case e := <-done:
		w.Fatalf("the second did not wait: %s", e)
	}
	return p, done
}

// value is that of a ConfigMap, empty if there is none.
func (w *world) value(name string) string {
	w.Helper()
	c, err := w.client.CoreV1().ConfigMaps(w.namespace).Get(w.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ""
	}
	if err != nil {
		w.Fatal(err)
	}
	return c.Data["x"]
}

// others are the requests that were to change something but Leases.
func others(requests []proxy.Request) []string {
	return proxy.Writing(slices.DeleteFunc(requests, func(r proxy.Request) bool { return r.Resource == "leases" }))
}

// to matches requests about one object.
func to(verb, resource, name string) func(proxy.Request) bool {
	return func(r proxy.Request) bool { return r.Verb == verb && r.Resource == resource && r.Name == name }
}

// Two runs at once: the second has made its plan when the first is in the middle of
// its work, and waits. Under the lock it asks all guards again.
func TestTheSecondOfTwoRuns(t *testing.T) {
	for name, test := range map[string]struct {
		first, second string // values
		// unknown is set if nothing is on record yet of the first when the second plans.
		unknown bool
		verdict event.Verdict
		live    string
		quiet   bool // the second writes nothing
	}{
		"newer":                     {"2", "3", false, event.Live, "3", false},
		"newer than one not begun":  {"2", "3", true, event.Live, "3", false},
		"older than one not begun":  {"3", "2", true, event.VerdictRefused, "3", true},
		"much older":                {"3", "1", true, event.VerdictRefused, "3", true},
		"the same":                  {"3", "3", false, event.Live, "3", false},
		"the same as one not begun": {"3", "3", true, event.Live, "3", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTwice(t)
			commits := map[string]string{"1": "HEAD~2", "2": w.set("2"), "3": w.set("3")}
			match := to("apply", "configmaps", "b")
			if test.unknown {
				match = w.begins()
			}
			hang := w.Fail(proxy.Fault{Match: match, Times: 1, Do: proxy.Hang()})
			first := make(chan ended, 1)
			go func() { first <- w.at(commits[test.first])(run.CommandRun) }()
			if err := hang.Await(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			p, second := w.second(run.CommandRun, func(o *run.Options) { o.Source.Revision = commits[test.second] })
			if wrote := others(p.Requests()); len(wrote) > 0 {
				t.Errorf("before it has the lock the second wrote %q", wrote)
			}
			hang.Release()
			if e := <-first; e.Verdict != event.Live {
				t.Errorf("the first: %s", e)
			}
			e := <-second
			if e.Verdict != test.verdict || !slices.Contains(e.notices(), "planned-again") {
				t.Errorf("the second: %s, notices %q", e, e.notices())
			}
			if e.Verdict == event.VerdictRefused && (e.ExitCode != 4 || len(e.failures()) != 1 || e.failures()[0].Reason != "OlderCommit") {
				t.Errorf("the second: %s, want OlderCommit", e)
			}
			wrote := others(p.Requests())
			if test.quiet && len(wrote) > 0 {
				t.Errorf("the second wrote %q", wrote)
			}
			if test.first == test.second && (len(wrote) != 1 || !strings.Contains(wrote[0], "sluice-root.")) {
				t.Errorf("the second found all as it should be, and wrote %q", wrote)
			}
			if a, b := w.value("a"), w.value("b"); a != test.live || b != test.live {
				t.Errorf("a is %q and b %q, want %q", a, b, test.live)
			}
			if e := w.at(commits[test.live])(run.CommandPlan); e.Verdict != event.VerdictPlanned || len(e.planned()) > 0 {
				t.Errorf("afterwards: %s: %q", e, e.planned())
			}
			if held := w.leases(); len(held) > 0 {
				t.Errorf("the lock is still held: %+v", held)
			}
		})
	}
}

// begins matches the request by which a run says that it begins to write. It has the
// lock by then.
func (w *world) begins() func(proxy.Request) bool {
	return to("update", "configmaps", "sluice-root."+w.namespace+".entry")
}

// An older commit does not even wait once the newer one's run is on record, and is told
// that it is on.
func TestAnOlderRunDoesNotWait(t *testing.T) {
	w := newTwice(t)
	older, newer := w.set("2"), w.set("3")
	hang := w.Fail(proxy.Fault{Match: to("apply", "configmaps", "b"), Times: 1, Do: proxy.Hang()})
	first := make(chan ended, 1)
	go func() { first <- w.at(newer)(run.CommandRun) }()
	if err := hang.Await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	e := w.at(older, func(o *run.Options) { o.LockWait = time.Hour })(run.CommandRun)
	want := fmt.Sprintf("commit %.7s is older than %.7s, which a run is applying, or was when it was cut off (1 commit behind)", older, newer)
	if failures := e.failures(); e.ExitCode != 4 || len(failures) != 1 || failures[0].Text != want {
		t.Errorf("%s\nwant %s", e, want)
	}
	hang.Release()
	if e := <-first; e.Verdict != event.Live {
		t.Error(e)
	}
}

// A plan that was approved is refused if a newer commit went live while it waited for
// the lock, and so is one that a run in between has made another.
func TestAnApprovedPlanWaits(t *testing.T) {
	for name, test := range map[string]struct{ first, approved, reason string }{
		"older than what came in between":   {"3", "2", "OlderCommit"},
		"newer, but not what was looked at": {"2", "3", "StalePlan"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTwice(t)
			commits := map[string]string{"2": w.set("2"), "3": w.set("3")}
			approved := w.at(commits[test.approved], func(o *run.Options) { o.SavePlan = true })(run.CommandPlan)
			if approved.Plan == nil {
				t.Fatal(approved)
			}
			hang := w.Fail(proxy.Fault{Match: w.begins(), Times: 1, Do: proxy.Hang()})
			first := make(chan ended, 1)
			go func() { first <- w.at(commits[test.first])(run.CommandRun) }()
			if err := hang.Await(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			_, second := w.second(run.CommandRun, func(o *run.Options) {
				o.Source.Revision, o.Approved = commits[test.approved], approved.Plan
			})
			hang.Release()
			if e := <-first; e.Verdict != event.Live {
				t.Fatal(e)
			}
			e := <-second
			if e.Verdict != event.VerdictRefused || e.ExitCode != 4 ||
				!slices.ContainsFunc(e.failures(), func(f event.Failure) bool { return f.Reason == test.reason }) {
				t.Errorf("%s, want %s", e, test.reason)
			}
			if a, b := w.value("a"), w.value("b"); a != test.first || b != test.first {
				t.Errorf("a is %q and b %q, want %q", a, b, test.first)
			}
		})
	}
}

// destroy and run at once: whoever has the lock second sees what the first has left.
func TestDestroyAndRunAtOnce(t *testing.T) {
	t.Run("destroy waits", func(t *testing.T) {
		w := newTwice(t)
		hang := w.Fail(proxy.Fault{Match: to("apply", "configmaps", "b"), Times: 1, Do: proxy.Hang()})
		w.commit(map[string]string{"c.yaml": strings.ReplaceAll(configMapA, "name: a", "name: c")})
		commit := w.set("2")
		first := make(chan ended, 1)
		go func() { first <- w.at(commit)(run.CommandRun) }()
		if err := hang.Await(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		_, second := w.second(run.CommandDestroy, func(o *run.Options) { o.Source.Repo = "" })
		hang.Release()
		if e := <-first; e.Verdict != event.Live {
			t.Error(e)
		}
		e := <-second
		if names, records := w.configMaps(); e.Verdict != event.VerdictDestroyed || len(names)+len(records) > 0 {
			t.Errorf("%s\nleft are %v and the records %v", e, names, records)
		}
	})
	t.Run("run waits", func(t *testing.T) {
		w := newTwice(t)
		hang := w.Fail(proxy.Fault{Match: to("delete", "configmaps", "a"), Times: 1, Do: proxy.Hang()})
		first := make(chan ended, 1)
		go func() { first <- w.at("", func(o *run.Options) { o.Source.Repo = "" })(run.CommandDestroy) }()
		if err := hang.Await(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		_, second := w.second(run.CommandRun, func(o *run.Options) {})
		hang.Release()
		if e := <-first; e.Verdict != event.VerdictDestroyed {
			t.Error(e)
		}
		e := <-second
		if names, records := w.configMaps(); e.Verdict != event.Live || !slices.Equal(names, []string{"a", "b"}) || len(records) != 4 {
			t.Errorf("%s\nthere are %v and the records %v", e, names, records)
		}
	})
}

// Roots have locks of their own, also with their records in one namespace.
func TestRunsOfTwoRootsDoNotWait(t *testing.T) {
	w := newTwice(t)
	w.commit(nil, gittest.File("elsewhere/other.yaml", w.kustomization("other", "other", "")),
		gittest.File("other/o.yaml", w.in(strings.ReplaceAll(configMapA, "name: a", "name: o"))))
	hang := w.Fail(proxy.Fault{Match: to("apply", "configmaps", "b"), Times: 1, Do: proxy.Hang()})
	commit := w.set("2")
	first := make(chan ended, 1)
	go func() { first <- w.at(commit)(run.CommandRun) }()
	if err := hang.Await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	e := w.at(commit, func(o *run.Options) { o.Path, o.Identity = "elsewhere", "elsewhere" })(run.CommandRun)
	if e.Verdict != event.Live || slices.Contains(e.notices(), "planned-again") || w.value("o") != "1" || w.value("b") != "1" {
		t.Errorf("the other root: %s, notices %q", e, e.notices())
	}
	hang.Release()
	if e := <-first; e.Verdict != event.Live || w.value("b") != "2" {
		t.Error(e)
	}
}

// Whoever writes to a record between plan and lock, and whatever it then says: the
// plan is made again.
func TestPlannedAgainAfterAnyWrite(t *testing.T) {
	w := newTwice(t)
	commit, once := w.set("2"), false
	e := w.do(run.CommandRun, func(ev event.Event) {
		if _, ok := ev.(event.Planned); !ok || once {
			return
		}
		once = true
		touch := []byte(`{"metadata":{"labels":{"touched":"by-hand"}}}`)
		name := "sluice." + w.namespace + ".next"
		if _, err := w.client.CoreV1().ConfigMaps(w.namespace).Patch(t.Context(), name, types.MergePatchType, touch, metav1.PatchOptions{}); err != nil {
			t.Error(err)
		}
	}, func(o *run.Options) { o.Source.Revision, o.Sources = commit, nil })
	if e.Verdict != event.Live || !slices.Contains(e.notices(), "planned-again") || w.value("b") != "2" {
		t.Errorf("%s, notices %q", e, e.notices())
	}
}

// A run that loses its lock in mid-flight writes nothing from then on, not even to
// its records, and leaves the Lease to whoever has it.
func TestLockLostInMidFlight(t *testing.T) {
	for name, test := range map[string]struct {
		lose func(t *testing.T, w *world, l *coordinationv1.Lease)
		text string
		left int // Leases
	}{
		"deleted": {func(t *testing.T, w *world, l *coordinationv1.Lease) {
			if err := w.client.CoordinationV1().Leases(w.namespace).Delete(t.Context(), l.Name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		}, "somebody deleted it", 0},
		"taken": {func(t *testing.T, w *world, l *coordinationv1.Lease) {
			take := []byte(`{"metadata":{"annotations":{"sluice.run/actor":"bob"}},"spec":{"holderIdentity":"somebody","leaseDurationSeconds":3600}}`)
			if _, err := w.client.CoordinationV1().Leases(w.namespace).Patch(t.Context(), l.Name, types.MergePatchType, take, metav1.PatchOptions{}); err != nil {
				t.Error(err)
			}
		}, `to "somebody" (bob, commit `, 1},
		"not renewed": {func(t *testing.T, w *world, _ *coordinationv1.Lease) {
			w.Fail(proxy.Fault{Match: func(r proxy.Request) bool { return r.Resource == "leases" }, Do: proxy.Cut()})
		}, "it could not be renewed in time", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTwice(t)
			w.commit(map[string]string{"slow.yaml": strings.ReplaceAll(deployment, "labels: {app: d}}", "labels: {app: d}, annotations: {kubetest.sluice.run/ready-delay: 10m}}")})
			commit, lost := w.set("2"), false
			var records []corev1.ConfigMap
			e := w.do(run.CommandRun, func(ev event.Event) {
				if applied, ok := ev.(event.NodeApplied); !ok || lost || applied.Node != w.namespace+"/apps" {
					return
				}
				lost = true
				held := w.leases()
				if len(held) != 1 {
					t.Errorf("held are %+v", held)
					return
				}
				records = w.recordObjects()
				w.Take()
				test.lose(t, w, &held[0])
			}, func(o *run.Options) { o.Source.Revision, o.Sources = commit, nil })
			if e.Verdict != event.VerdictFailed || e.ExitCode != 1 || !lost {
				t.Error(e)
			}
			failures := e.failures()
			if len(failures) != 1 || failures[0].Phase != "lock" || failures[0].Reason != "LockLost" || !strings.Contains(failures[0].Text, test.text) {
				t.Errorf("%+v, want LockLost with %q", failures, test.text)
			}
			if finished, ok := e.events[len(e.events)-1].(event.RunFinished); !ok || finished.Saved {
				t.Errorf("the end is %+v", e.events[len(e.events)-1])
			}
			if wrote := others(w.Requests()); len(wrote) > 0 {
				t.Errorf("without the lock it wrote %q", wrote)
			}
			if now := w.recordObjects(); !slices.EqualFunc(now, records, func(a, b corev1.ConfigMap) bool { return a.ResourceVersion == b.ResourceVersion }) {
				t.Error("records were written")
			}
			if left := w.leases(); len(left) != test.left {
				t.Errorf("Leases: %+v", left)
			}
			if a, b := w.value("a"), w.value("b"); a != "2" || b != "1" {
				t.Errorf("a is %q and b %q", a, b)
			}
		})
	}
}

// recordObjects are the ConfigMaps of all records, sorted by name.
func (w *world) recordObjects() []corev1.ConfigMap {
	w.Helper()
	list, err := w.client.CoreV1().ConfigMaps(w.namespace).List(w.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=sluice"})
	if err != nil {
		w.Fatal(err)
	}
	return list.Items
}

// What there is to repair is found out once the lock is held: what a run makes while
// status waits for it is in the record.
func TestRepairLooksUnderTheLock(t *testing.T) {
	w := newTwice(t)
	name := "sluice." + w.namespace + ".apps"
	damage := []byte(`{"data":{"inventory.json":"{"}}`)
	if _, err := w.client.CoreV1().ConfigMaps(w.namespace).Patch(t.Context(), name, types.MergePatchType, damage, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Fail(proxy.Fault{Match: proxy.To("create", "leases"), Times: 1, Do: proxy.Call(func(proxy.Request) {
		made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "made-meanwhile", Labels: map[string]string{flux.NameLabel: "apps", flux.NamespaceLabel: w.namespace}}}
		if _, err := w.client.CoreV1().ConfigMaps(w.namespace).Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
	})})
	if e := w.do(run.CommandStatus, nil, func(o *run.Options) { o.Repair, o.Source.Repo = true, "" }); e.Verdict != event.VerdictValid {
		t.Fatal(e)
	}
	repaired, err := w.client.CoreV1().ConfigMaps(w.namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if text := repaired.Data["inventory.json"]; !strings.Contains(text, "_made-meanwhile__ConfigMap") || !strings.Contains(text, "_a__ConfigMap") {
		t.Errorf("the record has %s", text)
	}
	if e := w.at("HEAD")(run.CommandRun); e.Verdict != event.Live || w.value("made-meanwhile") != "" {
		t.Error(e)
	}
	names, _ := w.configMaps()
	if !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("there are %v", names)
	}
}

// Nothing is repaired that a run has put right while status waited for the lock.
func TestRepairLeavesWhatIsRight(t *testing.T) {
	w := newTwice(t)
	name := "sluice." + w.namespace + ".apps"
	configMaps := w.client.CoreV1().ConfigMaps(w.namespace)
	before, err := configMaps.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := configMaps.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Fail(proxy.Fault{Match: proxy.To("create", "leases"), Times: 1, Do: proxy.Call(func(proxy.Request) {
		restored := before.DeepCopy()
		restored.ResourceVersion, restored.UID = "", ""
		if _, err := configMaps.Create(t.Context(), restored, metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
	})})
	w.Take()
	e := w.do(run.CommandStatus, nil, func(o *run.Options) { o.Repair, o.Source.Repo = true, "" })
	if e.Verdict != event.VerdictValid || e.Status == nil || len(e.Status.Repairs) != 0 {
		t.Errorf("%s: %+v", e, e.Status)
	}
	if wrote := others(w.Requests()); len(wrote) > 0 {
		t.Errorf("it wrote %q", wrote)
	}
}
