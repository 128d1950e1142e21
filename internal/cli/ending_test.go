//go:build unix

package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sluicerun/sluice/internal/gittest"
	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

var (
	instants    = flag.Int("signals.instants", 6, "how many runs TestSignalsAtRandomInstants stops")
	instantSeed = flag.Uint64("signals.seed", 1, "which instants these are")
)

// contract is how long sluice may take to end after a signal. It is no measure of
// speed but what users rely on: CI systems kill soon after.
const contract = 5 * time.Second

// atLast is when a test gives up on it: on a machine that is busy with many tests a
// process that has counted its five seconds gets to its end some seconds later.
const atLast = 2 * contract

// ending is a repository, a namespace in a cluster behind a proxy, and processes
// that are told to end.
type ending struct {
	*testing.T
	*proxy.Proxy
	namespace, dir, out, kubeconfig string
	repo                            *gittest.Repo
	paths                           []string // what the last commit has
	client                          *kubernetes.Clientset
	schema                          *jsonschema.Schema
	hanging                         *proxy.Active
}

func newEnding(t *testing.T) *ending {
	t.Helper()
	c := kubetest.Shared(t)
	e := &ending{T: t, Proxy: proxy.New(t, c), namespace: kubetest.Namespace(t, c), dir: t.TempDir(), out: t.TempDir()}
	var err error
	if e.repo, err = gittest.Create(e.dir); err != nil {
		t.Fatal(err)
	}
	e.kubeconfig = filepath.Join(e.out, "kubeconfig")
	if err := e.WriteKubeconfig(e.kubeconfig); err != nil {
		t.Fatal(err)
	}
	if e.client, err = kubernetes.NewForConfig(c.Config()); err != nil {
		t.Fatal(err)
	}
	if e.schema, err = jsonschema.NewCompiler().Compile("../../docs/report.schema.json"); err != nil {
		t.Fatal(err)
	}
	return e
}

// commit makes the repository hold exactly the Kustomizations, each with its
// objects; "after" of one is what it depends on.
func (e *ending) commit(kustomizations ...holder) {
	e.Helper()
	var changes []gittest.Change
	for _, path := range e.paths {
		changes = append(changes, gittest.Remove(path))
	}
	e.paths = nil
	add := func(path, content string) {
		e.paths = append(e.paths, path)
		changes = append(changes, gittest.File(path, content))
	}
	for _, k := range kustomizations {
		after := ""
		if k.after != "" {
			after = ", dependsOn: [{name: " + k.after + "}]"
		}
		add("entry/"+k.name+".yaml", fmt.Sprintf(
			"apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: %s, namespace: %s}\n"+
				"spec: {interval: 5m, timeout: 2m, retryInterval: 1s, prune: true, path: %s, sourceRef: {kind: GitRepository, name: gitops}%s}\n",
			k.name, e.namespace, k.name, after))
		for i, object := range k.objects {
			add(fmt.Sprintf("%s/%d.yaml", k.name, i), strings.ReplaceAll(object, "NAMESPACE", e.namespace))
		}
	}
	if _, err := e.repo.Commit("a commit", changes...); err != nil {
		e.Fatal(err)
	}
}

type holder struct {
	name, after string
	objects     []string
}

func config(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: NAMESPACE}\ndata: {x: %q}\n", name, value)
}

func workload(name, image, readyAfter string) string {
	return fmt.Sprintf("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: %s, namespace: NAMESPACE}\nspec:\n  selector: {matchLabels: {app: %[1]s}}\n"+
		"  template:\n    metadata: {labels: {app: %[1]s}, annotations: {kubetest.sluice.run/ready-delay: %s}}\n"+
		"    spec: {containers: [{name: c, image: \"example.com/c:%s\"}]}\n", name, readyAfter, image)
}

