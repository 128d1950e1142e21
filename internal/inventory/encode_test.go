package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/sluicerun/sluice/internal/flux"
)

var (
	rootID = flux.ID{Namespace: "flux-system", Name: "flux-system"}
	appsID = flux.ID{Namespace: "flux-system", Name: "apps"}
	moment = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

func sample(objects int) *Record {
	r := &Record{
		ID: appsID, Root: rootID, Parent: rootID, Path: "apps/production",
		Source:   flux.Source{Kind: "GitRepository", Namespace: "flux-system", Name: "flux-system"},
		Revision: "main@sha1:4f2c1d9", OriginRevision: "v1", Digest: "sha256:abc", Result: Ready,
		Prune: true, DeletionPolicy: "WaitForTermination", Suspended: true,
		DependsOn:      []flux.ID{{Namespace: "flux-system", Name: "infra-controllers"}},
		ServiceAccount: "deployer", Timeout: 3 * time.Minute, Marker: "kustomize.toolkit.fluxcd.io/prune: disabled", Updated: moment, ToolVersion: "v1.2.3",
	}
	for i := range objects {
		r.Entries = append(r.Entries, Entry{ID: fmt.Sprintf("grade-api_deployment-number-%d_apps_Deployment", i), Version: "v1"})
	}
	return r
}

func TestRecordRoundTrip(t *testing.T) {
	for _, objects := range []int{0, 1, 300, 2000, 10000} {
		want := sample(objects)
		want.History.Upsert("sha256:abc", moment, time.Second, StatusSucceeded, map[string]string{"revision": want.Revision})
		p, err := want.encode()
		if err != nil {
			t.Fatalf("%d objects: %v", objects, err)
		}
		if p.size() > MaxStored {
			t.Errorf("%d objects take %d bytes", objects, p.size())
		}
		got, err := decodeRecord("ConfigMap/a/b", p)
		if err != nil {
			t.Fatalf("%d objects: %v", objects, err)
		}
		got.History[0].FirstReconciled.Time = got.History[0].FirstReconciled.UTC()
		got.History[0].LastReconciled.Time = got.History[0].LastReconciled.UTC()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d objects: got %+v\nwant %+v", objects, got, want)
		}
	}
}

