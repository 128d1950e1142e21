package discover_test

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/discover"
	"github.com/sluicerun/sluice/internal/flux"
)

var parent = flux.ID{Namespace: "flux-system", Name: "root"}

const file = "clusters/x.yaml"

// objects reads a stream as a build would give it, and the tree it is from.
func objects(t testing.TB, stream string) (fstest.MapFS, []flux.Object) {
	t.Helper()
	var all []flux.Object
	for _, doc := range strings.Split(stream, "\n---\n") {
		json, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		o := flux.Object{Unstructured: &unstructured.Unstructured{}, File: file}
		if err := o.UnmarshalJSON(json); err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return fstest.MapFS{file: {Data: []byte(stream)}}, all
}

// head is a Kustomization up to its spec, seven lines.
const head = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: apps
  namespace: flux-system
spec:
  sourceRef: {kind: GitRepository, name: repo}
`

// TestFields decodes every field of v1 (section 1.2).
func TestFields(t *testing.T) {
	tree, in := objects(t, "# a comment\n"+full+"  configMapGenerator: [{name: c, literals: [a=b]}]\nstatus: {}\n")
	found, err := discover.Split(parent, tree, in)
	if err != nil {
		t.Fatal(err)
	}
	k := found.Kustomizations[0]
	if k.ID != (flux.ID{Namespace: "flux-system", Name: "apps"}) || k.Parent != parent || k.File != file || k.Line != 2 ||
		k.APIVersion != "kustomize.toolkit.fluxcd.io/v1" || k.Labels["l"] != "v" {
		t.Errorf("%+v", k)
	}
	s := k.Spec
	if s.Interval.Duration != 90*time.Minute || k.Timeout() != 90*time.Minute || s.RetryInterval.Duration != 90*time.Second ||
		!s.Prune || s.DeletionPolicy != "WaitForTermination" || !s.Suspend || !s.Force || !s.Wait ||
		s.TargetNamespace != "t" || s.NamePrefix != "p-" || s.NameSuffix != "-s" || s.ServiceAccountName != "sa" ||
		s.CommonMetadata.Labels["a"] != "b" || s.Patches[0].Target.AnnotationSelector != "c=d" || s.Images[0].Digest != "l" ||
		s.Components[0] != "../c" || !s.IgnoreMissingComponents || len(s.BuildMetadata) != 2 ||
		s.PostBuild.Substitute["a"] != "b" || !s.PostBuild.SubstituteFrom[1].Optional || s.PostBuild.SubstituteFrom[0].Optional ||
		s.PostBuild.SubstituteStrategy != "Always" || s.HealthChecks[0].Name != "d" || s.HealthCheckExprs[0].Failed != "false" ||
		s.KubeConfig.SecretRef.Key != "v" || s.Decryption.ServiceAccountName != "d" || s.Ignore[0].Paths[0] != "/spec/replicas" {
		t.Errorf("%+v", s)
	}
	if got := fmt.Sprint(k.Dependencies()); got != "[flux-system/one other/two]" {
		t.Errorf("dependencies %s", got)
	}
	if k.Path() != "apps/production" || k.Source().String() != "GitRepository/other/repo" {
		t.Errorf("path %s, source %s", k.Path(), k.Source())
	}
	if fmt.Sprint(k.Extra.ConfigMapGenerator) != "[map[literals:[a=b] name:c]]" {
		t.Errorf("extension %v", k.Extra)
	}
}

// TestSplit (S16.2, S16.3): what goes where, in the order of the build.
func TestSplit(t *testing.T) {
	tree, in := objects(t, `apiVersion: v1
kind: Namespace
metadata: {name: space}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kustomize-controller, namespace: flux-system, labels: {app.kubernetes.io/part-of: flux}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {url: "ssh://git@example.com/x", ref: {branch: main}, ignore: "", suspend: true}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: Bucket
metadata: {name: b, namespace: flux-system}
spec: {bucketName: x}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: h, namespace: flux-system}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: r, namespace: flux-system}
---
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
metadata: {name: not-flux}
---
`+head+"  interval: 5m\n  prune: true\n")
	found, err := discover.Split(parent, tree, in)
	if err != nil {
		t.Fatal(err)
	}
	names := func(objects []flux.Object) (all []string) {
		for _, o := range objects {
			all = append(all, o.Ref().String())
		}
		return all
	}
	for _, test := range []struct{ got, want []string }{
		{names(found.Objects), []string{"Namespace/space", "Kustomization/not-flux"}},
		{names(found.FluxComponents), []string{"Deployment/flux-system/kustomize-controller"}},
		{names(found.Toolkit), []string{"HelmRepository/flux-system/h", "HelmRelease/flux-system/r"}},
	} {
		if !slices.Equal(test.got, test.want) {
			t.Errorf("got %v, want %v", test.got, test.want)
		}
	}
	if len(found.Kustomizations) != 1 || found.Kustomizations[0].Line != 31 {
		t.Errorf("Kustomizations %+v", found.Kustomizations)
	}
	if len(found.Sources) != 2 {
		t.Fatalf("sources %+v", found.Sources)
	}
	s := found.Sources[0]
	if s.String() != "GitRepository/flux-system/flux-system" || s.URL != "ssh://git@example.com/x" || s.Ref.Branch != "main" || s.Ignore == nil || *s.Ignore != "" || !s.Suspend || s.Line != 9 {
		t.Errorf("source %+v", s)
	}
	if len(found.Notices) != 1 || found.Notices[0].Code != "flux-components" {
		t.Errorf("notices %+v", found.Notices)
	}
}

// TestBadSources names what is wrong with a source.
func TestBadSources(t *testing.T) {
	tree, in := objects(t, `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: a, namespace: ns}
