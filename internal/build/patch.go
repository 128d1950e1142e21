package build

import (
	"fmt"
	"sort"
	"strings"

	kustypes "sigs.k8s.io/kustomize/api/types"
)

// failingPatch says which patch of the list makes the build fail: the first
// without which, and without those behind it, the build succeeds. Patches are
// worked on in their order, so that a search by halves finds it, in a few builds
// more. Kustomize itself tells neither which patch nor which object it was. name
// is empty if no patch is the cause; own says that it stands in the spec.
func (b *builder) failingPatch(manifest kustypes.Kustomization) (name string, own bool) {
	all := manifest.Patches
	fails := func(n int) bool {
		manifest.Patches = all[:n]
		if b.write(manifest, true) != nil {
			return true
		}
		_, err := b.run()
		return err != nil
	}
	if len(all) == 0 || fails(0) {
		return "", false
	}
	i := sort.Search(len(all), func(i int) bool { return fails(i + 1) })
	if i == len(all) {
		return "", false // it does not fail again: not the patches' fault
	}
	list, at := "patches", i
	if first := len(all) - len(b.k.Spec.Patches); i >= first {
		list, at, own = "spec.patches", i-first, true
	}
	name = fmt.Sprintf("%s[%d]", list, at)
	if all[i].Path != "" {
		name += fmt.Sprintf(" (%s)", all[i].Path)
	}
	return name + describe(all[i].Target), own
}

// describe says what a patch is for, as its manifest does.
func describe(target *kustypes.Selector) string {
	if target == nil {
		return ""
	}
	var parts []string
	for _, f := range []struct{ field, value string }{
		{"group", target.Group}, {"version", target.Version}, {"kind", target.Kind}, {"namespace", target.Namespace}, {"name", target.Name},
		{"labelSelector", target.LabelSelector}, {"annotationSelector", target.AnnotationSelector},
	} {
		if f.value != "" {
			parts = append(parts, f.field+" "+f.value)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " of " + strings.Join(parts, ", ")
}