func TestEntriesAreStoredAsFluxStoresThem(t *testing.T) {
	p, err := sample(1).encode()
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"entries":[{"id":"grade-api_deployment-number-0_apps_Deployment","v":"v1"}]}`; p.data[entriesKey] != want {
		t.Errorf("got %s\nwant %s", p.data[entriesKey], want)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	p := payload{data: map[string]string{recordKey: `{"schemaVersion": 4, "toolVersion": "v9.1.0", "id": ["not", "as", "now"]}`}}
	_, err := decodeRecord("ConfigMap/flux-system/sluice.flux-system.apps", p)
	want := "ConfigMap/flux-system/sluice.flux-system.apps was written by sluice v9.1.0 with schema version 4; this sluice reads up to 3"
	var newer *NewerError
	if !errors.As(err, &newer) || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if _, err := decodeRoot("x", p); !errors.As(err, &newer) {
		t.Errorf("root: got %v", err)
	}
}

func TestDamagedRecords(t *testing.T) {
	whole, err := sample(2).encode()
	if err != nil {
		t.Fatal(err)
	}
	large, err := sample(2000).encode()
	if err != nil {
		t.Fatal(err)
	}
	set := func(p payload, key, value string) payload {
		data := map[string]string{}
		for k, v := range p.data {
			data[k] = v
		}
		data[key] = value
		return payload{data: data, binary: p.binary}
	}
	for name, tt := range map[string]struct {
		p    payload
		want string
	}{
		"no record":      {payload{data: map[string]string{"x": "y"}}, `the key "record.json" is missing`},
		"no JSON":        {set(whole, recordKey, "{"), "unexpected end"},
		"no version":     {set(whole, recordKey, "{}"), "no schemaVersion"},
		"no inventory":   {payload{data: map[string]string{recordKey: whole.data[recordKey]}}, "neither"},
		"one entry less": {set(whole, entriesKey, `{"entries":[]}`), "has 0 entries where"},
		"a bad entry":    {set(whole, entriesKey, `{"entries":[{"id":"x","v":"v1"},{"id":"y","v":"v1"}]}`), `"x" is not an inventory id`},
		"bad gzip":       {payload{data: large.data, binary: map[string][]byte{entriesGzipID: []byte("no")}}, entriesGzipID},
		"cut gzip":       {payload{data: large.data, binary: map[string][]byte{entriesGzipID: large.binary[entriesGzipID][:100]}}, "unexpected EOF"},
		"a bad id":       {set(whole, recordKey, strings.Replace(whole.data[recordKey], `"flux-system/apps"`, `"apps"`, 1)), `"apps" is not of the form`},
	} {
		_, err := decodeRecord("ConfigMap/a/b", tt.p)
		var damaged *DamagedError
		if !errors.As(err, &damaged) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "ConfigMap/a/b is damaged") {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

func TestS1_15_History(t *testing.T) {
	r := sample(0)
	for i := range 8 {
		r.History.Upsert(fmt.Sprintf("sha256:%d", i), moment.Add(time.Duration(i)*time.Minute), time.Second, StatusSucceeded, nil)
	}
	r.History.Upsert("sha256:5", moment.Add(time.Hour), time.Second, StatusSucceeded, nil)
	p, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeRecord("x", p)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.History) != HistorySize || got.History[0].Digest != "sha256:5" || got.History[0].TotalReconciliations != 2 {
		t.Errorf("got %+v", got.History)
	}
	// The stored form is Flux's own.
	var flux struct {
		History meta.History `json:"history"`
	}
	if err := json.Unmarshal([]byte(p.data[recordKey]), &flux); err != nil || len(flux.History) != HistorySize {
		t.Errorf("%v: %+v", err, flux)
	}
}

func TestRootRoundTrip(t *testing.T) {
	want := &Root{ID: rootID, Path: "clusters/production", URL: "https://example.com/repo", Updated: moment, ToolVersion: "v1",
		Nodes: []flux.ID{appsID, rootID}}
	for i := range 7 {
		want.Begin(Run{Revision: "main@sha1:aa", Commit: fmt.Sprint(i), Started: moment, RunURL: "https://ci/1", Actor: "ada"})
		result := Ready
		if i == 6 {
			result = Failed
		}
		want.End(result, moment.Add(time.Minute))
	}
	if want.Started.Commit != "6" || want.Started.Result != Failed || want.Finished.Commit != "5" || len(want.History) != HistorySize {
		t.Fatalf("got %+v", want)
	}
	p, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeRoot("x", p)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if !reflect.DeepEqual(got.Clone(), got) {
		t.Error("a clone differs")
	}
}

// What a manifest says that the record did not, each field by itself; and nothing
// after a round trip through the stored form.
func TestSetSpec(t *testing.T) {
	base := func() *flux.Kustomization {
		k := &flux.Kustomization{ID: appsID, Parent: rootID}
		k.Spec.Path, k.Spec.SourceRef.Kind, k.Spec.SourceRef.Name = "apps", "GitRepository", "flux-system"
		k.Spec.Interval.Duration = 10 * time.Minute
		return k
	}
	for name, change := range map[string]func(*flux.Kustomization){
		"parent":       func(k *flux.Kustomization) { k.Parent.Name = "other" },
		"path":         func(k *flux.Kustomization) { k.Spec.Path = "other" },
		"source":       func(k *flux.Kustomization) { k.Spec.SourceRef.Name = "other" },
		"prune":        func(k *flux.Kustomization) { k.Spec.Prune = true },
		"policy":       func(k *flux.Kustomization) { k.Spec.DeletionPolicy = "Orphan" },
		"suspend":      func(k *flux.Kustomization) { k.Spec.Suspend = true },
		"dependencies": func(k *flux.Kustomization) { k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "infra"}} },
		"account":      func(k *flux.Kustomization) { k.Spec.ServiceAccountName = "deployer" },
		"timeout":      func(k *flux.Kustomization) { k.Spec.Interval.Duration = time.Hour },
		"marker": func(k *flux.Kustomization) {
			k.Annotations = map[string]string{"kustomize.toolkit.fluxcd.io/prune": "Disabled"}
		},
		"marker, a label": func(k *flux.Kustomization) { k.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/ssa": "Ignore"} },
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRecord(rootID, base())
			k := base()
			change(k)
			if !r.SetSpec(k) {
				t.Error("the change is not seen")
			}
			p, err := r.encode()
			if err != nil {
				t.Fatal(err)
			}
			if r, err = decodeRecord("ConfigMap/a/b", p); err != nil || r.SetSpec(k) {
				t.Errorf("%v, or there is a change where there is none", err)
			}
		})
	}
}
