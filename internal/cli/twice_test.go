//go:build unix

package cli_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// Tests with several processes of the command at once, on one repository and one
// namespace, which is that of the records, too.

var runsAtOnce = flag.Int("twice.runs", 3, "how many runs TestRunsAtOnce starts")

// site is where they meet.
type site struct {
	*testing.T
	namespace string
	repo      *gittest.Repo
	client    *kubernetes.Clientset

	mu   sync.Mutex
	sent []sent
}

// sent is a request of a process.
type sent struct {
	by      *contender
	request proxy.Request
}

// newSite makes one whose commits are told apart by a value: that of the ConfigMaps a,
// b and c, each of which is in a Kustomization of its own, after the one before.
func newSite(t *testing.T) *site {
	t.Helper()
	c := kubetest.Shared(t)
	s := &site{T: t, namespace: kubetest.Namespace(t, c)}
	var err error
	if s.repo, err = gittest.Create(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if s.client, err = kubernetes.NewForConfig(c.Config()); err != nil {
		t.Fatal(err)
	}
	return s
}

// set commits a value and returns the commit.
func (s *site) set(value string) string {
	s.Helper()
	var changes []gittest.Change
	needs := ""
	for _, name := range []string{"a", "b", "c"} {
		changes = append(changes,
			gittest.File("entry/"+name+".yaml", fmt.Sprintf("apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: %s, namespace: %s}\n"+
				"spec: {interval: 5m, prune: true, path: %s, dependsOn: [%s], sourceRef: {kind: GitRepository, name: gitops}}\n", name, s.namespace, name, needs)),
			gittest.File(name+"/config.yaml", fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %s}\ndata: {x: %q}\n", name, s.namespace, value)))
		needs = "{name: " + name + "}"
	}
	hash, err := s.repo.Commit("set "+value, changes...)
	if err != nil {
		s.Fatal(err)
	}
	return hash
}

// values are those of the ConfigMaps in the cluster.
func (s *site) values() string {
	s.Helper()
	var all []string
	for _, name := range []string{"a", "b", "c"} {
		c, err := s.client.CoreV1().ConfigMaps(s.namespace).Get(s.Context(), name, metav1.GetOptions{})
		if err != nil {
			s.Fatal(err)
		}
		all = append(all, c.Data["x"])
	}
	return strings.Join(all, " ")
}

// records are the versions of all records, by name.
func (s *site) records() string {
	s.Helper()
	list, err := s.client.CoreV1().ConfigMaps(s.namespace).List(s.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=sluice"})
	if err != nil {
		s.Fatal(err)
	}
	var all []string
	for _, c := range list.Items {
		all = append(all, c.Name+"@"+c.ResourceVersion)
	}
	return strings.Join(all, " ")
}

// unlocked checks that nobody has the lock.
func (s *site) unlocked() {
	s.Helper()
	list, err := s.client.CoordinationV1().Leases(s.namespace).List(s.Context(), metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	if len(list.Items) > 0 {
		s.Errorf("the lock is still there: %+v", list.Items)
	}
}

// contender is a run with a way of its own to the server.
type contender struct {
	*exec.Cmd
	*proxy.Proxy
	commit string
	out    bytes.Buffer
}

// prepare makes a run that waits for the lock. It is started by the caller.
func (s *site) prepare(commit string) *contender {
	s.Helper()
	p := &contender{Proxy: proxy.New(s.T, kubetest.Shared(s.T)), commit: commit}
	home := s.TempDir()
	kubeconfig := filepath.Join(home, "kubeconfig")
	if err := p.WriteKubeconfig(kubeconfig); err != nil {
		s.Fatal(err)
	}
	p.Fail(proxy.Fault{Do: proxy.Call(func(r proxy.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sent = append(s.sent, sent{p, r})
	})})
	p.Cmd = exec.Command("sluice", "run", "--repo", s.repo.Dir, "--revision", commit, "--path", "entry", "--kubeconfig", kubeconfig,
		"--state-namespace", s.namespace, "--lock-wait", "20m", "--output", "text", "--verbose")
	p.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + home}
	p.Stdout, p.Stderr = &p.out, &p.out
	return p
}

// start starts one.
func (s *site) start(commit string) *contender {
	s.Helper()
	p := s.prepare(commit)
	s.begin(p)
	return p
}

func (s *site) begin(p *contender) {
	s.Helper()
	if err := p.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill() // the test has failed; it may be over
			_ = p.Wait()
		}
	})
}

// ends waits for the end of a process and returns its exit code.
func (s *site) ends(p *contender) int {
	s.Helper()
	err := p.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.Fatal(err)
	}
	return p.ProcessState.ExitCode()
}

// written are what a process sent that was to change something, but Leases.
func written(p *contender) []string {
	return proxy.Writing(slices.DeleteFunc(p.Requests(), func(r proxy.Request) bool { return r.Resource == "leases" }))
}

func applies(name string) func(proxy.Request) bool {
	return func(r proxy.Request) bool { return r.Verb == "apply" && r.Resource == "configmaps" && r.Name == name }
}

