package bench

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
)

// Kustomization is a Kustomization of a generated repository as other clients
// get it: built, with the labels of its owner.
type Kustomization struct {
	Name    string
	Objects []*unstructured.Unstructured
	// WaitsFor is the Deployment that must be rolled out before the next
	// step begins; nil if nobody waits.
	WaitsFor *unstructured.Unstructured
}

// Steps are the Kustomizations of the last commit in the order in which they
// may be applied: those of a step at once, each step after the one before. It
// reads the manifests without kustomize, which takes long for a large folder;
// a test shows that sluice builds the same objects.
func (r *Repository) Steps() ([][]Kustomization, error) {
	var steps [][]Kustomization
	for i := range r.count() {
		k := Kustomization{Name: name(i)}
		for _, m := range r.manifests(i) {
			o, err := parse(m.content)
			if err != nil {
				return nil, fmt.Errorf("%s%s: %w", folder(i), m.file, err)
			}
			labels := o.GetLabels()
			if labels == nil {
				labels = map[string]string{}
			}
			labels[flux.NameLabel], labels[flux.NamespaceLabel] = name(i), namespace
			o.SetLabels(labels)
			k.Objects = append(k.Objects, o)
		}
		if r.options.Layers > 0 {
			k.WaitsFor = k.Objects[1]
		}
		if layer := r.options.layer(i); layer == len(steps) {
			steps = append(steps, []Kustomization{k})
		} else {
			steps[layer] = append(steps[layer], k)
		}
	}
	return steps, nil
}

func parse(manifest string) (*unstructured.Unstructured, error) {
	data, err := yaml.YAMLToJSON([]byte(manifest))
	if err != nil {
		return nil, err
	}
	o := &unstructured.Unstructured{}
	return o, o.UnmarshalJSON(data)
}

// Folders are what kustomize builds for the last commit, one folder for each
// Kustomization: content by file name. Its own time is measured with them.
func (r *Repository) Folders() []map[string]string {
	folders := make([]map[string]string, r.count())
	for i := range folders {
		folders[i] = map[string]string{}
		for _, m := range r.folder(i) {
			folders[i][m.file] = m.content
		}
	}
	return folders
}
