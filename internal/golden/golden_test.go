package golden

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "case.txt")

	err := Compare(path, []byte("a\n"), false)
	if err == nil || !strings.Contains(err.Error(), "-update") {
		t.Fatalf("missing file: got %v, want an error that names -update", err)
	}
	if err := Compare(path, []byte("a\nb\nc\n"), true); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(path)
	if err != nil || string(written) != "a\nb\nc\n" {
		t.Fatalf("written %q, %v", written, err)
	}
	if err := Compare(path, []byte("a\nb\nc\n"), false); err != nil {
		t.Errorf("equal content: %v", err)
	}

	err = Compare(path, []byte("a\nX\nc\n"), false)
	if err == nil {
		t.Fatal("different content is no error")
	}
	for _, want := range []string{"line 2", `want "b\n"`, `got  "X\n"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	if err := Compare(path, []byte("a\nb\n"), false); err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("shorter content: got %v", err)
	}
}
