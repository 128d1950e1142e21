package upstream

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/kustomize"
	"github.com/fluxcd/pkg/ssa"
	ssautil "github.com/fluxcd/pkg/ssa/utils"
	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/build"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/substitute"
)

// corpus is the folder of small repositories that internal/build is tested
// with. Each is named after the fact that it shows.
const corpus = "../build/testdata"

// unlike begins the sentence by which a case says that sluice differs there on
// purpose, and why.
const unlike = "Unlike Flux: "

// TestMain keeps kustomize's warnings out of the output.
func TestMain(m *testing.M) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		log.Fatal(err)
	}
	os.Stderr = null
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// otherDigest are the cases with something that never gets to the cluster as it
// is, Flux's neither, but that Flux sums up before (S0.14): the digits that an
// integer of more than 63 bits loses, and files of kustomize's (S0.15).
var otherDigest = map[string]bool{"numbers": true, "s2.14-spec": true, "s0.15-kustomize-kinds": true}

// outcome is what becomes of a repository: objects or an error.
type outcome struct {
	objects []*unstructured.Unstructured
	// digest is what a history has of the build.
	digest string
	err    error
}

// TestBuild (S2.1 to S2.37): for every repository of the corpus both fail, or
// both give the same objects in the same order, to the byte, with the labels
// and annotations of the Kustomization on them (S4.1, S1.9). Where sluice
// differs on purpose the case says so, and has to differ.
func TestBuild(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(corpus, "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 60 {
		t.Fatalf("the corpus has %d repositories only", len(files))
	}
	said, names := readSayings(t, "testdata/build-errors.txt"), map[string]bool{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		names[name] = true
		t.Run(name, func(t *testing.T) {
			top, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(top, "some", "tree")
			spec, comment := unpack(t, file, dir)
			ours, theirs := sluice(dir, spec, true), controller(dir, spec, true)
			said.compare(t, name, top, theirs.err)
			different := difference(ours, theirs)
			if different == "" && ours.digest != theirs.digest && !otherDigest[name] {
				different = fmt.Sprintf("the same objects, but digest %s and %s", ours.digest, theirs.digest)
			}
			deliberate := strings.Contains(comment, unlike)
			switch {
			case different == "" && deliberate:
				t.Errorf("the case says that sluice differs, but it does not:\n%s", comment)
			case different != "" && !deliberate:
				t.Error(different)
			}
		})
	}
	said.finish(t, names)
}

