package status_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/golden"
	"github.com/sluicerun/sluice/internal/report/reporttest"
	"github.com/sluicerun/sluice/internal/status"

	"reflect"
)

var moment = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return moment.Add(-d) }

func number(n int) *int { return &n }

// samples are what the table has to tell, from nothing to all at once.
func samples() map[string]status.Status {
	const commit = "main@sha1:4f2c1d9000000000000000000000000000000000"
	good := status.Run{Revision: commit, Result: "ready", Started: ago(3 * time.Hour), Ended: ago(3*time.Hour - time.Minute),
		RunURL: "https://ci.example.com/1", Actor: "alice"}
	healthy := status.Kustomization{ID: "flux-system/infra", Revision: commit, Result: "ready", Updated: ago(3 * time.Hour), Objects: 2,
		Kinds: []status.Kind{{Kind: "Namespace", Count: 2}}, Health: &status.Health{Current: 2, Verdict: status.Healthy}}
	root := status.Root{ID: "flux-system/clusters-production", Path: "clusters/production", URL: "https://github.com/your-org/gitops", Live: commit,
		Last: &good, Kustomizations: []status.Kustomization{healthy}, History: []status.Run{good}}
	base := status.Status{Version: status.Version, Sluice: "v1.0.0", Time: moment, Context: "prod-eu", Server: "https://prod", StateNamespace: "flux-system",
		Roots: []status.Root{}, Orphans: []status.Orphan{}}
	with := func(change func(*status.Status)) status.Status {
		s := base
		change(&s)
		return s
	}
	return map[string]status.Status{
		"empty":   base,
		"healthy": with(func(s *status.Status) { s.Roots = []status.Root{root} }),
		"recorded": with(func(s *status.Status) { // --no-health
			r, k := root, healthy
			k.Health = nil
			r.Kustomizations = []status.Kustomization{k}
			s.Roots, s.Orphans = []status.Root{r}, nil
		}),
		"trouble": with(func(s *status.Status) {
			r := root
			bad := status.Run{Revision: "main@sha1:91bb0e2000000000000000000000000000000000", Result: "unhealthy", Started: ago(30 * time.Minute), Ended: ago(20 * time.Minute)}
			r.Last, r.History = &bad, []status.Run{bad, good}
			r.Lock = &status.Lock{Lease: "Lease/flux-system/x", Holder: "runner-1", RunURL: "https://ci.example.com/2", Actor: "bob", Commit: "91bb0e2000", Since: ago(12 * time.Second)}
			k := status.Kustomization{ID: "flux-system/apps", Result: "unhealthy", Updated: ago(49 * time.Hour), Objects: 30, Suspended: true,
				Kinds: []status.Kind{{Kind: "Deployment", Group: "apps", Count: 10}, {Kind: "A", Count: 9}, {Kind: "B", Count: 8}, {Kind: "C", Count: 1}, {Kind: "D", Count: 1}, {Kind: "E", Count: 1}, {Kind: "F", Count: 1}},
				Health: &status.Health{Current: 26, Objects: []status.Unready{
					{Object: "Deployment/shop/web", Status: "InProgress", Message: "1 of 3 pods\nready\x1b[31m"},
					{Object: "ConfigMap/shop/gone", Status: "NotFound"}, {Object: "Job/shop/a", Status: "Failed"},
					{Object: "Service/shop/far", Cluster: "Secret/flux-system/east", Status: "Unknown", Message: "cannot be reached"},
				}}, Drift: number(1), Drifted: []status.Drift{{Object: "Deployment/shop/web", Action: "configure", Fields: []string{"spec.replicas"}}}}
			k.Health.Judge()
			r.Kustomizations = []status.Kustomization{k, healthy}
			cut := status.Root{ID: "flux-system/b", Last: &status.Run{Result: "applying", Started: ago(time.Minute)}}
			lost := status.Root{ID: "flux-system/c", Lock: &status.Lock{Holder: "dead", Expired: true}, DriftError: "no commit is on record", Kustomizations: []status.Kustomization{healthy}}
			s.Roots = []status.Root{r, cut, lost}
			for i := range 52 {
				s.Orphans = append(s.Orphans, status.Orphan{Object: fmt.Sprintf("ConfigMap/shop/left-%02d", i), Kustomization: "flux-system/old"})
			}
			s.Orphans[1].Cluster = "Secret/flux-system/east"
			s.Unlisted = []status.Unlisted{{Kind: "Secret", Reason: "not allowed to list it"}, {Kind: "Lease.coordination.k8s.io", Cluster: "Secret/flux-system/east"}}
			s.Repairs = []status.Repair{{ID: "flux-system/apps", Record: "kustomization", Objects: 1, Lost: "something"}, {ID: "flux-system/c", Record: "root"}}
		}),
	}
}

func TestTable(t *testing.T) {
	for name, s := range samples() {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := status.WriteTable(&b, &s); err != nil {
				t.Fatal(err)
			}
			golden.Assert(t, ".txt", b.Bytes())
			if strings.ContainsAny(b.String(), "\x1b\r") || strings.Contains(b.String(), " \n") {
				t.Error("the table holds what it must not")
			}
		})
	}
}

// Every field is in the JSON under its name, and comes back.
func TestJSON(t *testing.T) {
	full := reporttest.Filled(reflect.TypeFor[status.Status](), nil).Interface().(status.Status)
	var b bytes.Buffer
	if err := status.WriteJSON(&b, &full); err != nil {
		t.Fatal(err)
	}
	var back status.Status
	decoder := json.NewDecoder(&b)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, full) {
		t.Errorf("got %+v\nwant %+v", back, full)
	}
}

// What is not looked for is not told as none.
func TestJSONTellsNoneFromUnknown(t *testing.T) {
	for name, want := range map[string]bool{"healthy": true, "recorded": false} {
		s := samples()[name]
		var b bytes.Buffer
		if err := status.WriteJSON(&b, &s); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(b.String(), `"orphans": []`); got != want {
			t.Errorf("%s: orphans are listed: %t, want %t", name, got, want)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s", 10 * time.Minute: "10m", 12*time.Minute + 5*time.Second: "12m",
		3*time.Hour + 59*time.Minute: "3h59m", 24 * time.Hour: "1d", 75 * time.Hour: "3d3h", 300 * time.Hour: "12d",
	} {
		if got := status.Age(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}
