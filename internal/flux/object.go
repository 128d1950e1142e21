package flux

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

// Object is one object of a Kustomization's build, with the file it came
// from. A stage that changes the content works on a deep copy.
type Object struct {
	*unstructured.Unstructured

	// File is the path in the source's tree of the manifest that the
	// object was read from, or of the kustomization file whose generator
	// made it; empty when the build does not know.
	File string

	// Open are the names of variables that were left in it as they are,
	// since nobody there could tell their values (a build without a
	// cluster). It must not be applied while there are any.
	Open []string
}

// Ref returns the reference to the object.
func (o Object) Ref() Ref { return RefOf(o.Unstructured) }

// DeepCopy returns a copy whose content can be changed.
func (o Object) DeepCopy() Object {
	o.Unstructured = o.Unstructured.DeepCopy()
	return o
}
