package substitute_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/substitute"
)

// TestS1_21FluxDefinitions: Flux's own definitions, as its releases have them,
// say that they are not filled in. So what looks like a variable in them stays.
func TestS1_21FluxDefinitions(t *testing.T) {
	file := filepath.Join("..", "..", "testdata", "crds", "kustomize.toolkit.fluxcd.io_kustomizations.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	with := strings.Replace(string(text), "singular: kustomization", "singular: ${var}", 1)
	if with == string(text) {
		t.Fatal("the definition has another form")
	}
	k := kustomization(map[string]string{"var": "filled in"})
	in := object(t, with)
	if substitute.Wanted(k, []flux.Object{in}) {
		t.Error("variables are wanted for the definition")
	}
	out, _, err := apply(t, k, nil, strict, in)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(out[0].Object, object(t, with).Object) {
		t.Error("the definition has changed")
	}
	in.SetAnnotations(nil)
	if out, _, err = apply(t, k, nil, strict, in); err != nil || reflect.DeepEqual(out[0].Object, in.Object) {
		t.Errorf("without the annotation it is not filled in: %v", err)
	}
}
