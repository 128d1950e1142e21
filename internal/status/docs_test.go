package status_test

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/golden"
	"github.com/sluicerun/sluice/internal/report/reporttest"
	"github.com/sluicerun/sluice/internal/status"
)

const docsPath = "../../docs/status.md"

// headings name the structs for readers, in the order of the document.
var headings = []struct {
	goType  reflect.Type
	heading string
}{
	{reflect.TypeFor[status.Status](), "The status"},
	{reflect.TypeFor[status.Root](), "root"},
	{reflect.TypeFor[status.Run](), "run"},
	{reflect.TypeFor[status.Lock](), "lock"},
	{reflect.TypeFor[status.Kustomization](), "kustomization"},
	{reflect.TypeFor[status.Kind](), "kind"},
	{reflect.TypeFor[status.Health](), "health"},
	{reflect.TypeFor[status.Unready](), "object that is not ready"},
	{reflect.TypeFor[status.Drift](), "drifted object"},
	{reflect.TypeFor[status.Orphan](), "orphan"},
	{reflect.TypeFor[status.Unlisted](), "kind that could not be listed"},
	{reflect.TypeFor[status.Unreadable](), "record that cannot be read"},
	{reflect.TypeFor[status.Repair](), "repair"},
}

// docs/status.md holds the tables of all fields between markers; -update writes
// them anew.
func TestDocsHoldEveryField(t *testing.T) {
	text, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- begin status fields -->\n", "<!-- end status fields -->"
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatalf("%s has no markers", docsPath)
	}
	golden.File(t, docsPath, []byte(before+begin+"\n"+tables(t)+"\n"+end+after))
}

func tables(t *testing.T) string {
	t.Helper()
	comments, err := reporttest.ParseComments("status.go")
	if err != nil {
		t.Fatal(err)
	}
	names := map[reflect.Type]string{reflect.TypeFor[status.Status](): ""}
	for _, h := range headings {
		names[h.goType] = h.heading
	}
	var b strings.Builder
	for i, h := range headings {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "#### %s\n\n| Field | Value | Meaning |\n| --- | --- | --- |\n", h.heading)
		for _, f := range reporttest.Describe(h.goType, comments) {
			if f.Doc == "" {
				t.Errorf("field %s of %s has no comment", f.Name, h.goType)
			}
			value := valueOf(t, f.Go, names)
			if f.Optional {
				value += ", may be absent"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, value, f.Doc)
		}
	}
	return b.String()
}

// valueOf names a type for readers. A struct without a heading would not be
// documented.
func valueOf(t *testing.T, goType reflect.Type, names map[reflect.Type]string) string {
	t.Helper()
	if goType == reflect.TypeFor[time.Time]() {
		return "time"
	}
	switch goType.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int:
		return "integer"
	case reflect.Pointer:
		return valueOf(t, goType.Elem(), names)
	case reflect.Slice:
		return "list of " + valueOf(t, goType.Elem(), names)
	case reflect.Struct:
		if names[goType] != "" {
			return names[goType]
		}
	}
	t.Errorf("%s is not documented", goType)
	return ""
}