// unpack writes the files of a case to a folder of the disk and returns the
// Kustomization, and what the case says of itself.
func unpack(t *testing.T, file, dir string) (kustomization []byte, comment string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		switch {
		case f.Name == "ks.yaml":
			kustomization = f.Data
		case !strings.HasPrefix(f.Name, "want-"):
			to := filepath.Join(dir, filepath.FromSlash(f.Name))
			if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, f.Data, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return kustomization, strings.ReplaceAll(string(archive.Comment), "\n", " ")
}

// id is the name of the Kustomization of every case.
var id = flux.ID{Namespace: "flux-system", Name: "app"}

// sluice builds the folder as sluice does; strict is about unknown variables.
func sluice(dir string, text []byte, strict bool) outcome {
	var typed kustomizev1.Kustomization
	var loose struct {
		Spec struct {
			ConfigMapGenerator    []map[string]any `json:"configMapGenerator"`
			PatchesStrategicMerge []map[string]any `json:"patchesStrategicMerge"`
			PatchesJSON6902       []map[string]any `json:"patchesJson6902"`
		} `json:"spec"`
	}
	if err := errors.Join(yaml.Unmarshal(text, &typed), yaml.Unmarshal(text, &loose)); err != nil {
		return outcome{err: err}
	}
	k := &flux.Kustomization{ID: id, Spec: typed.Spec, Extra: flux.Extra{
		ConfigMapGenerator:    loose.Spec.ConfigMapGenerator,
		PatchesStrategicMerge: loose.Spec.PatchesStrategicMerge,
		PatchesJSON6902:       loose.Spec.PatchesJSON6902,
	}}
	tree := os.DirFS(dir)
	result, err := build.Build(context.Background(), tree, k, build.Options{})
	if err != nil {
		return outcome{err: err}
	}
	return fill(tree, k, result.Objects, strict)
}

// fill does what sluice does with the result of a build.
func fill(tree fs.FS, k *flux.Kustomization, objects []flux.Object, strict bool) outcome {
	options := substitute.Options{Strict: strict, Tree: tree}
	vars, _, err := substitute.Load(context.Background(), k, nil, options)
	if err != nil {
		return outcome{err: err}
	}
	objects, _, err = substitute.Apply(k, objects, vars, options)
	if err != nil {
		return outcome{err: err}
	}
	var o outcome
	if o.digest, err = build.Digest(objects); err != nil {
		return outcome{err: err}
	}
	if objects, err = build.Label(k, objects); err != nil {
		return outcome{err: err}
	}
	for _, object := range objects {
		o.objects = append(o.objects, object.Unstructured)
	}
	return o
}

// controller builds the folder in the steps of kustomize-controller, with its
// libraries.
func controller(dir string, text []byte, strict bool) outcome {
	var loose unstructured.Unstructured
	var typed kustomizev1.Kustomization
	if err := errors.Join(yaml.Unmarshal(text, &loose.Object), yaml.Unmarshal(text, &typed)); err != nil {
		return outcome{err: err}
	}
	folder := filepath.Join(dir, path.Clean("/"+typed.Spec.Path))
	if _, err := os.Stat(folder); err != nil {
		return outcome{err: fmt.Errorf("kustomization path not found: %w", err)}
	}
	if _, err := kustomize.NewGenerator(dir, loose).WriteFile(folder); err != nil {
		return outcome{err: err}
	}
	built, err := kustomize.SecureBuild(dir, folder, true)
	if err != nil {
		return outcome{err: fmt.Errorf("kustomize build failed: %w", err)}
	}
	return finish(built, loose, typed, strict)
}

// finish does what the controller does with the result of a build: variables,
// text, objects, labels.
func finish(built resmap.ResMap, loose unstructured.Unstructured, typed kustomizev1.Kustomization, strict bool) outcome {
	for _, r := range built.Resources() {
		if r.GetName() == "" || r.GetKind() == "" || r.GetApiVersion() == "" {
			return outcome{err: fmt.Errorf("failed to decode Kubernetes apiVersion, kind and name from: %v", r.String())}
		}
		if typed.Spec.PostBuild == nil {
			continue
		}
		filled, err := kustomize.SubstituteVariables(context.Background(), nil, loose, r, kustomize.SubstituteWithDryRun(true),
			kustomize.SubstituteWithStrict(strict), kustomize.SubstituteWithAlways(typed.GetSubstituteStrategy() == kustomizev1.SubstituteStrategyAlways))
		if err != nil {
			return outcome{err: err}
		}
		if filled != nil {
			if _, err := built.Replace(r); err != nil {
				return outcome{err: err}
			}
		}
	}
	stream, err := built.AsYaml()
	if err != nil {
		return outcome{err: err}
	}
	objects, err := ssautil.ReadObjects(strings.NewReader(string(stream)))
	if err != nil {
		return outcome{err: err}
	}
	ssa.NewResourceManager(nil, nil, ssa.Owner{Group: kustomizev1.GroupVersion.Group}).SetOwnerLabels(objects, id.Name, id.Namespace)
	if common := typed.Spec.CommonMetadata; common != nil {
		ssautil.SetCommonMetadata(objects, common.Labels, common.Annotations)
	}
	return outcome{objects: objects, digest: fmt.Sprintf("sha256:%x", sha256.Sum256(stream))}
}

// difference tells in what two outcomes differ, "" if in nothing.
func difference(ours, theirs outcome) string {
	switch {
	case ours.err != nil && theirs.err != nil:
		return ""
	case ours.err != nil || theirs.err != nil:
		return fmt.Sprintf("only one of them fails:\nsluice: %v\nFlux: %v", ours.err, theirs.err)
	case text(ours.objects) != text(theirs.objects):
		return fmt.Sprintf("--- sluice\n%s--- Flux\n%s", text(ours.objects), text(theirs.objects))
	}
	for i := range ours.objects {
		// A number can have one text and two types.
		if !reflect.DeepEqual(ours.objects[i].Object, theirs.objects[i].Object) {
			return fmt.Sprintf("--- sluice\n%#v\n--- Flux\n%#v", ours.objects[i].Object, theirs.objects[i].Object)
		}
	}
	return ""
}

// text writes objects as one YAML stream.
func text(objects []*unstructured.Unstructured) string {
	var b strings.Builder
	for _, o := range objects {
		one, err := yaml.Marshal(o.Object)
		if err != nil {
			return err.Error()
		}
		b.WriteString("---\n")
		b.Write(one)
	}
	return b.String()
}
