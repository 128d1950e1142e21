//go:build unix

package kubetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// ownerEnv makes TestMain start a cluster in the folder it names, print "ready" and then do nothing until it is killed.
const ownerEnv = "SLUICE_KUBETEST_OWNER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerEnv); dir != "" {
		if _, err := Start(context.Background(), Options{Dir: dir, Nodes: 1}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		select {}
	}
	os.Exit(m.Run())
}

// processesOf lists the components of the cluster in dir that are alive. Each of them was started with paths in dir.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	out, err := exec.Command("ps", "-A", "-ww", "-o", "pid=,args=").Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) && strings.Contains(line, "=") && !strings.Contains(line, "<defunct>") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// awaitGone waits until no component of the cluster in dir is alive and its folder is gone.
func awaitGone(t *testing.T, dir string, folder bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		alive := processesOf(t, dir)
		_, err := os.Stat(dir)
		if len(alive) == 0 && (!folder || errors.Is(err, os.ErrNotExist)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left after 20 s: the folder (%v), processes:\n%s", err, strings.Join(alive, "\n"))
		}
	}
}

// startOwner starts a process that owns a cluster in a new folder.
func startOwner(t *testing.T) (owner *exec.Cmd, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "cluster")
	owner = exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), ownerEnv+"="+dir)
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	owner.Stderr = os.Stderr
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Process.Kill() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the owner says %q (%v), want ready", line, err)
	}
	if n := len(processesOf(t, dir)); n != len(components) {
		t.Fatalf("%d processes name the folder, want %d", n, len(components))
	}
	return owner, dir
}

// supervisorPID is the process that holds the cluster in dir.
func supervisorPID(t *testing.T, dir string) int {
	t.Helper()
	pid, running, err := supervisorOf(dir)
	if err != nil || !running {
		t.Fatalf("no supervisor: %v", err)
	}
	return pid
}

func TestNothingIsLeft(t *testing.T) {
	for _, test := range []struct {
		name   string
		kill   func(t *testing.T, owner *exec.Cmd, dir string) error
		folder bool // whether the folder goes as well
	}{
		{"owner killed", func(_ *testing.T, owner *exec.Cmd, _ string) error { return owner.Process.Kill() }, true},
		{"owner interrupted", func(_ *testing.T, owner *exec.Cmd, _ string) error { return owner.Process.Signal(os.Interrupt) }, true},
		{"supervisor terminated", func(t *testing.T, _ *exec.Cmd, dir string) error {
			return syscall.Kill(supervisorPID(t, dir), syscall.SIGTERM)
		}, true},
		// Nobody is left who could remove the folder.
		{"supervisor killed", func(t *testing.T, _ *exec.Cmd, dir string) error {
			return syscall.Kill(supervisorPID(t, dir), syscall.SIGKILL)
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			owner, dir := startOwner(t)
			if err := test.kill(t, owner, dir); err != nil {
				t.Fatal(err)
			}
			awaitGone(t, dir, test.folder)
		})
	}
}

func TestStop(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	c, err := Start(t.Context(), Options{Dir: dir, Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}
	awaitGone(t, dir, true)
}

func TestComponentThatDiesEndsTheCluster(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	var progress strings.Builder
	c, err := Start(t.Context(), Options{Dir: dir, Nodes: 1, Progress: &progress})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range processesOf(t, dir) {
		var pid int
		if _, err := fmt.Sscan(line, &pid); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "/kube-scheduler ") {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-c.Ended()
	if err := c.Stop(); err == nil || !strings.Contains(err.Error(), "kube-scheduler ended by itself: signal: killed") {
		t.Errorf("got %v, want an error that names kube-scheduler", err)
	}
	if !strings.Contains(progress.String(), "kube-scheduler") {
		t.Errorf("nobody was told: %q", progress.String())
	}
	awaitGone(t, dir, false)
}

func TestStartFailsWithTheLog(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho cannot find my feet\nexit 7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	programs, err := Build(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	programs["kube-apiserver"] = broken
	dir := filepath.Join(t.TempDir(), "cluster")
	_, err = startSupervisor(t.Context(), supervisorConfig{Dir: dir, Binaries: programs, Nodes: 1}, os.Stderr)
	for _, want := range []string{"start kube-apiserver", "exit status 7", "cannot find my feet"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	awaitGone(t, dir, true)
}

func TestStartCalledOff(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	dir := filepath.Join(t.TempDir(), "cluster")
	called := errors.New("called off")
	go func() {
		// Once etcd's log is there, the start is under way.
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := os.Stat(layout{dir}.log("etcd")); err == nil {
				cancel(called)
				return
			}
		}
	}()
	if _, err := Start(ctx, Options{Dir: dir, Nodes: 1}); !errors.Is(err, called) {
		t.Errorf("got %v, want %v", err, called)
	}
	awaitGone(t, dir, true)
}

func TestPortTakenIsSeen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	programs, err := Build(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &running{layout: layout{dir}, died: make(chan *process, 1)}
	defer r.kill()
	admin, err := prepare(r.layout, "https://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if r.health, err = healthClient(r.layout, admin); err != nil {
		t.Fatal(err)
	}
	taken := ports{etcd: l.Addr().(*net.TCPAddr).Port}
	p, err := r.launch(supervisorConfig{Binaries: programs}, "etcd", etcdArgs(r.layout, taken), "http://127.0.0.1:1/health")
	if err != nil {
		t.Fatal(err)
	}
	<-p.exited
	if err := r.await(t.Context(), p); !errors.Is(err, errPortTaken) {
		t.Errorf("got %v, want %v", err, errPortTaken)
	}
}

func TestUpAndDown(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	if stopped, err := Down(t.Context(), dir); stopped || err != nil {
		t.Errorf("down before up: %v, %v", stopped, err)
	}
	c, err := Up(t.Context(), Options{Dir: dir, Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	clients, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := clients.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 {
		t.Errorf("nodes: %v, %v; want one", nodes, err)
	}
	if _, err := Up(t.Context(), Options{Dir: dir}); !errors.Is(err, ErrRunning) {
		t.Errorf("second up: %v, want %v", err, ErrRunning)
	}
	if stopped, err := Down(t.Context(), dir); !stopped || err != nil {
		t.Errorf("down: %v, %v", stopped, err)
	}
	awaitGone(t, dir, true)
	if stopped, err := Down(t.Context(), dir); stopped || err != nil {
		t.Errorf("second down: %v, %v", stopped, err)
	}
}

func TestDownSparesForeignFiles(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "mine")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := clean(layout{dir}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
}

func TestUserWithoutRights(t *testing.T) {
	b := newBench(t)
	path, err := b.cluster.KubeconfigFor("jane", "developers")
	if err != nil {
		t.Fatal(err)
	}
	jane, err := clientsFor(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jane.CoreV1().Pods(b.namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("got %v, want forbidden", err)
	}
	b.create(`{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: developers},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view},
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: developers}]}`)
	// The authorizer sees a new binding a moment after it is written.
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		_, err := jane.CoreV1().Pods(b.namespace).List(t.Context(), metav1.ListOptions{})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
