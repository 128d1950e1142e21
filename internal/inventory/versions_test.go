package inventory

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluicerun/sluice/internal/flux"
)

// read reads a list of ConfigMaps as a store does, for a root.
func read(t *testing.T, list *corev1.ConfigMapList, root flux.ID) (*State, error) {
	t.Helper()
	state := newState()
	heads, parts := separate(list)
	var errs []error
	for _, cm := range heads {
		o, err := storedOf(cm, parts)
		if err == nil {
			err = state.add(o, root)
		}
		errs = append(errs, err)
	}
	return state, errors.Join(errs...)
}

func versionFile(t *testing.T, name string) *corev1.ConfigMapList {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "versions", name))
	if err != nil {
		t.Fatal(err)
	}
	list := &corev1.ConfigMapList{}
	if err := json.Unmarshal(text, list); err != nil {
		t.Fatal(err)
	}
	return list
}

// Records as each version of the form has them are read as the same, and saved again in the first form that can say it.
func TestRecordsOfEachVersion(t *testing.T) {
	near := []Entry{{ID: "apps_web_apps_Deployment", Version: "v1"}, {ID: "apps_system__x_rbac.authorization.k8s.io_Role", Version: "v1"}}
	far := append(slices.Clone(near), Entry{ID: "apps_far__ConfigMap", Version: "v1", Cluster: flux.ClusterRef{Kind: "Secret", Namespace: "flux-system", Name: "east"}})
	for _, tt := range []struct {
		file    string
		entries []Entry
		again   string
	}{
		{"v1.json", near, `"schemaVersion": 1,`}, {"v1-compressed.json", near, `"schemaVersion": 1,`}, {"v2.json", far, `"schemaVersion": 2,`}, {"v3.json", far, `"schemaVersion": 2,`},
	} {
		t.Run(tt.file, func(t *testing.T) {
			state, err := read(t, versionFile(t, tt.file), rootID)
			if err != nil {
				t.Fatal(err)
			}
			r := state.Records[appsID]
			if r == nil || !slices.Equal(r.Entries, tt.entries) || r.Revision != "main@sha1:4f2c1d9" || !r.Prune || r.Timeout.String() != "3m0s" ||
				len(r.DependsOn) != 1 || r.Result != Ready || !r.Updated.Equal(moment) || !r.Stored() || !r.Says() {
				t.Fatalf("got %+v", r)
			}
			p, err := r.encode()
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(p.data[recordKey], tt.again) || len(p.refs) > 0 {
				t.Errorf("saved again it is %s", p.data[recordKey])
			}
			back, err := decodeRecord("x", p)
			if err != nil || back.statement() != r.statement() || !slices.Equal(back.Entries, r.Entries) {
				t.Errorf("%v, or it says something else", err)
			}
		})
	}
	_, err := read(t, versionFile(t, "v4.json"), rootID)
	var newer *NewerError
	if !errors.As(err, &newer) || newer.Schema != 4 || err.Error() != "ConfigMap/flux-system/sluice.flux-system.apps was written by sluice v0.4.0 with schema version 4; this sluice reads up to 3" ||
		newer.Hint() != "use sluice v0.4.0 or a later one; if it is gone for good: sluice status --repair --overwrite-newer" {
		t.Errorf("got %v", err)
	}
	if SchemaVersion != 3 {
		t.Error("there is no file of the newest version")
	}
}

// A record whose labels, annotations and name do not say what is in it is an error for every root that it may be of, and for no other.
func TestRecordThatDoesNotFitItsName(t *testing.T) {
	other := flux.ID{Namespace: "flux-system", Name: "other"}
	for what, tt := range map[string]struct {
		change func(cm *corev1.ConfigMap)
		want   string
		// theirs is what the other root gets.
		theirs string
	}{
		"the root's annotation": {func(cm *corev1.ConfigMap) { cm.Annotations[RootAnnotation] = other.String() }, `label "sluice.run/root" is "flux-system_flux-system", where annotation`, `label "sluice.run/root"`},
		"annotation and label": {func(cm *corev1.ConfigMap) {
			cm.Annotations[RootAnnotation], cm.Labels[RootLabel] = other.String(), RootLabelValue(other)
		}, `"record.json" is about Kustomization "flux-system/apps" of root "flux-system/flux-system", the annotations about "flux-system/apps" of "flux-system/other"`, `"record.json" is about`},
		"the root's label": {func(cm *corev1.ConfigMap) { cm.Labels[RootLabel] = "x" }, `label "sluice.run/root" is "x"`, ""},
		"the id":           {func(cm *corev1.ConfigMap) { cm.Annotations[IDAnnotation] = "flux-system/web" }, `annotation "sluice.run/id" is "flux-system/web", for which it has not the right name`, ""},
		"no id":            {func(cm *corev1.ConfigMap) { delete(cm.Annotations, IDAnnotation) }, `"" is not of the form namespace/name`, `"" is not of the form namespace/name`},
		"the kind":         {func(cm *corev1.ConfigMap) { cm.Labels[KindLabel] = KindRoot }, `label "sluice.run/record" is "root", where its name says "kustomization"`, ""},
		"an unknown kind":  {func(cm *corev1.ConfigMap) { cm.Labels[KindLabel] = "x" }, `label "sluice.run/record" is "x", where its name says "kustomization"`, ""},
		"a copy":           {func(cm *corev1.ConfigMap) { cm.Name += ".bak" }, "for which it has not the right name", ""},
		"a copy elsewhere": {func(cm *corev1.ConfigMap) { cm.Name = "backup" }, `where its name says ""`, ""},
		"what is inside": {func(cm *corev1.ConfigMap) {
			cm.Data[recordKey] = strings.Replace(cm.Data[recordKey], `"flux-system/apps"`, `"flux-system/web"`, 1)
		}, `"record.json" is about Kustomization "flux-system/web"`, ""},
	} {
		t.Run(what, func(t *testing.T) {
			list := versionFile(t, "v1.json")
			tt.change(&list.Items[0])
			state, err := read(t, list, rootID)
			var damaged *DamagedError
			if !errors.As(err, &damaged) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "ConfigMap/flux-system/") || len(state.Records) > 0 {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			state, err = read(t, list, other)
			if (err == nil) != (tt.theirs == "") || err != nil && !strings.Contains(err.Error(), tt.theirs) || len(state.Records) > 0 {
				t.Errorf("the other root got %v, want %q", err, tt.theirs)
			}
		})
	}
}
