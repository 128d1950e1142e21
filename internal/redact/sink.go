package redact

import (
	"reflect"
	"time"

	"github.com/sluicerun/sluice/internal/event"
)

// Sink returns a sink that hands each event to next with every learned value
// masked, in every string of the event however deep. The event it is given
// stays as it is; next gets a copy. Strings of the event package's own types
// (Action, Result, Level, Verdict) are left alone: they are a closed
// vocabulary that the code sets, and reports decide by them.
func (s *Set) Sink(next event.Sink) event.Sink {
	return event.SinkFunc(func(e event.Event) { next.Emit(s.maskEvent(e)) })
}

// maskEvent returns the event with its strings masked.
func (s *Set) maskEvent(e event.Event) event.Event {
	return s.maskValue(reflect.ValueOf(e)).Interface().(event.Event)
}

var (
	stringType = reflect.TypeFor[string]()
	timeType   = reflect.TypeFor[time.Time]()
)

// maskValue returns a masked copy. It works by reflection, so that an event
// or a field that is added later is masked without anybody thinking of it.
// Fields that are not exported keep their value; events have none.
func (s *Set) maskValue(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.String:
		if v.Type() != stringType {
			return v
		}
		return reflect.ValueOf(s.Mask(v.String()))
	case reflect.Struct:
		if v.Type() == timeType {
			return v
		}
		masked := reflect.New(v.Type()).Elem()
		masked.Set(v)
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				masked.Field(i).Set(s.maskValue(v.Field(i)))
			}
		}
		return masked
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		masked := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			masked.Index(i).Set(s.maskValue(v.Index(i)))
		}
		return masked
	case reflect.Array:
		masked := reflect.New(v.Type()).Elem()
		for i := range v.Len() {
			masked.Index(i).Set(s.maskValue(v.Index(i)))
		}
		return masked
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		masked := reflect.MakeMapWithSize(v.Type(), v.Len())
		for _, key := range v.MapKeys() {
			masked.SetMapIndex(s.maskValue(key), s.maskValue(v.MapIndex(key)))
		}
		return masked
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		masked := reflect.New(v.Type().Elem())
		masked.Elem().Set(s.maskValue(v.Elem()))
		return masked
	case reflect.Interface:
		if v.IsNil() {
			return v
		}
		masked := reflect.New(v.Type()).Elem()
		masked.Set(s.maskValue(v.Elem()))
		return masked
	}
	return v
}