// command is sluice with the arguments that all commands of these tests have in
// common; --path is only for those that take it.
func (e *ending) command(args ...string) *exec.Cmd {
	cmd := exec.Command("sluice", args...)
	cmd.Env = append(os.Environ(), "HOME="+e.out, "SLUICE_KUBECONFIG="+e.kubeconfig, "SLUICE_STATE_NAMESPACE="+e.namespace, "SLUICE_REPO="+e.dir,
		"SLUICE_PATH=entry", "SLUICE_SOURCE=GitRepository/"+e.namespace+"/gitops="+e.dir, "GITHUB_ACTIONS=", "GITLAB_CI=")
	return cmd
}

// process is a sluice that runs.
type process struct {
	*exec.Cmd
	e     *ending
	lines chan string // of its standard output; closed at its end
	log   bytes.Buffer
	// errors is its standard error: a file, since what it leaves behind may keep
	// a pipe open.
	errors string
}

// start starts a command whose log is read line by line.
func (e *ending) start(cmd *exec.Cmd) *process {
	e.Helper()
	p := &process{Cmd: cmd, e: e, lines: make(chan string, 10000), errors: filepath.Join(e.out, "stderr")}
	out, err := cmd.StdoutPipe()
	if err != nil {
		e.Fatal(err)
	}
	errs, err := os.Create(p.errors)
	if err != nil {
		e.Fatal(err)
	}
	defer errs.Close()
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		e.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadString('\n')
			p.log.WriteString(line)
			if err != nil {
				return // the pipe's end
			}
			p.lines <- line
		}
	}()
	return p
}

// await returns when a line of the log holds the text.
func (p *process) await(text string) {
	p.e.Helper()
	for line := range p.lines {
		if strings.Contains(line, text) {
			return
		}
	}
	p.e.Fatalf("the log ended without %q:\n%s", text, p.said())
}

// said is all that it has said.
func (p *process) said() string {
	text, err := os.ReadFile(p.errors)
	if err != nil {
		p.e.Error(err)
	}
	return p.log.String() + string(text)
}

// stop sends a signal and waits for the end, which it returns with the time that it
// took.
func (p *process) stop(s syscall.Signal) (code int, took time.Duration) {
	p.e.Helper()
	at := time.Now()
	if err := p.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.e.Fatal(err)
	}
	code = p.end()
	took = time.Since(at)
	if took > atLast {
		p.e.Errorf("it took %s to end after %v, at most %s are allowed", took, s, contract)
	}
	return code, took
}

// end waits for the end.
func (p *process) end() int {
	p.e.Helper()
	for range p.lines { // until it closes them
	}
	var exit *exec.ExitError
	if err := p.Wait(); err != nil && !errors.As(err, &exit) {
		p.e.Fatal(err)
	}
	return p.ProcessState.ExitCode()
}

// run runs a command to its end, which must be a good one.
func (e *ending) run(args ...string) []byte {
	e.Helper()
	text, err := e.command(args...).Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		e.Fatalf("sluice %v: %v\n%s%s", args, err, text, exit.Stderr)
	}
	return text
}

// reportOf reads a report, which must be as the schema says.
func (e *ending) reportOf(file string) (report struct {
	Result   string
	ExitCode int
	Saved    bool
	Failures []struct{ Reason, Text, Object string }
}) {
	e.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		e.Errorf("there is no report: %v", err)
		return report
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		err = e.schema.Validate(document)
	}
	if err == nil {
		err = json.Unmarshal(text, &report)
	}
	if err != nil {
		e.Errorf("the report is not valid: %v\n%s", err, text)
	}
	return report
}

// free fails the test if somebody holds the lock.
func (e *ending) free() {
	e.Helper()
	leases, err := e.client.CoordinationV1().Leases(e.namespace).List(e.Context(), metav1.ListOptions{})
	if err != nil {
		e.Fatal(err)
	}
	for _, l := range leases.Items {
		if l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity != "" {
			e.Errorf("the lock is still held by %s", *l.Spec.HolderIdentity)
		}
	}
}

