package reporttest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"time"
)

// Field is a field of a JSON object as the documentation tells it.
type Field struct {
	// Name is the field's name in JSON.
	Name string
	// Go is the field's type.
	Go reflect.Type
	// Optional is set if the field can be absent.
	Optional bool
	// Doc is the comment on the field, in one line. A field without one
	// has that of the field before it.
	Doc string
}

// Describe returns the JSON fields of a struct in their order, those of
// embedded structs among them. comments are those of ParseComments.
func Describe(t reflect.Type, comments map[string]string) []Field {
	var fields []Field
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		tag := f.Tag.Get("json")
		if f.Anonymous && tag == "" {
			fields = append(fields, Describe(f.Type, comments)...)
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if name == "" || name == "-" {
			panic(fmt.Sprintf("%s.%s has no name in JSON", t, f.Name))
		}
		fields = append(fields, Field{Name: name, Go: f.Type, Optional: strings.HasPrefix(options, "omit"), Doc: comments[t.Name()+"."+f.Name]})
	}
	return fields
}

// ParseComments reads the comments on the fields of every struct in a Go
// file, by "Type.Field".
func ParseComments(path string) (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	comments := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		structure, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		comments[spec.Name.Name] = ""
		last := ""
		for _, f := range structure.Fields.List {
			if f.Doc != nil {
				last = strings.Join(strings.Fields(f.Doc.Text()), " ")
			}
			for _, name := range f.Names {
				comments[spec.Name.Name+"."+name.Name] = last
			}
		}
		return true
	})
	return comments, nil
}

// Filled returns a value of a type in which every field is set: strings are
// words, lists have one element, pointers point. Types with a closed
// vocabulary get the value given for them.
func Filled(t reflect.Type, vocabulary map[reflect.Type]any) reflect.Value {
	v := reflect.New(t).Elem()
	if known, ok := vocabulary[t]; ok {
		v.Set(reflect.ValueOf(known))
		return v
	}
	if t == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(Start))
		return v
	}
	switch t.Kind() {
	case reflect.String:
		v.SetString("word")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Struct:
		for i := range t.NumField() {
			if t.Field(i).IsExported() {
				v.Field(i).Set(Filled(t.Field(i).Type, vocabulary))
			}
		}
	case reflect.Slice:
		v.Set(reflect.Append(v, Filled(t.Elem(), vocabulary)))
	case reflect.Pointer:
		v.Set(Filled(t.Elem(), vocabulary).Addr())
	default:
		panic(fmt.Sprintf("cannot fill a %s", t))
	}
	return v
}
