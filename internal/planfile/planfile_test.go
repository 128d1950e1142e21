package planfile

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func sample() *File {
	key := NewKey("salt", "cluster-1")
	return &File{
		Format: Format, Version: Version, Sluice: "v1", Created: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC), Salt: "salt",
		Cluster: key.Digest("cluster", "cluster-1"), Context: "prod", Root: "flux-system/flux-system", Path: "clusters/production",
		Repository: "https://example.com/repo", Commit: "aaaa", Revision: "main@sha1:aaaa", Live: "9999",
		Options: map[string]string{"wait": "auto"}, Variables: map[string]string{"tag": key.Digest("variable", "tag", "v1")},
		Kustomizations: []Kustomization{
			{ID: "flux-system/infra", State: Apply, Spec: "s1", Built: "b1", Unchanged: 2, Revision: "main@sha1:aaaa"},
			{ID: "flux-system/apps", State: Apply, Spec: "s2", Built: "b2", Changes: []Object{
				{Object: "Deployment/a/b", APIVersion: "apps/v1", Action: "configure", Fields: []string{"spec.replicas"}, Values: "x", ResourceVersion: "5"},
				{Object: "ConfigMap/a/c", APIVersion: "v1", Action: "create"},
			}},
			{ID: "flux-system/late", State: Later, Reason: "needs x", Spec: "s3"},
		},
		Prune: []Object{{Kustomization: "flux-system/apps", Object: "Service/a/old", APIVersion: "v1", Action: "delete"}},
	}
}

func TestEncodeAndDecode(t *testing.T) {
	want := sample()
	text, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	want.Digest = got.Digest
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	// Its form on disk is not what counts.
	var compact any
	if err := json.Unmarshal(text, &compact); err != nil {
		t.Fatal(err)
	}
	text, err = json.Marshal(compact)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(text); err != nil {
		t.Errorf("in another form: %v", err)
	}
	if empty, err := new(File).Encode(); err != nil {
		t.Error(err)
	} else if _, err := Decode(empty); err != nil {
		t.Errorf("an empty plan: %v", err)
	}
}

// Whatever byte is lost or changed, a file is either refused or the same plan.
func TestDamage(t *testing.T) {
	text, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	want, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	check := func(damaged []byte) {
		got, err := Decode(damaged)
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("a changed plan is taken:\n%s", damaged)
		}
	}
	for i := range text {
		check(text[:i])
		check(slices.Delete(slices.Clone(text), i, i+1))
		for _, b := range []byte{'0', 'x', '"', '}', 0} {
			damaged := slices.Clone(text)
			damaged[i] = b
			check(damaged)
		}
	}
}

