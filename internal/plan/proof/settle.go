package proof

import (
	"reflect"
	"strings"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

// settle returns what a server keeps of an object of a built-in kind: a server
// reads it into the kind's Go type, fills in defaults, and writes that. It
// returns false for other kinds, and for an object that the Go type here does
// not hold in full, for then it is not the server's.
//
// Defaults are filled in only where a manifest is replaced as a whole rather
// than merged, since elsewhere the object in the cluster has them and nobody
// compares them. The result shares nothing with the object.
func settle(gvk schema.GroupVersionKind, object map[string]any) (map[string]any, bool) {
	typed, ok := goType(gvk)
	if !ok {
		return nil, false
	}
	// The converter would share what is of no fixed type.
	object = runtime.DeepCopyJSON(object)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, typed); err != nil {
		return nil, false
	}
	_, definition := typed.(*apiextensionsv1.CustomResourceDefinition)
	fillDefaults(reflect.ValueOf(typed), !definition)
	settled, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	if err != nil || loses(object, settled, fieldNames(reflect.TypeOf(typed))) {
		return nil, false
	}
	return settled, true
}

// goType returns an empty object of a built-in kind.
func goType(gvk schema.GroupVersionKind) (runtime.Object, bool) {
	if gvk == apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition") {
		return &apiextensionsv1.CustomResourceDefinition{}, true
	}
	typed, err := scheme.Scheme.New(gvk)
	return typed, err == nil
}

// defaults are those of the API for what is replaced as a whole, by the type
// that they are part of. They are in the API's documentation, and as part of a
// stable version never change; OpenAPI does not have them.
var defaults = map[reflect.Type]func(pointer any){
	of[corev1.ObjectFieldSelector](): func(p any) {
		setIfZero(&p.(*corev1.ObjectFieldSelector).APIVersion, "v1")
	},
	of[corev1.FileKeySelector](): func(p any) {
		setIfNil(&p.(*corev1.FileKeySelector).Optional, false)
	},
	of[corev1.ServiceAccountTokenProjection](): func(p any) {
		setIfNil(&p.(*corev1.ServiceAccountTokenProjection).ExpirationSeconds, 3600)
	},
	of[corev1.EndpointPort](): func(p any) {
		setIfZero(&p.(*corev1.EndpointPort).Protocol, corev1.ProtocolTCP)
	},
	of[corev1.PersistentVolumeClaim](): func(p any) {
		// Part of a StatefulSet, where it is written as a whole object.
		claim := p.(*corev1.PersistentVolumeClaim)
		setIfZero(&claim.APIVersion, "v1")
		setIfZero(&claim.Kind, "PersistentVolumeClaim")
		setIfNil(&claim.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
		setIfZero(&claim.Status.Phase, corev1.ClaimPending)
	},
	of[corev1.LimitRangeItem](): func(p any) {
		item := p.(*corev1.LimitRangeItem)
		if item.Type != corev1.LimitTypeContainer {
			return
		}
		fillResources(&item.Default, item.Max)
		fillResources(&item.DefaultRequest, item.Default)
		fillResources(&item.DefaultRequest, item.Min)
	},
	of[networkingv1.NetworkPolicyPort](): func(p any) {
		setIfNil(&p.(*networkingv1.NetworkPolicyPort).Protocol, corev1.ProtocolTCP)
	},
	of[discoveryv1.EndpointPort](): func(p any) {
		port := p.(*discoveryv1.EndpointPort)
		setIfNil(&port.Name, "")
		setIfNil(&port.Protocol, corev1.ProtocolTCP)
	},
	of[rbacv1.RoleRef](): func(p any) {
		setIfZero(&p.(*rbacv1.RoleRef).APIGroup, rbacv1.GroupName)
	},
	of[rbacv1.Subject](): func(p any) {
		if subject := p.(*rbacv1.Subject); subject.Kind == rbacv1.UserKind || subject.Kind == rbacv1.GroupKind {
			setIfZero(&subject.APIGroup, rbacv1.GroupName)
		}
	},
	of[batchv1.PodFailurePolicyOnPodConditionsPattern](): func(p any) {
		setIfZero(&p.(*batchv1.PodFailurePolicyOnPodConditionsPattern).Status, corev1.ConditionTrue)
	},
	of[admissionregistrationv1.Rule](): func(p any) {
		setIfNil(&p.(*admissionregistrationv1.Rule).Scope, admissionregistrationv1.AllScopes)
	},
	of[admissionregistrationv1.MatchResources](): func(p any) {
		match := p.(*admissionregistrationv1.MatchResources)
		setIfNil(&match.MatchPolicy, admissionregistrationv1.Equivalent)
		setIfNil(&match.NamespaceSelector, metav1.LabelSelector{})
		setIfNil(&match.ObjectSelector, metav1.LabelSelector{})
	},
	// Those that follow are merged, but normalisation writes a zero or a null
	// where the manifest says nothing (S4.2).
	of[corev1.GRPCAction](): func(p any) {
		setIfNil(&p.(*corev1.GRPCAction).Service, "")
	},
	of[corev1.Secret]():    func(p any) { fillBytes(p.(*corev1.Secret).Data) },
	of[corev1.ConfigMap](): func(p any) { fillBytes(p.(*corev1.ConfigMap).BinaryData) },
	of[networkingv1.IngressClassParametersReference](): func(p any) {
		setIfNil(&p.(*networkingv1.IngressClassParametersReference).Scope, networkingv1.IngressClassParametersReferenceScopeCluster)
	},
	of[corev1.ServicePort](): func(p any) {
		port := p.(*corev1.ServicePort)
		if port.TargetPort == intstr.FromInt32(0) || port.TargetPort == intstr.FromString("") {
			port.TargetPort = intstr.FromInt32(port.Port)
		}
	},
	of[flowcontrolv1.FlowSchemaSpec](): func(p any) {
		setIfZero(&p.(*flowcontrolv1.FlowSchemaSpec).MatchingPrecedence, 1000)
	},
	of[flowcontrolv1.QueuingConfiguration](): func(p any) {
		queuing := p.(*flowcontrolv1.QueuingConfiguration)
		setIfZero(&queuing.HandSize, 8)
		setIfZero(&queuing.Queues, 64)
		setIfZero(&queuing.QueueLengthLimit, 50)
	},
	of[flowcontrolv1.LimitedPriorityLevelConfiguration](): func(p any) {
		setIfNil(&p.(*flowcontrolv1.LimitedPriorityLevelConfiguration).NominalConcurrencyShares, 30)
	},
}

func of[T any]() reflect.Type { return reflect.TypeFor[T]() }

func setIfZero[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func setIfNil[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

func fillBytes(data map[string][]byte) {
	for key, value := range data {
		if value == nil {
			data[key] = []byte{}
		}
	}
}

func fillResources(into *corev1.ResourceList, from corev1.ResourceList) {
	if *into == nil {
		*into = corev1.ResourceList{}
	}
	for name, quantity := range from {
		if _, given := (*into)[name]; !given {
			(*into)[name] = quantity.DeepCopy()
		}
	}
}

// fillDefaults goes through an object and what it points to. A server keeps
// its own kinds as protobuf, where an empty list is the same as none; only
// definitions are kept as JSON.
func fillDefaults(v reflect.Value, protobuf bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			fillDefaults(v.Elem(), protobuf)
		}
	case reflect.Slice:
		if v.Len() == 0 && protobuf && v.CanSet() {
			v.SetZero()
		}
		for i := range v.Len() {
			fillDefaults(v.Index(i), protobuf)
		}
	case reflect.Struct:
		if fill := defaults[v.Type()]; fill != nil && v.CanAddr() {
			fill(v.Addr().Interface())
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fillDefaults(v.Field(i), protobuf)
			}
		}
	}
}

