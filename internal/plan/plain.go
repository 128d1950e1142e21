package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	contentvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// plainFault judges a ConfigMap, Secret or ServiceAccount that is to be created
// as the server would, whose rules for these three are few and as old as the
// kinds. They are half of most repositories, so this saves half of the requests
// of a [standIn]; and a Secret is shown to nobody who watches over another
// namespace. The second result is false for any other kind.
func plainFault(o *unstructured.Unstructured) (error, bool) {
	var into metav1.Object
	var judge func() field.ErrorList
	switch o.GroupVersionKind() {
	case schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}:
		m := &corev1.ConfigMap{}
		into, judge = m, func() field.ErrorList { return configMapFaults(m) }
	case schema.GroupVersionKind{Version: "v1", Kind: "Secret"}:
		s := &corev1.Secret{}
		into, judge = s, func() field.ErrorList { return secretFaults(s) }
	case schema.GroupVersionKind{Version: "v1", Kind: "ServiceAccount"}:
		into, judge = &corev1.ServiceAccount{}, func() field.ErrorList { return nil }
	default:
		return nil, false
	}
	switch err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); {
	case err != nil && o.GetKind() == "Secret":
		return fmt.Errorf("it cannot be read as a Secret: %w", err), true
	case err != nil:
		return nil, false // the server says better where
	}
	faults := validation.ValidateObjectMetaAccessor(into, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	if faults = append(faults, judge()...); len(faults) == 0 {
		return nil, true
	}
	return apierrors.NewInvalid(o.GroupVersionKind().GroupKind(), o.GetName(), faults), true
}

func configMapFaults(m *corev1.ConfigMap) (faults field.ErrorList) {
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
	return append(faults, sizeFaults(field.NewPath(""), size)...)
}

func secretFaults(s *corev1.Secret) (faults field.ErrorList) {
	size := 0
	for _, key := range slices.Sorted(maps.Keys(s.Data)) {
		faults = append(faults, keyFaults(field.NewPath("data").Key(key), key)...)
		size += len(s.Data[key])
	}
	return append(append(faults, sizeFaults(field.NewPath("data"), size)...), typeFaults(s)...)
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