// objects are the names of what Kustomizations have in the namespace.
func (e *ending) objects() []string {
	e.Helper()
	var names []string
	configs, err := e.client.CoreV1().ConfigMaps(e.namespace).List(e.Context(), metav1.ListOptions{LabelSelector: "kustomize.toolkit.fluxcd.io/name"})
	if err != nil {
		e.Fatal(err)
	}
	for _, c := range configs.Items {
		names = append(names, fmt.Sprintf("%s/%s=%s", c.Labels["kustomize.toolkit.fluxcd.io/name"], c.Name, c.Data["x"]))
	}
	deployments, err := e.client.AppsV1().Deployments(e.namespace).List(e.Context(), metav1.ListOptions{})
	if err != nil {
		e.Fatal(err)
	}
	for _, d := range deployments.Items {
		names = append(names, fmt.Sprintf("%s/%s=%s", d.Labels["kustomize.toolkit.fluxcd.io/name"], d.Name, d.Spec.Template.Spec.Containers[0].Image))
	}
	slices.Sort(names)
	return names
}

// explained fails the test if the records cannot be read, or if something carries
// owner labels and is in none of them.
func (e *ending) explained() {
	e.Helper()
	var status struct {
		Orphans    []any
		Unreadable []any
		Roots      []struct{ Lock any }
	}
	cmd := e.command("status", "-o", "json")
	cmd.Env = append(cmd.Env, "SLUICE_PATH=") // a run that ended early has no root on record
	text, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(text, &status)
	}
	if err != nil {
		e.Fatalf("status: %v\n%s", err, text)
	}
	if len(status.Unreadable) > 0 {
		e.Errorf("records that cannot be read: %v", status.Unreadable)
	}
	for _, orphan := range status.Orphans {
		if text := fmt.Sprint(orphan); strings.Contains(text, e.namespace) {
			e.Errorf("in no record: %v", orphan)
		}
	}
}

var (
	firstCommit = []holder{
		{"base", "", []string{config("one", "1"), config("two", "1"), config("moved", "1")}},
		{"apps", "base", []string{config("settings", "1"), workload("app", "v1", "200ms")}},
		{"web", "apps", []string{config("page", "1"), config("gone", "1")}},
	}
	secondCommit = []holder{
		{"base", "", []string{config("one", "2"), config("two", "1")}},
		{"apps", "base", []string{config("settings", "1"), workload("app", "v2", "200ms"), config("moved", "2")}},
		{"web", "apps", []string{config("page", "2"), config("new", "2")}},
	}
)

