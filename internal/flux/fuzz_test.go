package flux

import (
	"path"
	"strconv"
	"strings"
	"testing"
)

// FuzzParse: what is read from records, flags and annotations comes back as it was written, or is an error that quotes it.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"flux-system/apps", "apps", "/", "a/", "/b", "a/b/c", "a//b", "Secret/apps/east", "Secret/apps/east/kube.config", "ConfigMap/a/b",
		"ConfigMap//b", "Secret/a/b/c/d", "Pod/a/b", "../../etc/passwd", "./a/../b/", "a\x00/b\n", "ä/\xff", "Secret/a/b/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := ParseID(text); err == nil {
			if id.String() != text || id.Namespace == "" || id.Name == "" || strings.Contains(id.Namespace+id.Name, "/") {
				t.Errorf("%q is the id %+v", text, id)
			}
		} else if !id.IsZero() || !quotes(err, text) {
			t.Errorf("%q: %+v, %v", text, id, err)
		}
		var ref ClusterRef
		if err := ref.UnmarshalText([]byte(text)); err == nil {
			back, err := ref.MarshalText()
			if err != nil || string(back) != text {
				t.Errorf("%q names %+v, which is %q (%v)", text, ref, back, err)
			}
			if ref.IsOwn() != (text == "") {
				t.Errorf("%q names %+v", text, ref)
			}
		} else if ref != (ClusterRef{}) || !quotes(err, text) {
			t.Errorf("%q: %+v, %v", text, ref, err)
		}
		// A path never leads out of the repository, and is the same however often it is cleaned.
		clean := CleanPath(text)
		if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || CleanPath(clean) != clean {
			t.Errorf("%q becomes the path %q", text, clean)
		}
	})
}

func quotes(err error, text string) bool { return strings.Contains(err.Error(), strconv.Quote(text)) }
