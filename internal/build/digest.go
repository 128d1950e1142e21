package build

import (
	"crypto/sha256"
	"fmt"
	"slices"

	fast "go.yaml.in/yaml/v2"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/flux"
)

// Digest returns the sum that Flux keeps of a build in its history (S0.14):
// "sha256:" and the hexadecimal SHA-256 of the objects as one YAML stream, in
// the order of the build, after substitution and before labels, common metadata
// and normalisation. It is another sum than Flux's only if the build holds an
// integer of more than 63 bits, which has lost digits by now.
func Digest(objects []flux.Object) (string, error) {
	sum := sha256.New()
	for i, o := range objects {
		// What kustomize writes with goes through JSON, which takes four times
		// as long and only matters for fractions.
		write := fast.Marshal
		if fractions(o.Object) {
			write = func(value any) ([]byte, error) { return yaml.Marshal(value) }
		}
		text, err := write(o.Object)
		if err != nil {
			return "", fmt.Errorf("%s: writing as YAML: %w", o.Ref(), err)
		}
		if i > 0 {
			sum.Write([]byte("---\n"))
		}
		sum.Write(text)
	}
	return fmt.Sprintf("sha256:%x", sum.Sum(nil)), nil
}

// fractions reports whether a number in the value is no integer by its type.
func fractions(value any) bool {
	switch value := value.(type) {
	case float64:
		return true
	case []any:
		return slices.ContainsFunc(value, fractions)
	case map[string]any:
		for _, v := range value {
			if fractions(v) {
				return true
			}
		}
	}
	return false
}
