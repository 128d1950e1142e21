//go:build unix

package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

func TestWrongUsage(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"start"}, `unknown command "start"`},
		{[]string{"up", "here"}, `unexpected argument "here"`},
		{[]string{"up", "--nodes", "0"}, "--nodes 0: at least one is needed"},
		{[]string{"run"}, "run: no command given"},
		{[]string{"down", "--force"}, "flag provided but not defined: -force"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), test.args, &stdout, &stderr)
		if code != exitUsage || !strings.Contains(stderr.String(), test.want) || stdout.Len() > 0 {
			t.Errorf("%v: code %d, %q; want code %d and %q", test.args, code, stderr.String(), exitUsage, test.want)
		}
	}
}

func TestExitCode(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 3": 3, "kill -TERM $$": 143} {
		code, err := exitCode(exec.Command("sh", "-c", script).Run())
		if code != want || err != nil {
			t.Errorf("%q: %d, %v; want %d", script, code, err, want)
		}
	}
}
