//go:build unix

package run_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/cli"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
	"github.com/sluicerun/sluice/internal/run"
)

// asCommand makes the test binary be the sluice command.
const asCommand = "SLUICE_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := cli.Signals(context.Background())
	code := cli.Main(ctx, os.Args, cli.System{Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	stop()
	os.Exit(code)
}

// crash is a request at which a process is killed: the n-th of those that match,
// counted from 1. The server never sees it; or it does, and the process hears no
// answer any more.
type crash struct {
	name  string
	match func(proxy.Request) bool
	n     int
	after bool
}

// crash goes the next leg with a process that is killed on its way, and then again
// with one that is not. It reports whether the process was killed.
func (j *journey) crash(at crash) bool {
	l := j.depart()
	j.Take()
	process := j.process(l)
	var output bytes.Buffer
	process.Stdout, process.Stderr = &output, &output
	started, exited := make(chan struct{}), make(chan struct{})
	kill := func() {
		<-started
		if err := process.Process.Kill(); err != nil {
			j.Error(err)
		}
		<-exited
	}
	fault := proxy.Fault{Match: at.match, Skip: at.n - 1, Times: 1}
	var faults []*proxy.Active
	if at.after {
		fault.Do = proxy.Rewrite(func(body []byte) []byte { kill(); return body })
		faults = append(faults, j.Fail(fault))
	} else {
		fault.Do = proxy.Call(func(proxy.Request) { kill() })
		faults = append(faults, j.Fail(fault))
		fault.Do = proxy.Cut()
		faults = append(faults, j.Fail(fault))
	}
	if err := process.Start(); err != nil {
		j.Fatal(err)
	}
	close(started)
	err := process.Wait()
	close(exited)
	struck := faults[0].Hits() > 0
	for _, f := range faults {
		f.Lift()
	}
	if !struck && err != nil {
		j.Errorf("the run that was not killed ended with %v:\n%s", err, output.String())
	}
	// What the server was doing for the process is done or not, but not under way.
	if err := j.AwaitIdle(j.Context()); err != nil {
		j.Fatal(err)
	}
	// Of a destroy killed at its very end nobody comes to need the lock again.
	j.breakLock(at.n%3 == 0 || l.command == run.CommandDestroy)
	j.again(l)
	if j.Failed() {
		j.Logf("killed while it had told:\n%s", output.String())
		for _, r := range j.Requests() {
			j.Log(r.N, r, r.Code)
		}
	}
	return struck
}

// process is the sluice command for a leg, by way of the proxy.
func (j *journey) process(l leg) *exec.Cmd {
	j.Helper()
	self, err := os.Executable()
	if err != nil {
		j.Fatal(err)
	}
	args := []string{string(l.command), "--path", "entry", "--kubeconfig", j.kubeconfig, "--state-namespace", j.state}
	if l.command == run.CommandDestroy {
		args = append(args, "--yes")
	} else {
		args = append(args, "--repo", j.dir, "--source", "GitRepository/"+j.namespace+"/gitops="+j.dir, "--max-prune", "100")
	}
	process := exec.CommandContext(j.Context(), self, args...)
	process.Dir = j.dir
	process.Env = []string{asCommand + "=1", "HOME=" + j.TempDir()}
	return process
}

// A run, or a destroy, that is killed at any request leaves nothing behind that the
// next one does not put right: objects, owners, records and the lock are then as
// after a run that nobody disturbed, and nothing that lives was deleted on the way.
//
// Without -run.everywhere it is killed at some requests of each kind, on one leg
// and the other in turn.
func TestKilledAtEachRequest(t *testing.T) {
	for _, way := range []struct {
		name  string
		route route
		some  []crash
	}{
		{"between two commits", between, []crash{
			{"before the lock is taken", proxy.To("create", "leases"), 1, false},
			{"when the lock is taken", proxy.To("create", "leases"), 1, true},
			{"before the root's record tells of the run", toRecord("update", "sluice-root."), 1, false},
			{"when the record of the first holds what it is about to get", toRecord("update", "sluice."), 1, true},
			{"before an object moves to another Kustomization", toObject("apply", "mover"), 1, false},
			{"when an object has moved", toObject("apply", "mover"), 1, true},
			{"when the workload is rolled out", toObject("apply", "d"), 1, true},
			{"when the Kustomization of another name has its record", toRecord("create", ""), 1, true},
			{"before the first deletion", pruning, 1, false},
			{"between two deletions", pruning, 1, true},
			{"when an object is deleted that is about to be made anew", toObject("delete", remade), 1, true},
			{"before an object is deleted that is about to be made anew", toObject("delete", remade), 1, false},
			{"when the record of the name that left is gone", toRecord("delete", "sluice."), 1, true},
			{"before the root's record tells of the end", toRecord("update", "sluice-root."), 2, false},
			{"when the root's record tells of the end", toRecord("update", "sluice-root."), 2, true},
			{"before the lock is free", proxy.To("delete", "leases"), 1, false},
		}},
		{"first install and destroy", whole, []crash{
			{"before the namespace of the records is there", proxy.To("create", "namespaces"), 1, false},
			{"before a record says that it goes", toRecord("update", "sluice."), 1, false},
			{"when the definition is there", proxy.To("apply", "customresourcedefinitions"), 1, true},
			{"when the namespace of the objects goes", proxy.To("delete", "namespaces"), 1, true},
			{"when half of the objects are there", toObject("apply", ""), 3, true},
			{"before the root's record goes", toRecord("delete", "sluice-root."), 1, false},
			{"before the last Kustomization has its record", toRecord("create", ""), 4, false},
			{"when the root's record is gone", toRecord("delete", "sluice-root."), 1, true},
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			if *everywhere {
				t.Run("before", func(t *testing.T) {
					everyone(t, way.route, func(j *journey, n int) bool { return j.crash(crash{n: n}) })
				})
				t.Run("when it is done", func(t *testing.T) {
					// What reads leaves the server as it was.
					everyone(t, way.route, func(j *journey, n int) bool { return j.crash(crash{match: proxy.Request.Writes, n: n, after: true}) })
				})
				return
			}
			t.Parallel()
			j := newJourney(t, way.route)
			for _, at := range way.some {
				j.leg(at.name, func() {
					if !j.crash(at) {
						j.Error("there was no such request")
					}
				})
			}
		})
	}
}

// toObject matches requests to what a journey is about, by verb and name; "" is any.
func toObject(verb, name string) func(proxy.Request) bool {
	return func(r proxy.Request) bool {
		return r.Verb == verb && strings.HasSuffix(r.Namespace, "-live") && (name == "" || r.Name == name)
	}
}

// pruning matches deletions of what left.
func pruning(r proxy.Request) bool { return toObject("delete", "")(r) && r.Name != remade }

// toRecord matches requests to records by verb and the beginning of their name, which
// a request that creates one does not tell.
func toRecord(verb, name string) func(proxy.Request) bool {
	return func(r proxy.Request) bool {
		return r.Verb == verb && r.Resource == "configmaps" && !strings.HasSuffix(r.Namespace, "-live") && strings.HasPrefix(r.Name, name)
	}
}
