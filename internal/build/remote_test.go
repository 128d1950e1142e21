package build_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sluicerun/sluice/internal/build"
)

func remote(resource string) fstest.MapFS {
	return fstest.MapFS{
		"app/kustomization.yaml": {Data: []byte("namePrefix: p-\nresources:\n- a.yaml\n- " + resource + "\n")},
		"app/a.yaml":             {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")},
	}
}

// TestRemoteFile (S2.34): a resource by URL.
func TestRemoteFile(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/x.yaml" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"))
	}))
	defer server.Close()
	result, err := build.Build(context.Background(), remote(server.URL+"/x.yaml"), parse(t, []byte("spec: {path: app}")))
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Objects) != 2 || result.Objects[1].GetName() != "p-x" || result.Objects[1].File != "" {
		t.Errorf("objects %v", result.Objects)
	}
	_, err = build.Build(context.Background(), remote(server.URL+"/gone.yaml"), parse(t, []byte("spec: {path: app}")))
	if err == nil || !strings.Contains(err.Error(), "404") || !strings.Contains(err.Error(), "app/kustomization.yaml") || !strings.Contains(err.Error(), server.URL+"/gone.yaml") {
		t.Errorf("error %v", err)
	}
}

// TestRemoteFileThatHangs: the context ends a build that waits for a server.
func TestRemoteFileThatHangs(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
	}))
	defer server.Close()
	defer close(release)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-asked
		cancel()
	}()
	begin := time.Now()
	_, err := build.Build(ctx, remote(server.URL+"/x.yaml"), parse(t, []byte("spec: {path: app}")))
	if err == nil || !strings.Contains(err.Error(), "build stopped: context canceled") {
		t.Errorf("error %v", err)
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("stopped after %s", d)
	}
}

// TestRemoteRepository (S2.34): a base in another Git repository is cloned to a
// folder of the disk, read there, and removed.
func TestRemoteRepository(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	repo := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(repo, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("kustomization.yaml", "resources: [b.yaml]\n")
	write("b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n")
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"},
		{"add", "."},
		{"-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "base"},
	} {
		cmd := exec.Command("git", append([]string{"-C", repo}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	result, err := build.Build(context.Background(), remote("file://"+repo+"?ref=main"), parse(t, []byte("spec: {path: app}")))
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Objects) != 2 || result.Objects[1].GetName() != "p-b" || result.Objects[1].File != "" {
		t.Errorf("objects %v", result.Objects)
	}
	left, err := os.ReadDir(os.TempDir())
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	_, err = build.Build(context.Background(), remote("file://"+repo+"?ref=none"), parse(t, []byte("spec: {path: app}")))
	if err == nil || !strings.Contains(err.Error(), "app/kustomization.yaml") || !strings.Contains(err.Error(), "none") {
		t.Errorf("error %v", err)
	}
}