func FuzzDecode(f *testing.F) {
	text, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"format": "sluice-plan", "version": 1}`))
	f.Add([]byte(`[]`))
	f.Add(append(slices.Clone(text), '{'))
	f.Add(text[:len(text)/2])
	f.Add([]byte(`{"format": "sluice-plan", "version": 2}`))
	f.Add([]byte(`{"format": "sluice-plan", "version": 1e99}`))
	f.Add([]byte(`{"format": "sluice-plan", "version": 1, "more": {}}`))
	empty, err := (&File{}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(empty)
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Decode(text)
		if err != nil {
			var form *FormError
			if !errors.As(err, &form) || form.Hint() == "" || p != nil {
				t.Errorf("%v, %v", p, err)
			}
			return
		}
		again, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Decode(again); err != nil || len(Compare(p, back)) > 0 || back.Digest != p.Digest {
			t.Errorf("saved again it is not the same plan: %v", err)
		}
		if found := Compare(p, p); len(found) > 0 {
			t.Errorf("a plan differs from itself: %v", found)
		}
	})
}

func TestCompare(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*File)
		want   []string
	}{
		"nothing": {func(f *File) {
			// What is only for people, and what changes by itself.
			f.Created, f.Context, f.Revision = f.Created.Add(time.Hour), "other-name", "v1@sha1:aaaa"
			f.Kustomizations[1].Changes[0].ResourceVersion = "6"
			f.Kustomizations[0].Unchanged = 3
		}, nil},
		"cluster": {func(f *File) {
			f.Cluster, f.Context, f.Variables["tag"], f.Kustomizations[0].Built = "other", "staging", "other", "other"
		}, []string{"the plan is for another cluster: it was prod, now it is staging"}},
		"all of its subject": {func(f *File) {
			f.Sluice, f.Root, f.Path, f.Repository, f.Commit, f.Live, f.Healthy = "v2", "a/b", "p", "", "bbbb", "", "9998"
			f.Options = map[string]string{"wait": "none", "only": "a/*"}
			f.Variables = map[string]string{"tag": "other", "more": "x"}
			f.Kustomizations = nil // follows
		}, []string{
			"the version of sluice was v1 in the plan, now it is v2",
			"the root Kustomization was flux-system/flux-system in the plan, now it is a/b",
			"the entry folder was clusters/production in the plan, now it is p",
			"the repository was https://example.com/repo in the plan, now it is none",
			"the commit was aaaa in the plan, now it is bbbb",
			"the commit that was applied last was 9999 in the plan, now it is none",
			"the commit that was healthy last was none in the plan, now it is 9998",
			"--only was none in the plan, now it is a/*",
			"--wait was auto in the plan, now it is none",
			"the variable more was not given in the plan, now it is",
			"the variable tag has another value than in the plan",
		}},
		"no variables": {func(f *File) { f.Variables = nil }, []string{"the variable tag was given with --var or --vars-file in the plan, now it is not"}},
		"kustomizations": {func(f *File) {
			k := f.Kustomizations
			k[0].Spec, k[0].Built, k[0].Cluster, k[0].Revision = "other", "other", "other", "main@sha1:bbbb"
			k[1].Built = "other"
			k[2].State = Suspended
			f.Kustomizations = append(k, Kustomization{ID: "flux-system/new", State: Apply})
		}, []string{
			"flux-system/infra: its spec is another than in the plan",
			"flux-system/infra: it is built to something else than in the plan: its source was at main@sha1:aaaa, now it is at main@sha1:bbbb",
			"flux-system/infra: its spec.kubeConfig leads to another cluster than in the plan",
			"flux-system/apps: it is built to something else than in the plan: a variable that the cluster holds has changed, or a base that is fetched",
			"flux-system/late was to be built when its turn comes, now it is suspended",
			"flux-system/new was not in the plan",
		}},
		"one less": {func(f *File) {
			f.Kustomizations = f.Kustomizations[1:]
			f.Kustomizations[1].Reason = "needs y"
		}, []string{
			"flux-system/late was to be built when its turn comes since it needs x, now it needs y",
			"flux-system/infra was in the plan, and is no part of the run now",
		}},
		"objects": {func(f *File) {
			k := &f.Kustomizations[1]
			k.Changes = []Object{
				{Object: "Deployment/a/b", APIVersion: "apps/v1", Action: "configure", Fields: []string{"spec.replicas"}, Values: "y", ResourceVersion: "6"},
				{Object: "Secret/a/d", APIVersion: "v1", Action: "configure", Fields: []string{"data.a", "data.b", "data.c", "data.d", "data.e", "data.f", "data.g"}},
			}
			f.Kustomizations[0].Changes = []Object{{Object: "ConfigMap/a/e", APIVersion: "v1", Action: "configure", Reason: "it belongs to a/b so far"}}
			f.Prune[0].Action, f.Prune[0].Reason = "kept", "somebody else's"
		}, []string{
			"ConfigMap/a/e of flux-system/infra was to be left as it is, now it would be configured (it belongs to a/b so far)",
			"Deployment/a/b of flux-system/apps was to be configured in spec.replicas: the values are others now; somebody has changed it since",
			"Secret/a/d of flux-system/apps was to be left as it is, now it would be configured in data.a, data.b, data.c, data.d, data.e and 2 more",
			"ConfigMap/a/c of flux-system/apps was to be created, now it would be left as it is",
			"Service/a/old of flux-system/apps was to be deleted, now it would be kept (somebody else's)",
		}},
		"fields": {func(f *File) {
			f.Kustomizations[1].Changes[0].Fields = nil
			f.Kustomizations[1].Changes[1].Action = "configure"
			f.Kustomizations[1].Changes[1].ResourceVersion = "9"
			f.Prune = nil
		}, []string{
			"Deployment/a/b of flux-system/apps was to be configured in spec.replicas, now no field would change",
			"ConfigMap/a/c of flux-system/apps was to be created, now it would be configured; it did not exist then",
			"Service/a/old of flux-system/apps was to be deleted, now it would be left alone",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			now := sample()
			test.change(now)
			var got []string
			for _, d := range Compare(sample(), now) {
				got = append(got, d.Text)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// Digests depend on the salt and on the cluster, and on where one part ends and
// the next begins.
func TestDigests(t *testing.T) {
	seen := map[string]string{}
	for name, digest := range map[string]string{
		"plain":           NewKey("salt", "cluster").Digest("a", "bc"),
		"other parts":     NewKey("salt", "cluster").Digest("ab", "c"),
		"other salt":      NewKey("tlas", "cluster").Digest("a", "bc"),
		"another cluster": NewKey("salt", "other").Digest("a", "bc"),
	} {
		if other, twice := seen[digest]; twice {
			t.Errorf("%s is as %s", name, other)
		}
		seen[digest] = name
	}
	if a, b := Salt(), Salt(); a == b {
		t.Error("two salts are equal")
	}
}
