package build

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
)

// TestOverlayKeepsInside (S2.32): no operation of the file system that kustomize
// gets leads out of the tree, be it by "..", by an absolute path, by a folder
// beside it whose name begins as its own does, or by a link; and none writes.
func TestOverlayKeepsInside(t *testing.T) {
	top := t.TempDir()
	write := func(name string) {
		t.Helper()
		name = filepath.Join(top, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte("x"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("tree/app/in.yaml")
	write("tree2/out.yaml")
	for link, to := range map[string]string{"tree/app/file.yaml": "../../tree2/out.yaml", "tree/folder": "../tree2", "tree/app/inside.yaml": "in.yaml"} {
		if err := os.Symlink(to, filepath.Join(top, link)); err != nil {
			t.Fatal(err)
		}
	}
	o := newOverlay(os.DirFS(filepath.Join(top, "tree")), true)
	outside := []string{
		mount + "/../tree2/out.yaml", mount + "2/out.yaml", "../tree2/out.yaml", filepath.Join(top, "tree2/out.yaml"), "/etc/hostname", "/",
		path.Join(mount, "app/file.yaml"), path.Join(mount, "folder/out.yaml"), path.Join(mount, "folder"), path.Join(mount, "app/inside.yaml"),
	}
	for _, name := range outside {
		if o.Exists(name) || o.IsDir(name) {
			t.Errorf("%s exists", name)
		}
		if data, err := o.ReadFile(name); err == nil {
			t.Errorf("%s was read: %q", name, data)
		}
		if f, err := o.Open(name); err == nil {
			t.Errorf("%s was opened: %v", name, f)
		}
		if _, _, err := o.CleanedAbs(name); err == nil {
			t.Errorf("%s is confirmed", name)
		}
		if names, err := o.ReadDir(name); err == nil {
			t.Errorf("%s was listed: %q", name, names)
		}
		if found, err := o.Glob(name); err == nil && len(found) > 0 {
			t.Errorf("%s was found: %q", name, found)
		}
		seen := ""
		err := o.Walk(name, func(p string, info fs.FileInfo, err error) error {
			if err == nil && info != nil && !info.IsDir() {
				seen = p
			}
			return err
		})
		if err == nil && seen != "" {
			t.Errorf("%s was walked: %s", name, seen)
		}
	}
	for _, name := range append(outside, path.Join(mount, "app/in.yaml"), path.Join(mount, "new")) {
		_, create := o.Create(name)
		for op, err := range map[string]error{
			"create": create, "mkdir": o.Mkdir(name), "mkdirall": o.MkdirAll(name), "remove": o.RemoveAll(name), "write": o.WriteFile(name, nil),
		} {
			if err == nil {
				t.Errorf("%s of %s went through", op, name)
			}
		}
	}
	// What is inside can be had, by any way that leads there.
	for _, name := range []string{mount + "/app/in.yaml", "app/in.yaml", mount + "/app/../app/in.yaml", mount + "/../.tree/app/in.yaml"} {
		if data, err := o.ReadFile(name); err != nil || string(data) != "x" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	if names, err := o.ReadDir(mount + "/app"); err != nil || !slices.Equal(names, []string{"in.yaml"}) {
		t.Errorf("%q, %v", names, err)
	}
	if found, err := o.Glob(mount + "/app/*.yaml"); err != nil || !slices.Equal(found, []string{mount + "/app/in.yaml"}) {
		t.Errorf("%q, %v", found, err)
	}
}