// The contract: INT, TERM or HUP at any instant of a run that installs, or that
// changes, moves and prunes. The process ends within 5 seconds, its reports are
// valid, its lock is free, the records know everything that is in the cluster, and
// the next run brings the cluster to where an undisturbed one would have.
func TestSignalsAtRandomInstants(t *testing.T) {
	random := rand.New(rand.NewPCG(*instantSeed, 0))
	wanted := []string{"apps/app=example.com/c:v2", "apps/moved=2", "apps/settings=1", "base/one=2", "base/two=1", "web/new=2", "web/page=2"}
	lengths := map[bool]int{} // lines of the log of such a run that nobody stops
	var longest time.Duration
	ends := map[string]int{}
	for i := range *instants {
		install := i%2 == 0
		signal := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}[random.IntN(3)]
		where, pause := random.Float64(), time.Duration(random.IntN(30))*time.Millisecond
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			e := newEnding(t)
			if !install || lengths[install] == 0 {
				e.commit(firstCommit...)
				log := e.run("run", "--output", "json")
				if install {
					lengths[true] = bytes.Count(log, []byte("\n"))
					e.run("destroy", "--yes")
				}
			}
			if !install && lengths[false] == 0 {
				e.commit(secondCommit...)
				lengths[false] = bytes.Count(e.run("run", "--output", "json"), []byte("\n"))
				e.commit(firstCommit...)
				e.run("run", "--allow-rollback")
			}
			e.commit(secondCommit...)
			report, junit := filepath.Join(e.out, "report.json"), filepath.Join(e.out, "junit.xml")
			p := e.start(e.command("run", "--output", "json", "--report", "json="+report, "--report", "junit="+junit))
			at := 1 + int(where*float64(lengths[install]-1))
			for range at {
				<-p.lines // or its end
			}
			select { // an instant between two lines
			case <-time.After(pause):
			case <-t.Context().Done():
			}
			code, took := p.stop(signal)
			longest = max(longest, took)
			if code != 0 && code != 128+int(signal) {
				t.Errorf("exit code %d after %v\n%s", code, signal, p.log.String())
			}
			ends[fmt.Sprint(code)]++
			told := e.reportOf(report)
			if told.ExitCode != code || (code == 0) != (told.Result == "success" || told.Result == "no-changes") {
				t.Errorf("exit code %d, report: %+v", code, told)
			}
			if text, err := os.ReadFile(junit); err != nil || validXML(text) != nil {
				t.Errorf("junit: %v, %v\n%s", err, validXML(text), text)
			}
			if lines := p.log.Bytes(); bytes.Contains(lines, []byte(`"node-found"`)) {
				if err := validEvents(lines); err != nil {
					t.Errorf("log: %v\n%s", err, lines)
				}
			}
			e.free()
			e.explained()
			e.run("run")
			if got := e.objects(); !slices.Equal(got, wanted) {
				t.Errorf("after the next run there is %v, want %v", got, wanted)
			}
			e.explained()
			t.Logf("%v at line %d of %d: exit code %d after %s", signal, at, lengths[install], code, took)
		})
	}
	t.Logf("seed %d: exit codes %v; the longest end took %s", *instantSeed, ends, longest)
}

// What never answers, never comes and never ends must not keep a process that is
// told to stop.
func TestSignalsWhileSomethingHangs(t *testing.T) {
	slow := []holder{{"apps", "", []string{config("one", "1"), workload("app", "v1", "10m")}}}
	quick := []holder{{"apps", "", []string{config("one", "1"), config("two", "1")}}}
	hang := func(match func(proxy.Request) bool) func(*ending) {
		return func(e *ending) { e.hanging = e.Fail(proxy.Fault{Match: match, Do: proxy.Hang()}) }
	}
	hung := func(e *ending, _ *process) {
		e.Helper()
		if err := e.hanging.Await(e.Context(), 1); err != nil {
			e.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		commit  []holder
		before  func(*ending)
		args    []string
		until   func(*ending, *process) // what to wait for before the signal
		saved   bool
		held    bool // the server cannot be told that the lock is free
		unknown string
	}{
		"a request that changes an object": {commit: quick, args: []string{"run"},
			before: hang(func(r proxy.Request) bool { return r.Verb == "apply" && r.Resource == "configmaps" && r.Name == "one" }),
			until:  hung, saved: true, unknown: "ConfigMap/NAMESPACE/one"},
		"every request": {commit: quick, args: []string{"run"}, before: hang(func(proxy.Request) bool { return true }),
			until: hung, saved: true},
		"every request from the first write on": {commit: quick, args: []string{"run"},
			before: func(e *ending) {
				begun := false
				e.hanging = e.Fail(proxy.Fault{Match: func(r proxy.Request) bool {
					begun = begun || r.Verb == "apply" && r.Resource == "configmaps" && r.Name == "one"
					return begun
				}, Do: proxy.Hang()})
			},
			until: hung, held: true, unknown: "ConfigMap/NAMESPACE/one"},
		"the headers of watches": {commit: slow, args: []string{"run"}, before: hang(func(r proxy.Request) bool { return r.Verb == "watch" }),
			until: func(e *ending, p *process) { p.await("node-applied") }, saved: true},
		"health": {commit: slow, args: []string{"run"}, until: func(e *ending, p *process) { p.await("node-applied") }, saved: true},
		"a server that is busy for a long time": {commit: quick, args: []string{"run"},
			before: func(e *ending) {
				e.Fail(proxy.Fault{Match: func(r proxy.Request) bool { return r.Verb == "apply" && r.Resource == "configmaps" && r.Name == "one" }, Do: proxy.Answer(429, 100)})
			},
			until: func(e *ending, p *process) { p.await("server-busy") }, saved: true},
		"a plan": {commit: quick, args: []string{"plan"}, before: hang(func(r proxy.Request) bool { return r.Verb == "dry-run" }),
			until: hung, saved: true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnding(t)
			e.commit(test.commit...)
			if test.before != nil {
				test.before(e)
			}
			report := filepath.Join(e.out, "report.json")
			p := e.start(e.command(append(test.args, "--output", "json", "--report", "json="+report)...))
			test.until(e, p)
			code, took := p.stop(syscall.SIGTERM)
			if code != 143 {
				t.Errorf("exit code %d\n%s", code, p.log.String())
			}
			told := e.reportOf(report)
			if told.Result != "cancelled" || told.Saved != test.saved {
				t.Errorf("report: %+v\n%s", told, p.log.String())
			}
			if !test.held {
				e.free()
			}
			var unknown []string
			for _, f := range told.Failures {
				if f.Reason == "OutcomeUnknown" {
					unknown = append(unknown, f.Object)
				}
			}
			if want := strings.ReplaceAll(test.unknown, "NAMESPACE", e.namespace); want != "" && !slices.Contains(unknown, want) || want == "" && len(unknown) > 0 {
				t.Errorf("of unknown outcome are %q, want %q: %+v", unknown, want, told.Failures)
			}
			t.Logf("ended after %s", took)
		})
	}
}

