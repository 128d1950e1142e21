package proof

import (
	"reflect"
)

// EqualJSON reports whether two values are the same JSON. Readers differ in
// the type that they give a whole number.
func EqualJSON(a, b any) bool { return equal(a, b, false) }

// equalSettled is the same for what a built-in kind's own Go type has written:
// whether it writes an unset field as null or leaves it out differs between
// versions of Kubernetes (creationTimestamp is the one that is met).
func equalSettled(a, b any) bool { return equal(a, b, true) }

func equal(a, b any, nullIsAbsent bool) bool {
	switch a := a.(type) {
	case map[string]any:
		m, ok := b.(map[string]any)
		return ok && equalMaps(a, m, nullIsAbsent)
	case []any:
		l, ok := b.([]any)
		if !ok || len(l) != len(a) {
			return false
		}
		for i := range a {
			if !equal(a[i], l[i], nullIsAbsent) {
				return false
			}
		}
		return true
	case int64:
		if f, ok := b.(float64); ok {
			return sameNumber(a, f)
		}
	case float64:
		if i, ok := b.(int64); ok {
			return sameNumber(i, a)
		}
	}
	return reflect.DeepEqual(a, b)
}

func equalMaps(a, b map[string]any, nullIsAbsent bool) bool {
	if !nullIsAbsent && len(a) != len(b) {
		return false
	}
	for k, v := range a {
		w, ok := b[k]
		if !ok && (!nullIsAbsent || v != nil) || ok && !equal(v, w, nullIsAbsent) {
			return false
		}
	}
	if nullIsAbsent {
		for k, w := range b {
			if _, ok := a[k]; !ok && w != nil {
				return false
			}
		}
	}
	return true
}

// sameNumber leaves out whole numbers that a float cannot hold exactly.
func sameNumber(i int64, f float64) bool {
	const exact = 1 << 53
	return i > -exact && i < exact && float64(i) == f
}

// mayBecome reports whether a server could make have of want by filling in
// defaults and leaving out what says nothing. It is a guess that saves work: a
// yes proves nothing, and a no only means that the server is asked.
func mayBecome(want, have any) bool {
	if isZero(want) || EqualJSON(want, have) {
		return true
	}
	switch want := want.(type) {
	case map[string]any:
		m, ok := have.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range want {
			if !mayBecome(v, m[k]) {
				return false
			}
		}
		return true
	case []any:
		l, ok := have.([]any)
		if !ok || len(l) != len(want) {
			return false
		}
		for i := range want {
			if !mayBecome(want[i], l[i]) {
				return false
			}
		}
		return true
	}
	return false
}

// isZero reports whether a value says nothing: null, false, 0, "", or nothing
// but such.
func isZero(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		for _, value := range v {
			if !isZero(value) {
				return false
			}
		}
		return true
	case []any:
		return len(v) == 0
	}
	return reflect.ValueOf(v).IsZero()
}
