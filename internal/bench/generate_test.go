//go:build unix

package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/cli"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/kubetest"
)

// The commit must not move: numbers of different days are compared. Whoever
// changes what is generated changes the hash here and measures anew.
func TestGeneratedCommitIsFixed(t *testing.T) {
	const want = "ecaeb99f92a29c0bde072925697118da92668494"
	for range 2 {
		r := generate(t, Options{Kustomizations: 2, Objects: 20, Chain: true, Replicas: 1})
		head, err := os.ReadFile(r.Dir + "/.git/refs/heads/main")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(string(head)); got != want {
			t.Errorf("commit %s, want %s", got, want)
		}
	}
}

func TestGeneratedObjects(t *testing.T) {
	r := generate(t, Options{Kustomizations: 3, Objects: 20})
	all := render(t, os.DirFS(r.Dir))
	if len(all) != 3 {
		t.Fatalf("%d Kustomizations, want 3", len(all))
	}
	for i, objects := range all {
		if len(objects) != 20 {
			t.Errorf("%s: %d objects, want 20", name(i), len(objects))
		}
		kinds := map[string]int{}
		for _, o := range objects {
			kinds[o.GetKind()]++
			if o.GetKind() == "Namespace" && o.GetName() != name(i) || o.GetKind() != "Namespace" && o.GetNamespace() != name(i) {
				t.Errorf("%s holds %s", name(i), o.Ref())
			}
			if o.GetLabels()[flux.NameLabel] != name(i) {
				t.Errorf("%s: %s has no owner label", name(i), o.Ref())
			}
		}
		want := map[string]int{"Namespace": 1, "Deployment": 3, "ConfigMap": 7, "ServiceAccount": 3, "Service": 2, "Role": 2, "RoleBinding": 2}
		if !reflect.DeepEqual(kinds, want) {
			t.Errorf("%s: %v, want %v", name(i), kinds, want)
		}
	}
}

// The objects of the largest benchmark come from the kustomize library itself;
// they must be those that sluice builds.
func TestKustomizeAloneBuildsTheSame(t *testing.T) {
	tree := os.DirFS(generate(t, Options{Kustomizations: 1, Objects: 20}).Dir)
	_, alone := kustomizeAlone(t, tree, kustomizations(t, tree)[0])
	ours := flatten(render(t, tree))
	if len(alone) != len(ours) {
		t.Fatalf("%d objects, want %d", len(alone), len(ours))
	}
	for i := range ours {
		if !reflect.DeepEqual(alone[i].Object, ours[i].Object) {
			t.Errorf("object %d: %v, want %v", i, alone[i].Object, ours[i].Object)
		}
	}
}

func TestFurtherCommits(t *testing.T) {
	r := generate(t, Options{Kustomizations: 2, Objects: 12})
	first := flatten(render(t, os.DirFS(r.Dir)))
	differ := func(what string, want ...string) {
		t.Helper()
		var got []string
		for i, o := range flatten(render(t, os.DirFS(r.Dir))) {
			if !reflect.DeepEqual(o.Object, first[i].Object) {
				got = append(got, o.Ref().String())
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s changes %q, want %q", what, got, want)
		}
	}
	if err := r.CommitNothing(); err != nil {
		t.Fatal(err)
	}
	differ("CommitNothing")
	if err := r.CommitImage(); err != nil {
		t.Fatal(err)
	}
	differ("CommitImage", "Deployment/app-0000/deployment-0001")
}

func TestOptionsAreChecked(t *testing.T) {
	err := Generate(t.TempDir(), Options{Objects: 1, Replicas: -1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"0 Kustomizations", "1 objects per Kustomization", "-1 replicas"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	dir := t.TempDir()
	for i, wantErr := range []bool{false, true} {
		if err := Generate(dir, Options{Kustomizations: 1, Objects: 2}); (err != nil) != wantErr {
			t.Errorf("call %d: error %v", i, err)
		}
	}
}

// The comparison is fair only if both do the same work: what the raw client
// has applied, sluice finds unchanged, and applies not one object again.
func TestSluiceAndRawApplyTheSame(t *testing.T) {
	c := kubetest.Shared(t)
	r := generate(t, Options{Kustomizations: 3, Objects: 20, Chain: true, Replicas: 1})
	client := newRaw(t, c)
	for _, objects := range render(t, os.DirFS(r.Dir)) {
		if err := client.rollOut(t.Context(), objects); err != nil {
			t.Fatal(err)
		}
	}
	counts := count(t, c, func(kubeconfig string) {
		var log bytes.Buffer
		environment := map[string]string{"KUBECONFIG": kubeconfig, "HOME": t.TempDir()}
		code := cli.Main(t.Context(), []string{"sluice", "run", "--repo", r.Dir, "--path", Entry},
			cli.System{Getenv: func(name string) string { return environment[name] }, Stdout: &log, Stderr: &log})
		if code != 0 {
			t.Fatalf("exit code %d\n%s", code, tail(log.String()))
		}
	})
	// A few dry runs are in order: sluice writes out some defaults before it
	// applies, so who owns which field cannot be proven without asking.
	if counts["apply"] != 0 {
		t.Errorf("requests %v: objects were applied again", counts)
	}
	if counts["read"] == 0 || counts["write"] == 0 {
		t.Errorf("requests %v: reads and the writes of records must be among them", counts)
	}
}

func TestRequestKind(t *testing.T) {
	for _, test := range []struct{ method, url, contentType, want string }{
		{"GET", "/api", "", "discovery"},
		{"GET", "/apis/apps/v1", "", "discovery"},
		{"GET", "/openapi/v3", "", "discovery"},
		{"GET", "/api/v1/configmaps", "", "read"},
		{"GET", "/apis/apps/v1/deployments?labelSelector=a", "", "read"},
		{"GET", "/apis/apps/v1/namespaces/a/deployments?watch=true", "", "watch"},
		{"PATCH", "/api/v1/namespaces/a/configmaps/b?fieldManager=c", "application/apply-patch+yaml", "apply"},
		{"PATCH", "/api/v1/namespaces/a/configmaps/b?dryRun=All", "application/apply-patch+yaml", "dry-run"},
		{"POST", "/api/v1/namespaces", "application/json", "write"},
	} {
		r, err := http.NewRequestWithContext(context.Background(), test.method, "http://x"+test.url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", test.contentType)
		if got := requestKind(r); got != test.want {
			t.Errorf("%s %s: %s, want %s", test.method, test.url, got, test.want)
		}
	}
}

func TestRow(t *testing.T) {
	r := row{work: "w", compared: "raw", budget: 2, requests: map[string]int{"apply": 3, "read": 1}, objects: 2}
	for _, took := range []time.Duration{30, 10, 20} {
		r.add(10*time.Second, measurement{Wall: took * time.Second, CPU: time.Second, Peak: 5e6})
	}
	want := "[w 10.00 s raw 20.00 s 2.00 2.0 1.0 s 5 MB 4]"
	if got := fmt.Sprint(r.line()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var out strings.Builder
	var empty table
	empty.print(&out)
	if out.Len() > 0 {
		t.Errorf("a table without lines prints %q", out.String())
	}
	var full table
	full.add(r.line())
	full.print(&out)
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 5 || len(lines[2]) == 0 || !strings.HasPrefix(lines[4], "| w ") {
		t.Errorf("the table is\n%s", out.String())
	}
}
