// Package export writes built objects as text for other programs and for
// people: YAML documents, in which the values of Secrets are masked unless they
// are asked for. Nothing in it changes the objects it is given, and all of it is
// safe for concurrent use.
package export

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
)

// What stands in the place of a value. Both are as Flux's commands have them
// (S12.12, S12.19).
const (
	// Mask is for Secrets whose values are known.
	Mask = "***"
	// EncryptedMask is for those that SOPS has encrypted.
	EncryptedMask = "**SOPS**"
)

// Options choose what is shown.
type Options struct {
	// ShowSecrets writes the values of Secrets as they are. Those that SOPS
	// has encrypted are masked in any case: they are of no use here.
	ShowSecrets bool
}

// Write writes each object as a YAML document that is followed by a line "---",
// as Flux's build command does (S12.7). The error is the writer's, or names an
// object that cannot be written as YAML.
func Write(w io.Writer, objects []flux.Object, o Options) error {
	var text bytes.Buffer
	for _, object := range objects {
		document, err := yaml.Marshal(masked(object.Unstructured, o).Object)
		if err != nil {
			return fmt.Errorf("%s: cannot be written as YAML: %w", object.Ref(), err)
		}
		text.Write(document)
		text.WriteString("---\n")
	}
	_, err := w.Write(text.Bytes())
	return err
}

// masked returns the object with its secret values masked: itself if there are
// none.
func masked(object *unstructured.Unstructured, o Options) *unstructured.Unstructured {
	if object.GetAPIVersion() != "v1" || object.GetKind() != "Secret" {
		return object
	}
	_, encrypted := object.Object["sops"]
	mask := Mask
	switch {
	case encrypted:
		mask = EncryptedMask
	case o.ShowSecrets:
		return object
	}
	object = object.DeepCopy()
	delete(object.Object, "sops")
	kind, _, _ := unstructured.NestedString(object.Object, "type")
	for _, field := range []string{"data", "stringData"} {
		values, ok := object.Object[field].(map[string]any)
		if !ok {
			delete(object.Object, field) // no Secret could have it; it may hold anything
			continue
		}
		for key := range values {
			value := mask
			// The server checks that these are JSON.
			if kind == "kubernetes.io/dockerconfigjson" || kind == "kubernetes.io/dockercfg" {
				value = fmt.Sprintf(`{"mask":%q}`, mask)
			}
			if field == "data" {
				value = base64.StdEncoding.EncodeToString([]byte(value))
			}
			values[key] = value
		}
	}
	return object
}