// Who reads the log may go away, or stop to read: the run goes on, and a signal
// still ends it in time.
func TestSignalsWhenNobodyReads(t *testing.T) {
	e := newEnding(t)
	e.commit(holder{"apps", "", []string{config("one", "1")}})
	report := filepath.Join(e.out, "report.json")

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := e.command("run", "--report", "json="+report)
	cmd.Stdout, cmd.Stderr = w, w
	r.Close() // before the first line
	if err := cmd.Run(); err != nil {
		t.Errorf("without a reader: %v", err)
	}
	w.Close()
	if told := e.reportOf(report); told.Result != "success" {
		t.Errorf("without a reader: %+v", told)
	}
	e.free()

	// A full pipe.
	many := holder{name: "apps"}
	for i := range 400 {
		many.objects = append(many.objects, config(fmt.Sprintf("a-name-that-makes-the-log-long-%d", i), strings.Repeat("x", 10)))
	}
	e.commit(many)
	if r, w, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	freed := e.Fail(proxy.Fault{Match: proxy.To("delete", "leases"), Do: proxy.Call(func(proxy.Request) {})})
	cmd = e.command("run", "--output", "json", "--report", "json="+report)
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	within, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("the run does not go on though only its log is stuck"))
	defer cancel()
	if err := freed.Await(within, 1); err != nil {
		t.Fatal(err, context.Cause(within))
	}
	at := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = <-ended
	if took := time.Since(at); took > atLast {
		t.Errorf("it took %s to end", took)
	}
	if err != nil {
		t.Errorf("a signal after the verdict must not change the exit code: %v", err)
	}
	if told := e.reportOf(report); told.Result != "success" || len(e.objects()) != len(many.objects) {
		t.Errorf("with a reader that does not read: %+v", told)
	}
	e.free()
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Error(err)
	}
}

