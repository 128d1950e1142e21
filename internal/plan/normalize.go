package plan

import (
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"

	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluicerun/sluice/internal/flux"
)

// Dropped tells of fields in a manifest that do not reach the cluster.
type Dropped struct {
	Object flux.Object
	// Paths are the fields, as "spec.replicaz" and
	// "spec.template.spec.containers[0].imagee", sorted.
	Paths []string
}

// Normalize returns the objects in the form in which Flux applies them (S4.2
// to S4.7). That form silently lacks the fields of built-in kinds that
// Kubernetes does not know; they are told in the second result. A Secret that
// is still encrypted is an error (S11.20); all of them are reported. An object
// with open variables stays as it is if it cannot be brought into that form: a
// number may only be missing its value.
func Normalize(objects []flux.Object) ([]flux.Object, []Dropped, error) {
	out := make([]flux.Object, len(objects))
	var dropped []Dropped
	var errs []error
	for i, o := range objects {
		if encrypted(o.Unstructured) {
			errs = append(errs, &EncryptedError{Ref: o.Ref(), File: o.File})
			continue
		}
		out[i] = o.DeepCopy()
		if err := normalize.UnstructuredList([]*unstructured.Unstructured{out[i].Unstructured}); err != nil {
			if len(o.Open) > 0 {
				out[i] = o.DeepCopy()
				continue
			}
			errs = append(errs, fmt.Errorf("%s: %w", o.File, err))
			continue
		}
		utils.RemoveCABundleFromCRD(out[i].Unstructured)
		paths := lost("", o.Object, out[i].Object, nil)
		if len(paths) > 0 {
			sort.Strings(paths)
			dropped = append(dropped, Dropped{Object: o, Paths: paths})
		}
	}
	if len(errs) > 0 {
		return nil, dropped, errors.Join(errs...)
	}
	return out, dropped, nil
}

// EncryptedError is a Secret that SOPS has encrypted and nothing decrypted.
type EncryptedError struct {
	Ref  flux.Ref
	File string
}

// Error is Flux's text, after the file (S11.20).
func (e *EncryptedError) Error() string {
	text := fmt.Sprintf("%s is SOPS encrypted, configuring decryption is required for this secret to be reconciled", e.Ref)
	if e.File != "" {
		return e.File + ": " + text
	}
	return text
}

// Hint is the remedy.
func (e *EncryptedError) Hint() string {
	return "sluice does not decrypt yet: create the Secret by other means, or mark the Secret with the annotation " + decryptMarker + ": disabled to apply it as it is"
}

const decryptMarker = flux.Group + "/decrypt"

func encrypted(o *unstructured.Unstructured) bool {
	if !utils.IsSecret(o) || strings.EqualFold(o.GetAnnotations()[decryptMarker], "disabled") {
		return false
	}
	_, found := o.Object["sops"]
	return found
}

// lost collects the fields that before has and after has not. What says
// nothing (null, false, 0, empty) is not missed, and what Flux removes on
// purpose (S4.5, S4.6) is no loss.
func lost(path string, before, after any, paths []string) []string {
	switch b := before.(type) {
	case map[string]any:
		a, ok := after.(map[string]any)
		if !ok {
			if meaningful(before) && after == nil {
				paths = append(paths, path)
			}
			return paths
		}
		for key, value := range b {
			sub := key
			if path != "" {
				sub = path + "." + key
			}
			if sub == "status" || sub == "stringData" || sub == "metadata.creationTimestamp" {
				continue
			}
			if _, kept := a[key]; kept {
				paths = lost(sub, value, a[key], paths)
			} else if meaningful(value) {
				paths = append(paths, sub)
			}
		}
	case []any:
		a, ok := after.([]any)
		if !ok || len(a) != len(b) {
			if meaningful(before) && after == nil {
				paths = append(paths, path)
			}
			return paths
		}
		for i := range b {
			paths = lost(fmt.Sprintf("%s[%d]", path, i), b[i], a[i], paths)
		}
	}
	return paths
}

func meaningful(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case map[string]any:
		for _, value := range v {
			if meaningful(value) {
				return true
			}
		}
		return false
	case []any:
		for _, value := range v {
			if meaningful(value) {
				return true
			}
		}
		return false
	}
	return !reflect.ValueOf(v).IsZero()
}