// Runs that are started at once on one root, of the same commit and of others: one
// works at a time, none goes back, and in the end the newest commit is live.
func TestRunsAtOnce(t *testing.T) {
	s := newSite(t)
	var runs []*contender
	at := map[string]int{} // how new a commit is
	for i := range *runsAtOnce {
		commit := s.set(fmt.Sprint(i))
		at[commit] = i
		runs = append(runs, s.prepare(commit))
	}
	newest := runs[len(runs)-1].commit
	runs = append(runs, s.prepare(newest))
	rand.New(rand.NewPCG(7, 0)).Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
	for _, p := range runs {
		s.begin(p)
	}
	live := 0
	for _, p := range runs {
		switch code := s.ends(p); {
		case code == 0:
			live++
		case code == 4 && p.commit != newest && strings.Contains(p.out.String(), "is older than"):
			if wrote := written(p); len(wrote) > 0 {
				t.Errorf("refused, it had written %q", wrote)
			}
		default:
			t.Errorf("commit %d: exit code %d\n%s", at[p.commit], code, &p.out)
		}
	}
	t.Logf("%d runs, %d of them live, the others refused", len(runs), live)
	var order []*contender
	for _, r := range s.sent {
		if !r.request.Writes() || r.request.Resource == "leases" || len(order) > 0 && order[len(order)-1] == r.by {
			continue
		}
		if slices.Contains(order, r.by) {
			t.Errorf("two runs wrote at once: %s", r.request)
		}
		if len(order) > 0 && at[order[len(order)-1].commit] > at[r.by.commit] {
			t.Errorf("commit %d after commit %d", at[r.by.commit], at[order[len(order)-1].commit])
		}
		order = append(order, r.by)
	}
	if want := strings.TrimSpace(strings.Repeat(fmt.Sprintf("%d ", *runsAtOnce-1), 3)); s.values() != want {
		t.Errorf("the values are %s, want %s", s.values(), want)
	}
	s.unlocked()
	if p := s.start(newest); s.ends(p) != 0 || !strings.Contains(p.out.String(), "LIVE") || strings.Contains(p.out.String(), "configured") {
		t.Errorf("once more: %s", &p.out)
	}
}

// A run is killed while another waits for its lock. That one has made its plan, and
// what the first did after that is in no record that would have changed: it converges
// all the same, in this same run, once the lock has expired.
func TestKilledWhileAnotherWaits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if p := s.start(s.set("1")); s.ends(p) != 0 {
		t.Fatal(&p.out)
	}
	broken, revert := s.set("2"), s.set("1")
	first := s.prepare(broken)
	hang := first.Fail(proxy.Fault{Match: applies("b"), Times: 1, Do: proxy.Hang()})
	first.Fail(proxy.Fault{Match: applies("c"), Do: proxy.Call(func(proxy.Request) {
		if err := first.Process.Kill(); err != nil {
			t.Error(err)
		}
	})})
	first.Fail(proxy.Fault{Match: applies("c"), Do: proxy.Hang()}) // until it is dead
	s.begin(first)
	if err := hang.Await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	second := s.prepare(revert)
	asks := second.Fail(proxy.Fault{Match: proxy.To("create", "leases"), Do: proxy.Call(func(proxy.Request) {})})
	s.begin(second)
	if err := asks.Await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if got := s.values(); got != "2 1 1" {
		t.Errorf("the values are %s when the second has planned", got)
	}
	hang.Release()
	if code := s.ends(first); code != -1 {
		t.Errorf("the first was not killed: %d\n%s", code, &first.out)
	}
	if got := s.values(); got != "2 2 1" {
		t.Errorf("the values are %s when the first is dead", got)
	}
	if code := s.ends(second); code != 0 || !strings.Contains(second.out.String(), "looking at the cluster again") {
		t.Errorf("the second: exit code %d\n%s", code, &second.out)
	}
	if got := s.values(); got != "1 1 1" {
		t.Errorf("the values are %s in the end", got)
	}
	s.unlocked()
}

// A process that is stopped for longer than its lock lasts, as with a machine that is
// frozen, writes nothing when it goes on: it is the time that tells it, before
// anything else could.
func TestStoppedProcessWritesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if p := s.start(s.set("1")); s.ends(p) != 0 {
		t.Fatal(&p.out)
	}
	first := s.prepare(s.set("2"))
	hang := first.Fail(proxy.Fault{Match: applies("b"), Times: 1, Do: proxy.Hang()})
	s.begin(first)
	if err := hang.Await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := first.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(first.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("%v, %v", status, err)
	}
	hang.Release() // what was under way arrives
	second := s.start(s.set("3"))
	if code := s.ends(second); code != 0 {
		t.Errorf("the second: exit code %d\n%s", code, &second.out)
	}
	records := s.records()
	first.Take()
	if err := first.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if code := s.ends(first); code != 1 || !strings.Contains(first.out.String(), "lost the lock") {
		t.Errorf("the first: exit code %d\n%s", code, &first.out)
	}
	if wrote := written(first); len(wrote) > 0 {
		t.Errorf("without the lock it wrote %q", wrote)
	}
	if got := s.values(); got != "3 3 3" {
		t.Errorf("the values are %s", got)
	}
	if s.records() != records {
		t.Errorf("the records were %s and are %s", records, s.records())
	}
	s.unlocked()
}
