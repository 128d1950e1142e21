package substitute

import (
	"strings"
	"testing"

	"github.com/fluxcd/pkg/envsubst"
)

// variables are those of the comparisons below.
var variables = map[string]string{
	"a": "value", "empty": "", "path": "one/two/one", "n": "2", "neg": "-2",
	"B": "bee", "_x": "under", "star": "*", "brace": "}", "dollar": "$", "expr": "${a}", "uni": "größe",
}

// fluxExpand is what Flux's own library makes of a text.
func fluxExpand(text string, strict bool) (out string, err error, panicked bool) {
	defer func() {
		if recover() != nil {
			panicked = true
		}
	}()
	out, err = envsubst.Eval(text, func(name string) (string, bool) {
		value, ok := variables[name]
		return value, ok || !strict
	})
	return out, err, false
}

// same compares expand with Flux's library.
func same(t *testing.T, text string, strict bool) {
	t.Helper()
	vars := map[string]Variable{}
	for name, value := range variables {
		vars[name] = variable(name, value, "inline")
	}
	want, wantErr, panicked := fluxExpand(text, strict)
	got, err := expand(text, vars, strict)
	unset := wantErr != nil && strings.HasPrefix(wantErr.Error(), "variable not set (strict mode): ")
	switch {
	case strict && err == nil && len(got.unknown) > 0:
		// Flux stops at the first problem in the text, which may be a
		// panic; here every unknown variable is found.
		if !unset && !panicked {
			t.Errorf("%q: unknown %q, Flux has %q, %v", text, got.unknown, want, wantErr)
		}
		if unset && !strings.HasSuffix(wantErr.Error(), "\""+got.unknown[0]+"\"") {
			t.Errorf("%q: unknown %q, Flux has %v", text, got.unknown, wantErr)
		}
	case unset:
		t.Errorf("%q: %q, %v; Flux has %v", text, got.text, err, wantErr)
	case panicked && err != nil && err.Error() == errSubstring.Error():
	case panicked, (wantErr != nil) != (err != nil):
		t.Errorf("%q: %q, %v; Flux has %q, %v (panicked: %t)", text, got.text, err, want, wantErr, panicked)
	case err == nil && got.text != want:
		t.Errorf("%q: %q; Flux has %q", text, got.text, want)
	case wantErr != nil && wantErr.Error() != err.Error():
		t.Errorf("%q: %v; Flux has %v", text, err, wantErr)
	}
}

// expressions are seeds for the comparison (S3.30 to S3.41).
var expressions = []string{
	"", "plain", "$a $(a) $ ${a} ${_x}", "$${a} $$${a} $$$$ $$", "${a:-d} ${no:-d} ${empty:-d}",
	"${a:=d} ${no:=d} ${empty:=d}", "${a=d} ${no=d} ${empty=d}", "${a:+d} ${no:+d} ${no:?d}", "${a-d}", "${a+d}", "${a?d}",
	"${no:=x${B}y}", "${no:=}", "${no:='q'}", "${no:=1$$2}", "${no:=$${B}}", `${no:=x\}y}`, "${no:={}}", "${a:-${missing}}",
	"${#a}", "${#uni}", "${#missing}", "${a:1}", "${a:1:2}", "${a:9}", "${a:1:99}", "${a:x}", "${a: -1}", "${a:n}", "${a:}", "${a::2}", "${a:1:-2}", "${a:${n}:${neg}}",
	"${a:0:-1}", "${a:-9:-1}", "${a:9:-1}", "${a:3:-3}", "${a:1:9223372036854775807}", "${empty:0:-1}", "${a:x:-1}", "${a:1:y}", "${a:${neg}:${neg}}",
	"${path/one/${a:1:-1}} ${path#${a:0:0}*/} ${#a} ${no:-x${a:0:-2}y} ${a^^} ${uni,,} ${path//o/} ${a:1:1} ${a:2} ${a=b} ${path%%${star}}",

	"${path/one/1}", "${path//one/1}", "${path/#one/1}", "${path/%one/1}", `${path/\//-}`, `${path/\\/-}`, "${a/x}", "${a/x/}", "${a/${B}/$$}",
	"${path#*/}", "${path##*/}", "${path%/*}", "${path%%/*}", "${path#[a-z]}", "${path#${star}/}", "${a#[}",
	"${a^}", "${a^^}", "${B,}", "${B,,}", "${uni^^}", "${missing^}", "${missing#x}", "${missing/x/y}",
	"${}", "${ a}", "${{ a }}", "${!a}", "${a.b}", "${a }", "${a[0]}", "${a[@]}", "${a@Q}", "${a", "${a:=b", "{{ .Values }}",
	`\\ \/ a\b`, "${1}", "${größe}", "${expr} ${dollar}{a} ${brace}", "a\x00${a}", "${a}\n${missing}\n${no:=x}", "\xff${a}",
}

// TestAsFlux compares expand with the library that Flux uses, S3.46, S3.47.
func TestAsFlux(t *testing.T) {
	for _, text := range expressions {
		same(t, text, true)
		same(t, text, false)
	}
}

// FuzzAsFlux looks for texts where they differ.
func FuzzAsFlux(f *testing.F) {
	for _, text := range expressions {
		f.Add(text, true)
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text string, strict bool) { same(t, text, strict) })
}