// What cannot be interrupted is left behind: a flag's file that is a pipe which
// nobody writes to, before the run has begun.
func TestSignalsWhileAFileHangs(t *testing.T) {
	e := newEnding(t)
	e.commit(holder{"apps", "", []string{config("one", "1")}})
	pipe := filepath.Join(e.out, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	p := e.start(e.command("run", "--output", "json", "--vars-file", pipe))
	// Who opens the other end knows that sluice waits at this one.
	opened, failed := make(chan *os.File, 1), make(chan error, 1)
	go func() {
		f, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		if err != nil {
			failed <- err
			return
		}
		opened <- f
	}()
	select {
	case f := <-opened:
		defer f.Close()
	case err := <-failed:
		t.Fatal(err)
	case <-time.After(time.Minute):
		t.Fatal("nobody reads the pipe")
	}
	code, took := p.stop(syscall.SIGINT)
	if code != 130 {
		t.Errorf("exit code %d\n%s", code, p.said())
	}
	t.Logf("ended after %s", took)
}

// A second signal ends the process at once. One that comes within a moment, as
// timeout(1) sends it twice, and a HUP at any time, are no second one.
func TestSecondSignal(t *testing.T) {
	for name, test := range map[string]struct {
		more  syscall.Signal
		again bool // until the end
		codes []int
		told  bool
	}{
		"later":             {syscall.SIGTERM, true, []int{143}, false},
		"the same at once":  {syscall.SIGINT, false, []int{130}, true},
		"another at once":   {syscall.SIGTERM, false, []int{130, 143}, true}, // the kernel promises no order
		"a HUP at any time": {syscall.SIGHUP, true, []int{130, 129}, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnding(t)
			e.commit(holder{"apps", "", []string{config("one", "1")}})
			report := filepath.Join(e.out, "report.json")
			e.hanging = e.Fail(proxy.Fault{Match: func(r proxy.Request) bool { return r.Verb == "apply" && r.Name == "one" }, Do: proxy.Hang()})
			p := e.start(e.command("run", "--output", "json", "--report", "json="+report))
			if err := e.hanging.Await(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			p.signal(syscall.SIGINT)
			p.signal(test.more)
			ended := make(chan int, 1)
			go func() { ended <- p.end() }()
			ticker := time.NewTicker(100 * time.Millisecond)
			defer ticker.Stop()
			code, over := 0, false
			for !over {
				select {
				case code = <-ended:
					over = true
				case <-ticker.C:
					if test.again {
						p.signal(test.more)
					}
				}
			}
			if !slices.Contains(test.codes, code) {
				t.Errorf("exit code %d, want %v\n%s", code, test.codes, p.said())
			}
			if _, err := os.Stat(report); (err == nil) != test.told {
				t.Errorf("report: %v, want one: %v", err, test.told)
			}
		})
	}
}

func (p *process) signal(s syscall.Signal) {
	p.e.Helper()
	if err := p.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.e.Error(err)
	}
}

// A disk that is full costs the reports that are on it, and no others; nor what is
// in the cluster.
func TestReportsOnAFullDisk(t *testing.T) {
	e := newEnding(t)
	e.commit(holder{"apps", "", []string{config("one", "1")}})
	summary, outputs := "/dev/full", "/dev/full"
	report := filepath.Join(e.out, "report.json")
	locked := filepath.Join(e.out, "gone")
	if err := os.Mkdir(locked, 0o700); err != nil {
		t.Fatal(err)
	}
	freed := e.Fail(proxy.Fault{Match: proxy.To("delete", "leases"), Do: proxy.Call(func(proxy.Request) {
		if err := os.Remove(locked); err != nil {
			t.Error(err)
		}
	})})
	cmd := e.command("run", "--output", "github", "--report", "junit="+filepath.Join(locked, "junit.xml"), "--report", "json="+report)
	cmd.Env = append(cmd.Env, "GITHUB_STEP_SUMMARY="+summary, "GITHUB_OUTPUT="+outputs)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || freed.Hits() != 1 {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{"no space left on device", "--report junit="} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not told:\n%s", want, out)
		}
	}
	if told := e.reportOf(report); told.Result != "success" {
		t.Errorf("report: %+v", told)
	}
	e.free()
}
