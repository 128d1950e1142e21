package upstream

import (
	"os"
	"regexp"
	"testing"
)

// decisive are the modules that decide what a build gives.
var decisive = []string{
	"github.com/drone/envsubst/v2",
	"github.com/fluxcd/kustomize-controller/api",
	"github.com/fluxcd/pkg/ssa",
	"k8s.io/apimachinery",
	"sigs.k8s.io/kustomize/api",
	"sigs.k8s.io/kustomize/kyaml",
	"sigs.k8s.io/yaml",
}

// fluxKustomize is the kustomize that Flux pins with a replace directive, which
// does not reach the modules that require Flux's. Its other versions do not
// make the same objects: 0.21.2 leaves the labels of a StatefulSet's
// volumeClaimTemplates alone, and those cannot be changed in a cluster.
const fluxKustomize = "v0.21.1"

// TestSameLibraries: what is compared here is built from what the product is
// built from, and kustomize is Flux's.
func TestSameLibraries(t *testing.T) {
	product, here := read(t, "../../go.mod"), read(t, "go.mod")
	for _, module := range decisive {
		if product[module] == "" || product[module] != here[module] {
			t.Errorf("%s: the product has %q, these tests have %q", module, product[module], here[module])
		}
	}
	for _, module := range []string{"sigs.k8s.io/kustomize/api", "sigs.k8s.io/kustomize/kyaml"} {
		if product[module] != fluxKustomize {
			t.Errorf("%s is %s, Flux has %s", module, product[module], fluxKustomize)
		}
	}
}

var requirement = regexp.MustCompile(`(?m)^\s*(?:require )?([a-z][^\s]*/[^\s]*) (v[^\s]+)`)

// read returns the versions that a go.mod asks for.
func read(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, m := range requirement.FindAllStringSubmatch(string(text), -1) {
		versions[m[1]] = m[2]
	}
	return versions
}
