package export_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sluicerun/sluice/internal/export"
	"github.com/sluicerun/sluice/internal/flux"
)

func object(t *testing.T, text string) flux.Object {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return flux.Object{Unstructured: o}
}

func write(t *testing.T, o export.Options, objects ...flux.Object) string {
	t.Helper()
	var text strings.Builder
	if err := export.Write(&text, objects, o); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// S12.7: YAML documents, each followed by a line "---", in the order given.
func TestDocuments(t *testing.T) {
	b := object(t, "{apiVersion: v1, kind: Namespace, metadata: {name: b}}")
	a := object(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: b}, data: {x: '3'}}")
	got := write(t, export.Options{}, b, a)
	want := "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: b\n---\n" +
		"apiVersion: v1\ndata:\n  x: \"3\"\nkind: ConfigMap\nmetadata:\n  name: a\n  namespace: b\n---\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := write(t, export.Options{}); got != "" {
		t.Errorf("without objects: %q", got)
	}
}

// S12.12: what SOPS encrypted is masked in any case, and its "sops" is gone.
// Other Secrets are masked unless they are asked for, unlike in Flux.
func TestSecrets(t *testing.T) {
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, tc := range []struct {
		name, text string
		hidden     string // what must not be shown unless asked for
		masks      map[string]string
		always     bool
	}{
		{"plain", "{type: Opaque, data: {k: aHVudGVyMg==}, stringData: {s: hunter3}}", "hunter3", map[string]string{"data.k": encode("***"), "stringData.s": "***"}, false},
		{"registry", "{type: kubernetes.io/dockerconfigjson, data: {.dockerconfigjson: aHVudGVyMg==}}", "aHVudGVyMg==",
			map[string]string{"data..dockerconfigjson": encode(`{"mask":"***"}`)}, false},
		{"encrypted", "{data: {k: 'ENC[x]'}, stringData: {s: 'ENC[y]'}, sops: {mac: m}}", "ENC[",
			map[string]string{"data.k": encode("**SOPS**"), "stringData.s": "**SOPS**"}, true},
		{"encrypted registry", "{type: kubernetes.io/dockercfg, data: {.dockercfg: 'ENC[x]'}, sops: {mac: m}}", "ENC[",
			map[string]string{"data..dockercfg": encode(`{"mask":"**SOPS**"}`)}, true},
		{"data that is none", "{data: hunter2}", "hunter2", nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := object(t, tc.text)
			o.SetAPIVersion("v1")
			o.SetKind("Secret")
			before := o.DeepCopy()
			for _, show := range []bool{false, true} {
				text := write(t, export.Options{ShowSecrets: show}, o)
				shown := show && !tc.always
				if strings.Contains(text, tc.hidden) != shown {
					t.Errorf("show %v: the value is there or not, and should be the other way round:\n%s", show, text)
				}
				if shown {
					continue
				}
				back := object(t, strings.TrimSuffix(text, "---\n"))
				if _, ok := back.Object["sops"]; ok {
					t.Error("sops is still there")
				}
				for path, want := range tc.masks {
					field, key, _ := strings.Cut(path, ".")
					values, _ := back.Object[field].(map[string]any)
					if values[key] != want {
						t.Errorf("%s is %v, want %q", path, values[key], want)
					}
				}
			}
			if !unstructuredEqual(before, o) {
				t.Error("the object was changed")
			}
		})
	}
	// A Secret of another API is not Kubernetes' own.
	other := object(t, "{apiVersion: example.com/v1, kind: Secret, metadata: {name: a}, data: {k: v}}")
	if text := write(t, export.Options{}, other); !strings.Contains(text, "k: v") {
		t.Errorf("masked:\n%s", text)
	}
}

func unstructuredEqual(a, b flux.Object) bool {
	x, errX := yaml.Marshal(a.Object)
	y, errY := yaml.Marshal(b.Object)
	return errX == nil && errY == nil && string(x) == string(y)
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriteError(t *testing.T) {
	err := export.Write(broken{}, []flux.Object{object(t, "{apiVersion: v1, kind: Namespace, metadata: {name: b}}")}, export.Options{})
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("error %v", err)
	}
}
