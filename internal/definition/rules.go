package definition

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	crvalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	serverversion "k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// oldest is the version of Kubernetes whose formats are checked: every server
// that is still in use knows these.
var oldest = serverversion.MajorMinor(1, 30)

// rules judge the objects of one version.
type rules struct {
	schema *structural.Structural
	types  managedfields.TypeConverter
	values crvalidation.SchemaValidator
	// expressions are nil if there are none.
	expressions  *cel.Validator
	subresources *apiextensionsv1.CustomResourceSubresources
}

// compile makes the rules as a server does when it begins to serve a version.
func compile(v *version) (*rules, error) {
	props, err := internal(v.source.Schema)
	if err != nil {
		return nil, err
	}
	s, err := structural.NewStructural(props)
	if err != nil {
		return nil, err
	}
	s = s.DeepCopy()
	if err := defaulting.PruneDefaults(s); err != nil {
		return nil, err
	}
	r := &rules{schema: s, subresources: v.source.Subresources}
	if r.types, err = types(v, s); err != nil {
		return nil, err
	}
	if r.values, _, err = crvalidation.NewSchemaValidatorForVersion(props, oldest); err != nil {
		return nil, err
	}
	r.expressions = cel.NewValidator(s, true, celconfig.PerCallLimit)
	return r, nil
}

// types are what server-side apply knows of the fields.
func types(v *version, s *structural.Structural) (managedfields.TypeConverter, error) {
	model := s.ToKubeOpenAPI()
	addEmbedded(model)
	addIdentity(model)
	model.AddExtension("x-kubernetes-group-version-kind", []any{
		map[string]any{"group": v.kind.Group, "version": v.kind.Version, "kind": v.kind.Kind},
	})
	return managedfields.NewTypeConverter(map[string]*spec.Schema{"object": model, "metadata": &objectMeta}, false)
}

// addIdentity declares the fields that every object has.
func addIdentity(s *spec.Schema) {
	s.SetProperty("apiVersion", *spec.StringProperty())
	s.SetProperty("kind", *spec.StringProperty())
	// By reference, so that a field around it which lets unknown fields pass
	// has no say in it.
	s.SetProperty("metadata", *spec.RefSchema("#/components/schemas/metadata"))
}

// objectMeta is the schema of metadata, as far as server-side apply looks at it.
var objectMeta = object(map[string]spec.Schema{
	"name": *spec.StringProperty(), "generateName": *spec.StringProperty(), "namespace": *spec.StringProperty(),
	"selfLink": *spec.StringProperty(), "uid": *spec.StringProperty(), "resourceVersion": *spec.StringProperty(),
	"generation": *spec.Int64Property(), "deletionGracePeriodSeconds": *spec.Int64Property(),
	"creationTimestamp": *spec.DateTimeProperty(), "deletionTimestamp": *spec.DateTimeProperty(),
	"labels": *spec.MapProperty(spec.StringProperty()), "annotations": *spec.MapProperty(spec.StringProperty()),
	"finalizers":    list("set", spec.StringProperty()),
	"managedFields": list("atomic", &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}),
	"ownerReferences": list("map", func() *spec.Schema {
		s := object(map[string]spec.Schema{
			"apiVersion": *spec.StringProperty(), "kind": *spec.StringProperty(), "name": *spec.StringProperty(), "uid": *spec.StringProperty(),
			"controller": *spec.BooleanProperty(), "blockOwnerDeletion": *spec.BooleanProperty(),
		})
		return &s
	}(), "uid"),
})

func object(properties map[string]spec.Schema) spec.Schema {
	return spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: properties}}
}

func list(of string, items *spec.Schema, keys ...any) spec.Schema {
	s := *spec.ArrayProperty(items)
	s.AddExtension("x-kubernetes-list-type", of)
	if len(keys) > 0 {
		s.AddExtension("x-kubernetes-list-map-keys", keys)
	}
	return s
}

// addEmbedded does so for objects within the object.
func addEmbedded(s *spec.Schema) {
	if s == nil {
		return
	}
	for name, property := range s.Properties {
		addEmbedded(&property)
		s.Properties[name] = property
	}
	if s.Items != nil {
		addEmbedded(s.Items.Schema)
	}
	if s.AdditionalProperties != nil {
		addEmbedded(s.AdditionalProperties.Schema)
	}
	if embedded, ok := s.Extensions.GetBool("x-kubernetes-embedded-resource"); ok && embedded {
		addIdentity(s)
	}
}

// raw is how the library writes a value.
var raw = regexp.MustCompile(`&?value\.valueUnstructured\{Value:(.*)\}`)

// fields are the faults that server-side apply finds before it looks at any
// value.
func (r *rules) fields(o *unstructured.Unstructured) []string {
	var faults []string
	if _, err := r.types.ObjectToTyped(o); err != nil {
		var all typed.ValidationErrors
		if !errors.As(err, &all) {
			return []string{err.Error()}
		}
		for _, e := range all {
			faults = append(faults, strings.TrimPrefix(raw.ReplaceAllString(e.Error(), "$1"), "."))
		}
	}
	return faults
}

// metadata reads an object's.
func metadata(o *unstructured.Unstructured) (*metav1.ObjectMeta, error) {
	content, ok := o.Object["metadata"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("must be a map, not %T", o.Object["metadata"])
	}
	into := &metav1.ObjectMeta{}
	return into, runtime.DefaultUnstructuredConverter.FromUnstructured(content, into)
}

// create are the faults of an object that is to be created. It sets defaults in
// the object.
func (r *rules) create(o *unstructured.Unstructured) []string {
	if faults := r.fields(o); len(faults) > 0 {
		return faults
	}
	if r.subresources != nil && r.subresources.Status != nil {
		delete(o.Object, "status") // what is created has none
	}
	defaulting.Default(o.Object, r.schema)

	var errs field.ErrorList
	meta, err := metadata(o)
	if err != nil {
		return []string{"metadata: " + err.Error()}
	}
	errs = append(errs, validation.ValidateObjectMeta(meta, meta.Namespace != "", validation.NameIsDNSSubdomain, field.NewPath("metadata"))...)
	errs = append(errs, crvalidation.ValidateCustomResource(nil, o.Object, r.values)...)
	errs = append(errs, r.scale(o)...)
	errs = append(errs, objectmeta.Validate(context.Background(), nil, o.Object, r.schema, false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, r.schema, o.Object)...)
	if r.expressions != nil && !blocks(errs) {
		broken, _ := r.expressions.Validate(context.Background(), nil, r.schema, o.Object, nil, celconfig.RuntimeCELCostBudget)
		errs = append(errs, broken...)
	}
	var faults []string
	for _, e := range errs {
		faults = append(faults, e.Error())
	}
	return faults
}

// blocks reports whether a server would not go on to the expressions.
func blocks(errs field.ErrorList) bool {
	for _, e := range errs {
		switch e.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
	}
	return false
}

// scale judges the number that the scale subresource stands for.
func (r *rules) scale(o *unstructured.Unstructured) field.ErrorList {
	if r.subresources == nil || r.subresources.Scale == nil {
		return nil
	}
	path := strings.TrimPrefix(r.subresources.Scale.SpecReplicasPath, ".")
	replicas, _, err := unstructured.NestedInt64(o.Object, strings.Split(path, ".")...)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(field.NewPath(path), replicas, err.Error())}
	case replicas < 0 || replicas > math.MaxInt32:
		return field.ErrorList{field.Invalid(field.NewPath(path), replicas, fmt.Sprintf("must be between 0 and %d", math.MaxInt32))}
	}
	return nil
}
