package cli

import (
	"bytes"
	"strings"
	"testing"
)

func TestFlagsFirst(t *testing.T) {
	code := 0
	app := newApp(System{Getenv: func(string) string { return "" }, Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}}, &code)
	for in, want := range map[string]string{
		"sluice":                                "sluice",
		"sluice build":                          "sluice build",
		"sluice build apps --path p":            "sluice build --path p apps",
		"sluice build apps --path=p -v infra":   "sluice build --path=p -v apps infra",
		"sluice build a --keep-open b --var x=": "sluice build --keep-open --var x= a b",
		"sluice build a --path":                 "sluice build --path a",
		"sluice build a --no-such b":            "sluice build --no-such a b",
		"sluice build a -q -- --path b":         "sluice build -q -- a --path b",
		"sluice build a - b":                    "sluice build a - b",
		"sluice run a --path p":                 "sluice run a --path p", // it takes no names, and says so
		"sluice no-such a --path p":             "sluice no-such a --path p",
	} {
		if got := strings.Join(flagsFirst(app, strings.Fields(in)), " "); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", in, got, want)
		}
	}
}

// A command's list of flags is made of names; a name of a flag that is gone
// would leave the command without it.
func TestPickedFlagsExist(t *testing.T) {
	known := map[string]bool{}
	for _, f := range append(runFlags(), outputFlags()...) {
		known[f.Names()[0]] = true
	}
	for _, name := range append(append([]string{"wait", "additive-cel-dependency-check", "no-color", "verbose", "quiet"}, decisive...), applying...) {
		if !known[name] {
			t.Errorf("there is no flag --%s", name)
		}
	}
}
