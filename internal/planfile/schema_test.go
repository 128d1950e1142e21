package planfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sluicerun/sluice/internal/golden"
	"github.com/sluicerun/sluice/internal/report/reporttest"
)

const schemaPath = "../../docs/plan.schema.json"

// schema makes the schema of a saved plan from the types and their comments. It
// allows no field that it does not know, as Decode does not.
func schema(t *testing.T) []byte {
	t.Helper()
	comments, err := reporttest.ParseComments("planfile.go")
	if err != nil {
		t.Fatal(err)
	}
	var describe func(reflect.Type) map[string]any
	structure := func(goType reflect.Type) map[string]any {
		properties, required := map[string]any{}, []string{}
		for _, f := range reporttest.Describe(goType, comments) {
			property := describe(f.Go)
			if f.Doc != "" { // a comment may be about several fields
				property["description"] = f.Doc
			}
			switch f.Name {
			case "format":
				property["const"] = Format
			case "version":
				property["const"] = Version
			}
			properties[f.Name] = property
			if !f.Optional {
				required = append(required, f.Name)
			}
		}
		return map[string]any{"type": "object", "required": required, "properties": properties, "additionalProperties": false}
	}
	describe = func(goType reflect.Type) map[string]any {
		switch {
		case goType == reflect.TypeFor[time.Time]():
			return map[string]any{"type": "string", "format": "date-time"}
		case goType == reflect.TypeFor[State]():
			return map[string]any{"type": "string", "enum": []State{Apply, Later, Suspended, Excluded}}
		}
		switch goType.Kind() {
		case reflect.String:
			return map[string]any{"type": "string"}
		case reflect.Int:
			return map[string]any{"type": "integer", "minimum": 0}
		case reflect.Slice:
			return map[string]any{"type": "array", "items": describe(goType.Elem())}
		case reflect.Map:
			return map[string]any{"type": "object", "additionalProperties": describe(goType.Elem())}
		case reflect.Struct:
			return structure(goType)
		}
		t.Fatalf("no schema for %s", goType)
		return nil
	}
	whole := structure(reflect.TypeFor[File]())
	whole["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	whole["title"] = fmt.Sprintf("saved plan of sluice, version %d", Version)
	whole["description"] = "What `sluice plan --out FILE` writes and `sluice run --plan FILE` reads."
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(whole); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The published schema is that of the types, and what is written is valid by it.
func TestSchema(t *testing.T) {
	text := schema(t)
	golden.File(t, schemaPath, text)
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("plan.schema.json", document); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("plan.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		text  []byte
		valid bool
	}{
		{plan, true},
		{bytes.Replace(plan, []byte(`"later"`), []byte(`"soon"`), 1), false},
		{bytes.Replace(plan, []byte(`"commit"`), []byte(`"comit"`), 1), false},
	} {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(test.text))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiled.Validate(value); (err == nil) != test.valid {
			t.Errorf("%v\n%s", err, test.text)
		}
	}
}