// loses reports whether after lacks something of before that cannot have been
// left out for saying nothing: a value, or a field that the Go type does not
// know, whose zero may say something.
func loses(before, after any, known map[string]bool) bool {
	switch b := before.(type) {
	case map[string]any:
		a, ok := after.(map[string]any)
		if !ok {
			return true
		}
		for key, value := range b {
			kept, ok := a[key]
			if !ok && (!known[key] || !isZero(value)) || ok && loses(value, kept, known) {
				return true
			}
		}
	case []any:
		a, ok := after.([]any)
		if !ok || len(a) != len(b) {
			return !isZero(before) || after != nil
		}
		for i := range b {
			if loses(b[i], a[i], known) {
				return true
			}
		}
	}
	return false
}

var knownFields sync.Map // of reflect.Type to map[string]bool

// fieldNames returns the JSON names of all fields of a type and of the types
// that it is made of. A name that one of them knows may be unknown to another,
// but no version of Kubernetes has brought an old name to a new place with
// another meaning of zero.
func fieldNames(t reflect.Type) map[string]bool {
	if names, ok := knownFields.Load(t); ok {
		return names.(map[string]bool)
	}
	names := map[string]bool{}
	collectNames(t, names, map[reflect.Type]bool{})
	knownFields.Store(t, names)
	return names
}

func collectNames(t reflect.Type, names map[string]bool, seen map[reflect.Type]bool) {
	if seen[t] {
		return
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		collectNames(t.Elem(), names, seen)
	case reflect.Struct:
		for i := range t.NumField() {
			field := t.Field(i)
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" && name != "-" {
				names[name] = true
			}
			collectNames(field.Type, names, seen)
		}
	}
}
