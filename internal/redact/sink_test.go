package redact

import (
	"encoding/base64"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/event"
)

// every holds one value of each event type.
// TestEveryEventTypeIsMasked compares it with the package's source, so that
// a new event cannot be forgotten.
var every = []event.Event{
	event.RunStarted{}, event.SourceOpened{}, event.NodeFound{}, event.BuildsFinished{}, event.ClusterReached{}, event.Planned{}, event.Notice{},
	event.NodeStarted{}, event.ObjectApplied{}, event.NodeApplied{}, event.ObjectHealth{}, event.NodeRetrying{},
	event.NodeFinished{}, event.PruneStarted{}, event.ObjectPruned{}, event.PruneFinished{}, event.RunFinished{},
}

const secret = "s3cr3t-value-of-a-test"

func TestEveryEventTypeIsMasked(t *testing.T) {
	var have []string
	for _, e := range every {
		have = append(have, reflect.TypeOf(e).Name())
	}
	sort.Strings(have)
	if want := declaredEvents(t); !reflect.DeepEqual(have, want) {
		t.Fatalf("the test knows the events %v, package event declares %v", have, want)
	}

	s := New()
	s.Learn(secret)
	for _, zero := range every {
		t.Run(zero.Type(), func(t *testing.T) {
			for i, form := range []string{secret, "x" + secret + "y", base64.StdEncoding.EncodeToString([]byte("a" + secret))} {
				filled := reflect.New(reflect.TypeOf(zero)).Elem()
				strings := fill(filled, form)
				given := filled.Interface().(event.Event)
				before := fmt.Sprintf("%#v", given)

				var got event.Event
				s.Sink(event.SinkFunc(func(e event.Event) { got = e })).Emit(given)

				if after := fmt.Sprintf("%#v", given); after != before {
					t.Errorf("form %d: the event given was changed:\n%s\n%s", i, before, after)
				}
				if reflect.TypeOf(got) != reflect.TypeOf(given) {
					t.Fatalf("form %d: got a %T", i, got)
				}
				if masks := check(t, reflect.ValueOf(got), form); masks != strings {
					t.Errorf("form %d: %d strings are masked, want %d", i, masks, strings)
				}
				if !got.When().Equal(given.When()) {
					t.Errorf("form %d: the time changed", i)
				}
			}
		})
	}
}

// declaredEvents returns the names of the types of package event that have a
// method Type.
func declaredEvents(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("../event/*.go")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no source of package event: %v", err)
	}
	var names []string
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && f.Recv != nil && f.Name.Name == "Type" {
				names = append(names, f.Recv.List[0].Type.(*ast.Ident).Name)
			}
		}
	}
	sort.Strings(names)
	return names
}

// fill sets every plain string below v to text, gives every slice two
// elements, and returns how many strings that were.
func fill(v reflect.Value, text string) int {
	switch v.Kind() {
	case reflect.String:
		if v.Type() != stringType {
			v.SetString("word")
			return 0
		}
		v.SetString(text)
		return 1
	case reflect.Struct:
		if v.Type() == timeType {
			v.Set(reflect.ValueOf(time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)))
			return 0
		}
		n := 0
		for i := range v.NumField() {
			n += fill(v.Field(i), text)
		}
		return n
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		return fill(v.Index(0), text) + fill(v.Index(1), text)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		n := fill(key, text) + fill(value, text)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
		return n
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return fill(v.Elem(), text)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic(fmt.Sprintf("the test cannot fill a %s", v.Type()))
	}
	return 0
}

// check fails if a string below v holds the form, and returns how many hold
// the mask.
func check(t *testing.T, v reflect.Value, form string) int {
	t.Helper()
	masks := 0
	switch v.Kind() {
	case reflect.String:
		if strings.Contains(v.String(), form) {
			t.Errorf("%q got through", v.String())
		}
		if strings.Contains(v.String(), Mask) {
			masks = 1
		}
	case reflect.Struct:
		if v.Type() == timeType {
			return 0
		}
		for i := range v.NumField() {
			masks += check(t, v.Field(i), form)
		}
	case reflect.Slice:
		for i := range v.Len() {
			masks += check(t, v.Index(i), form)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			masks += check(t, key, form) + check(t, v.MapIndex(key), form)
		}
	case reflect.Pointer:
		masks = check(t, v.Elem(), form)
	}
	return masks
}

// Kinds that no event has today are masked all the same.
func TestMaskValueOfOtherKinds(t *testing.T) {
	type inner struct{ Text *string }
	text := secret
	given := struct {
		Any    any
		Map    map[string][]string
		Array  [2]string
		Nested inner
		Nil    *inner
		None   any
	}{Any: secret, Map: map[string][]string{secret: {secret}}, Array: [2]string{"a", secret}, Nested: inner{&text}}
	s := New()
	s.Learn(secret)

	got := s.maskValue(reflect.ValueOf(given)).Interface()
	shown := fmt.Sprintf("%v %s", got, *reflect.ValueOf(got).FieldByName("Nested").Field(0).Interface().(*string))
	if strings.Contains(shown, secret) {
		t.Errorf("the secret got through: %s", shown)
	}
	if n := strings.Count(shown, Mask); n != 5 {
		t.Errorf("%d masks, want 5: %s", n, shown)
	}
	if text != secret {
		t.Error("what a pointer shows to was changed")
	}
}
