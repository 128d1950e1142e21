package definition

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Definition is what a CustomResourceDefinition says. It is safe for concurrent
// use.
type Definition struct {
	// Name is the CustomResourceDefinition's, such as "gadgets.example.com".
	Name string
	// Kind is what it defines.
	Kind schema.GroupKind
	// Namespaced is the scope.
	Namespaced bool

	versions map[string]*version
}

// version is one version of a definition. What judges by it is made when it is
// first needed: rules in CEL take a while to compile.
type version struct {
	served bool
	source *apiextensionsv1.CustomResourceDefinitionVersion
	kind   schema.GroupVersionKind

	once  sync.Once
	rules *rules
	err   error
}

// New reads a CustomResourceDefinition. The error says what of it cannot be
// read; whether a server would take it is not looked at.
func New(crd *unstructured.Unstructured) (*Definition, error) {
	if crd.GetAPIVersion() != apiextensionsv1.SchemeGroupVersion.String() {
		return nil, fmt.Errorf("%s is of %s, which is not read here", crd.GetName(), crd.GetAPIVersion())
	}
	in := &apiextensionsv1.CustomResourceDefinition{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(crd.DeepCopy().Object, in); err != nil {
		return nil, err
	}
	if in.Spec.PreserveUnknownFields {
		return nil, errors.New("spec.preserveUnknownFields is set, so that its schemas need not be complete")
	}
	d := &Definition{
		Name:       in.Name,
		Kind:       schema.GroupKind{Group: in.Spec.Group, Kind: in.Spec.Names.Kind},
		Namespaced: in.Spec.Scope == apiextensionsv1.NamespaceScoped,
		versions:   map[string]*version{},
	}
	for i := range in.Spec.Versions {
		v := &in.Spec.Versions[i]
		d.versions[v.Name] = &version{served: v.Served, source: v, kind: d.Kind.WithVersion(v.Name)}
	}
	return d, nil
}

// Served returns the names of the served versions, sorted.
func (d *Definition) Served() []string {
	var names []string
	for name, v := range d.versions {
		if v.served {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Check judges an object of the definition's kind as one that does not exist
// yet. It returns nil if a server with this definition would find nothing wrong
// with it, or if that cannot be told here.
func (d *Definition) Check(o *unstructured.Unstructured) error {
	return d.check(o, (*rules).create)
}

// CheckFields judges only what holds of every apply of the object, also to one
// that exists: that its fields are declared and of the declared types. Values
// of an existing object may be unchanged, which a server then tolerates.
func (d *Definition) CheckFields(o *unstructured.Unstructured) error {
	return d.check(o, (*rules).fields)
}

func (d *Definition) check(o *unstructured.Unstructured, judge func(*rules, *unstructured.Unstructured) []string) error {
	v := d.versions[o.GroupVersionKind().Version]
	if v == nil || !v.served {
		return &Misfit{Definition: d.Name, Faults: []string{fmt.Sprintf("apiVersion: %s is not served", o.GetAPIVersion())}, hint: d.otherVersions()}
	}
	if d.Namespaced && o.GetNamespace() == "" {
		return &Misfit{Definition: d.Name, Faults: []string{"metadata.namespace: is required, the kind is namespaced"},
			hint: "set metadata.namespace in the manifest, or spec.targetNamespace of the Kustomization"}
	}
	v.once.Do(func() { v.rules, v.err = compile(v) })
	if v.err != nil {
		return nil // the server tells what is wrong with the definition
	}
	sent, err := sent(o)
	if err != nil {
		return err
	}
	faults := judge(v.rules, sent)
	if len(faults) == 0 {
		return nil
	}
	slices.Sort(faults)
	return &Misfit{Definition: d.Name, Faults: slices.Compact(faults)}
}

// sent returns a copy of an object as a server reads it: whether a number is
// whole depends on how it is written, not on how it is held here.
func sent(o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	text, err := o.MarshalJSON()
	if err != nil {
		return nil, err
	}
	read := &unstructured.Unstructured{}
	return read, read.UnmarshalJSON(text)
}

func (d *Definition) otherVersions() string {
	served := d.Served()
	if len(served) == 0 {
		return "the definition serves no version"
	}
	return "the definition serves " + strings.Join(served, ", ")
}

// Misfit is an object that does not fit its definition.
type Misfit struct {
	// Definition is the CustomResourceDefinition's name.
	Definition string
	// Faults are what is wrong, each beginning with the field, sorted.
	Faults []string
	hint   string
}

// Error names the definition and all faults, on one line.
func (m *Misfit) Error() string {
	return fmt.Sprintf("does not fit its definition %s, which comes with this commit: %s", m.Definition, strings.Join(m.Faults, "; "))
}

// Hint is the remedy, if one is known.
func (m *Misfit) Hint() string { return m.hint }

// internal converts a schema to the form that the server's code works with.
func internal(in *apiextensionsv1.CustomResourceValidation) (*apiextensions.JSONSchemaProps, error) {
	if in == nil || in.OpenAPIV3Schema == nil {
		return nil, errors.New("it has no schema")
	}
	out := &apiextensions.CustomResourceValidation{}
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(in, out, nil); err != nil {
		return nil, err
	}
	return out.OpenAPIV3Schema, nil
}
