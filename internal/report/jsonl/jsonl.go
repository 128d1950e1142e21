// Package jsonl writes the events of a run as JSON, one per line, for
// programs that follow a run while it goes on.
//
// Each line is an object whose first fields are "type", the event's name, and
// "time", RFC 3339 in UTC. The other fields are the event's own, under the
// names of its JSON tags; durations are numbers of seconds with at most three
// decimals, lists are never null. Fields may be added; names and meanings stay.
package jsonl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/report"
)

// Renderer is the report.Renderer of JSON lines. The zero value is ready.
type Renderer struct {
	err error
}

// New returns a Renderer for one run.
func New() *Renderer { return &Renderer{} }

// Event returns the event's line.
func (r *Renderer) Event(e event.Event) []byte {
	line, err := Marshal(e)
	if err != nil {
		if r.err == nil {
			r.err = err
		}
		return nil
	}
	return append(line, '\n')
}

// Tick returns nothing: a program needs no heartbeat.
func (r *Renderer) Tick(time.Time) []byte { return nil }

// Err returns the first event that could not be written.
func (r *Renderer) Err() error { return r.err }

// Marshal returns an event as one line of JSON without its line end.
func Marshal(e event.Event) ([]byte, error) {
	name, err := json.Marshal(e.Type())
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(`{"type":`)
	b.Write(name)
	if err := fields(&b, reflect.ValueOf(e)); err != nil {
		return nil, fmt.Errorf("write event %q as JSON: %w", e.Type(), err)
	}
	b.WriteByte('}')
	return quiet(b.Bytes()), nil
}

// quiet writes a bracket after "##" by its number, which is the same JSON: the lines
// are a job's log, in which GitHub's runner takes "##[" for a command wherever it
// stands.
func quiet(line []byte) []byte {
	return bytes.ReplaceAll(line, []byte("##["), []byte(`##\u005b`))
}

var (
	timeType     = reflect.TypeFor[time.Time]()
	durationType = reflect.TypeFor[time.Duration]()
)

// fields writes the fields of a struct in their order, each with a comma
// before it; those of embedded structs stand among them. encoding/json would
// do all of this but write durations as nanoseconds and empty lists as null.
func fields(b *bytes.Buffer, v reflect.Value) error {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		tag := field.Tag.Get("json")
		if field.Anonymous && tag == "" {
			if err := fields(b, v.Field(i)); err != nil {
				return err
			}
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if name == "-" || !field.IsExported() || strings.Contains(options, "omitempty") && empty(v.Field(i)) {
			continue
		}
		if name == "" {
			name = field.Name
		}
		fmt.Fprintf(b, ",%q:", name)
		if err := value(b, v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

// empty is omitempty's rule.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

func value(b *bytes.Buffer, v reflect.Value) error {
	switch {
	case v.Type() == durationType:
		return encode(b, report.Seconds(v.Int()))
	case v.Type() == timeType:
		return encode(b, v.Interface().(time.Time).UTC())
	case v.Kind() == reflect.Struct:
		var inner bytes.Buffer
		if err := fields(&inner, v); err != nil {
			return err
		}
		b.WriteByte('{')
		b.Write(bytes.TrimPrefix(inner.Bytes(), []byte(",")))
		b.WriteByte('}')
		return nil
	case v.Kind() == reflect.Slice:
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := value(b, v.Index(i)); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	}
	return encode(b, v.Interface())
}

// encode writes a plain value without HTML escaping.
func encode(b *bytes.Buffer, v any) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the encoder's line end
	return nil
}