spec: {}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: b}
spec: {url: x}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: OCIRepository
metadata: {name: c, namespace: ns}
spec:
  url: oci://x
  ref:
    tag: 1.5
`)
	_, err := discover.Split(parent, tree, in)
	want := []string{
		"flux-system/root: clusters/x.yaml:4: GitRepository/ns/a: spec.url: is required",
		"flux-system/root: clusters/x.yaml:8: GitRepository/b: metadata.namespace: namespace not specified",
		"flux-system/root: clusters/x.yaml:17: OCIRepository/ns/c: spec.ref.tag: must be a string",
	}
	var got []string
	for _, e := range flux.Problems(err) {
		got = append(got, e.Error())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestDuplicates: two Kustomizations of one id, in two versions.
func TestDuplicates(t *testing.T) {
	one := head + "  interval: 5m\n  prune: true\n"
	tree, in := objects(t, one+"---\n"+strings.Replace(one, "/v1\n", "/v1beta2\n", 1))
	in[1].File = "clusters/y.yaml"
	tree["clusters/y.yaml"] = &fstest.MapFile{Data: []byte("\n" + strings.Replace(one, "/v1\n", "/v1beta2\n", 1))}
	found, err := discover.Split(parent, tree, in)
	want := "clusters/y.yaml:2: Kustomization/flux-system/apps: is declared twice: also in clusters/x.yaml:1"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if len(found.Kustomizations) != 1 {
		t.Errorf("found %v", found.Kustomizations)
	}
}

// TestWithoutTree: no tree means no lines, and nothing else.
func TestWithoutTree(t *testing.T) {
	_, in := objects(t, head+"  interval: 5m\n")
	_, err := discover.Split(parent, nil, in)
	if err == nil || err.Error() != "clusters/x.yaml: Kustomization/flux-system/apps: spec.prune: is required" {
		t.Errorf("error %v", err)
	}
}

// FuzzSplit: whatever is in an object, there is an error that names it or a
// Kustomization that the stages can work with, never a panic.
func FuzzSplit(f *testing.F) {
	f.Add([]byte(head + "  interval: 5m\n  prune: true\n"))
	f.Add([]byte(head + "  interval: [5m]\n  prune: {}\n  patches: [1, {patch: 2}]\nstatus: 1\n"))
	f.Add([]byte("apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: a, namespace: b}\nspec: [1]\n"))
	f.Add([]byte("apiVersion: kustomize.toolkit.fluxcd.io/v1beta2\nkind: Kustomization\nmetadata: 1\nspec: 2\n"))
	f.Add([]byte(head + "  interval: 5m\n  prune: true\n  path: ../../..\n  timeout: 1ns\n  retryInterval: 1h\n  dependsOn: [{name: a}, {name: b, namespace: c}]\n"))
	f.Add([]byte(head + "  interval: 5m\n  prune: true\n  kubeConfig: {secretRef: {name: a, key: b}}\n  targetNamespace: x\n"))
	f.Add([]byte(head + "  interval: 5m\n  prune: true\n  postBuild: {substitute: {a: b}, substituteFrom: [{kind: Secret, name: a, optional: true}]}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		json, err := yaml.YAMLToJSON(text)
		if err != nil {
			return
		}
		o := flux.Object{Unstructured: &unstructured.Unstructured{}, File: file}
		if err := o.UnmarshalJSON(json); err != nil {
			return
		}
		found, err := discover.Split(parent, fstest.MapFS{file: {Data: text}}, []flux.Object{o})
		n := len(found.Kustomizations) + len(found.Sources) + len(found.FluxComponents) + len(found.Toolkit) + len(found.Objects)
		if (err == nil) != (n == 1) {
			t.Errorf("%d found, error %v", n, err)
		}
		for _, p := range flux.Problems(err) {
			if p.Err == nil || p.File != file {
				t.Errorf("problem %+v", p)
			}
		}
		for _, k := range found.Kustomizations {
			if _, err := flux.ParseID(k.ID.String()); err != nil {
				t.Error(err)
			}
			if !fs.ValidPath(k.Path()) {
				t.Errorf("path %q becomes %q", k.Spec.Path, k.Path())
			}
			if k.Timeout() < 30*time.Second {
				t.Errorf("timeout %s", k.Timeout())
			}
			for _, dep := range k.Dependencies() {
				if dep.Namespace == "" {
					t.Errorf("depends on %s", dep)
				}
			}
			if _, err := flux.ParseClusterRef(k.Cluster().String()); err != nil {
				t.Error(err)
			}
		}
	})
}
