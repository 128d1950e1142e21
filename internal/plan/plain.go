package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	contentvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// plainFaults judges a ConfigMap, Secret or ServiceAccount that is to be
// created as the server would, whose rules for these three are few and as old
// as the kinds. They are half of most repositories, so this saves half of the
// requests of a [standIn]; and a Secret is shown to nobody who watches over
// another namespace. The second result is false for any other kind.
func plainFaults(o *unstructured.Unstructured) (field.ErrorList, bool) {
	switch o.GroupVersionKind() {
	case schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}:
		m := &corev1.ConfigMap{}
		if !read(o, m) {
			return nil, false
		}
		faults := validation.ValidateObjectMeta(&m.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
		size := 0
		for _, key := range slices.Sorted(maps.Keys(m.Data)) {
			faults = append(faults, keyFaults(field.NewPath("data").Key(key), key)...)
			if _, twice := m.BinaryData[key]; twice {
				faults = append(faults, field.Invalid(field.NewPath("data").Key(key), key, "duplicate of key present in binaryData"))
			}
			size += len(m.Data[key])
		}
		for _, key := range slices.Sorted(maps.Keys(m.BinaryData)) {
			faults = append(faults, keyFaults(field.NewPath("binaryData").Key(key), key)...)
			size += len(m.BinaryData[key])
		}
		return append(faults, sizeFaults(field.NewPath(""), size)...), true
	case schema.GroupVersionKind{Version: "v1", Kind: "Secret"}:
		s := &corev1.Secret{}
		if !read(o, s) {
			return nil, true // as it is, it is shown to nobody
		}
		faults := validation.ValidateObjectMeta(&s.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
		size := 0
		for _, key := range slices.Sorted(maps.Keys(s.Data)) {
			faults = append(faults, keyFaults(field.NewPath("data").Key(key), key)...)
			size += len(s.Data[key])
		}
		return append(append(faults, sizeFaults(field.NewPath("data"), size)...), typeFaults(s)...), true
	case schema.GroupVersionKind{Version: "v1", Kind: "ServiceAccount"}:
		a := &corev1.ServiceAccount{}
		if !read(o, a) {
			return nil, false
		}
		return validation.ValidateObjectMeta(&a.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata")), true
	}
	return nil, false
}

func read(o *unstructured.Unstructured, into any) bool {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into) == nil
}

func keyFaults(at *field.Path, key string) (faults field.ErrorList) {
	for _, msg := range contentvalidation.IsConfigMapKey(key) {
		faults = append(faults, field.Invalid(at, key, msg))
	}
	return faults
}

func sizeFaults(at *field.Path, size int) field.ErrorList {
	if size <= corev1.MaxSecretSize {
		return nil
	}
	return field.ErrorList{field.TooLong(at, "", corev1.MaxSecretSize)}
}

// typeFaults are the keys that a Secret of a well-known type lacks.
func typeFaults(s *corev1.Secret) field.ErrorList {
	at := field.NewPath("data")
	required := func(keys ...string) (faults field.ErrorList) {
		for _, key := range keys {
			if _, given := s.Data[key]; !given {
				faults = append(faults, field.Required(at.Key(key), ""))
			}
		}
		return faults
	}
	document := func(key string) field.ErrorList {
		if faults := required(key); len(faults) > 0 {
			return faults
		}
		if err := json.Unmarshal(s.Data[key], &map[string]any{}); err != nil {
			return field.ErrorList{field.Invalid(at.Key(key), "<secret contents redacted>", err.Error())}
		}
		return nil
	}
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			return field.ErrorList{field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), "")}
		}
	case corev1.SecretTypeDockercfg:
		return document(corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		return document(corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth:
		if len(required(corev1.BasicAuthUsernameKey)) > 0 && len(required(corev1.BasicAuthPasswordKey)) > 0 {
			return field.ErrorList{field.Required(at, fmt.Sprintf("one of %s and %s", corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey))}
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			return field.ErrorList{field.Required(at.Key(corev1.SSHAuthPrivateKey), "")}
		}
	case corev1.SecretTypeTLS:
		return required(corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	return nil
}
