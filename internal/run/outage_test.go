//go:build unix

package run_test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/run"
)

// long lets the outages be tried that take longer than a test should.
var long = flag.Bool("outage.long", false, "also try outages of 20 seconds and more")

// during runs a command, and an outage that begins at the first event of a kind: nothing goes on behind that event before the
// outage has begun. The outage ends after a time, and the run goes on to its end.
func (w *world) during(begin func() *kubetest.Outage, lasts time.Duration, at func(event.Event) bool) ended {
	w.Helper()
	reached, begun := make(chan struct{}), make(chan struct{})
	var once sync.Once
	result := make(chan ended, 1)
	go func() {
		result <- w.do(run.CommandRun, func(e event.Event) {
			if at(e) {
				once.Do(func() { close(reached) })
				<-begun
			}
		})
	}()
	select {
	case <-reached:
	case e := <-result:
		w.Fatalf("it did not come to that: %s", e)
	}
	outage := begin()
	close(begun)
	time.Sleep(lasts) // the outage itself: nothing is waited for
	outage.End()
	return <-result
}

// many are so many ConfigMaps, and a Deployment that becomes ready after a while.
func many(n int, value string) map[string]string {
	files := map[string]string{"d.yaml": strings.Replace(deployment, "template: {metadata: {",
		`template: {metadata: {annotations: {kubetest.sluice.run/ready-delay: 3s, value: "`+value+`"}, `, 1)}
	for i := range n {
		files[fmt.Sprintf("m%02d.yaml", i)] = fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m%02d, namespace: NAMESPACE}\ndata: {x: %q}\n", i, value)
	}
	return files
}

// Whatever part of the control plane goes away while a run is at work, and comes back soon, the run goes on where it was and ends
// well; if the outage lasts longer than a lock lives, the run stops writing and says so. In any case nothing is deleted that is
// in Git, no lock is left behind that somebody renews, and the next run ends well and finds nothing of the last one left over.
func TestOutagesDuringARun(t *testing.T) {
	c, err := kubetest.Start(t.Context(), kubetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	restart := func(t *testing.T) func() *kubetest.Outage {
		return func() *kubetest.Outage { return c.Terminate(t, kubetest.APIServer) }
	}
	crash := func(t *testing.T) func() *kubetest.Outage {
		return func() *kubetest.Outage { return c.Kill(t, kubetest.APIServer) }
	}
	stopEtcd := func(t *testing.T) func() *kubetest.Outage {
		return func() *kubetest.Outage { return c.Freeze(t, kubetest.Etcd) }
	}
	crashEtcd := func(t *testing.T) func() *kubetest.Outage {
		return func() *kubetest.Outage { return c.Kill(t, kubetest.Etcd) }
	}
	applying := func(e event.Event) bool { return is[event.ObjectApplied](e) }
	waiting := func(e event.Event) bool { applied, ok := e.(event.NodeApplied); return ok && applied.Waiting > 0 }
	pruning := func(e event.Event) bool { return is[event.PruneStarted](e) }
	for _, test := range []struct {
		name  string
		begin func(*testing.T) func() *kubetest.Outage
		at    func(event.Event) bool
		lasts time.Duration
		long  bool
	}{
		{"the API server restarts while objects are applied", restart, applying, 0, false},
		{"the API server crashes while health is waited for", crash, waiting, 0, false},
		{"the API server restarts while objects are pruned", restart, pruning, 0, false},
		{"etcd stands still while objects are applied", stopEtcd, applying, 2 * time.Second, false},
		{"etcd crashes while objects are pruned", crashEtcd, pruning, 0, false},
		{"etcd stands still for 20 s while objects are applied", stopEtcd, applying, 20 * time.Second, true},
		{"etcd stands still for 20 s while health is waited for", stopEtcd, waiting, 20 * time.Second, true},
		{"etcd stands still for 20 s while objects are pruned", stopEtcd, pruning, 20 * time.Second, true},
		{"etcd is gone for 20 s while objects are applied", crashEtcd, applying, 20 * time.Second, true},
		{"the API server is gone for 20 s while objects are applied", crash, applying, 20 * time.Second, true},
		{"the API server is gone for 20 s while objects are pruned", crash, pruning, 20 * time.Second, true},
		{"the API server is gone for a minute while objects are applied", crash, applying, time.Minute, true},
		{"etcd stands still for a minute while objects are applied", stopEtcd, applying, time.Minute, true},
		{"etcd stands still for a minute while objects are pruned", stopEtcd, pruning, time.Minute, true},
	} {
		if test.long && !*long {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			const objects = 24
			w := newWorldIn(t, c, many(objects, "1"))
			w.kubeconfig = c.Kubeconfig() // no proxy: what the server does is what counts
			w.live()
			// Half of them leave Git, the others change.
			files := many(objects/2, "2")
			for i := objects / 2; i < objects; i++ {
				files[fmt.Sprintf("m%02d.yaml", i)] = ""
			}
			w.commit(files)
			began := time.Now()
			e := w.during(test.begin(t), test.lasts, test.at)
			took := time.Since(began)
			t.Logf("%s, after %s", e, took.Round(100*time.Millisecond))

			if last, ok := e.events[len(e.events)-1].(event.RunFinished); !ok || last.Verdict != e.Verdict {
				t.Error("the run has no end")
			}
			var kept []string
			for i := range objects / 2 {
				kept = append(kept, fmt.Sprintf("m%02d", i))
			}
			names, _ := w.configMaps()
			for _, name := range kept {
				if !slices.Contains(names, name) {
					t.Errorf("%s is gone, which is in Git", name)
				}
			}
			switch {
			case e.Verdict == event.Live:
				if !slices.Equal(names, kept) {
					t.Errorf("it says that it is live, and there is %v", names)
				}
				if held := w.leases(); len(held) > 0 {
					t.Errorf("the lock is still held: %+v", held)
				}
			case took < 20*time.Second:
				t.Error("an outage as short as that is one to get over")
			case len(e.failures()) == 0:
				t.Error("it failed, and does not say why")
			}
			for _, f := range e.failures() {
				if f.Reason == "" || f.Reason == "InternalError" || f.Text == "" {
					t.Errorf("%+v", f)
				}
			}
			// A lock that was lost frees itself.
			e = w.do(run.CommandRun, nil, func(o *run.Options) { o.LockWait, o.Identity = time.Minute, "the next one" })
			if e.Verdict != event.Live {
				t.Errorf("the next run: %s", e)
			}
			if names, records := w.configMaps(); !slices.Equal(names, kept) || len(records) != 3 {
				t.Errorf("in the end there is %v, and of records %v", names, records)
			}
			if e := w.do(run.CommandPlan, nil); e.Verdict != event.VerdictPlanned || len(e.planned()) > 0 {
				t.Errorf("there is something left to do: %s: %v", e, e.planned())
			}
		})
	}
}
