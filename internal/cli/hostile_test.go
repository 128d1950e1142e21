package cli_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// A hostile repository is one that somebody wrote to break, to fill or to fool who
// reads it: in a pull request, before anybody has looked at it. Each must end in an
// answer that names what is wrong, in bounded memory, and never in a panic.

var hostileLong = flag.Bool("hostile.long", false, "also the hostile repositories that take long")

// hostileMemory is how much memory a process may have at its peak, in MiB. The
// race detector takes several times as much for itself.
const hostileMemory = 500 * raceMemory

type hostile struct {
	name string
	tree func(r *rawRepo) plumbing.Hash
	args []string // check --path entry if empty
	code int
	want []string // texts of the output
	long bool     // only with -hostile.long
}

// rawRepo is a repository that is written object by object.
type rawRepo struct {
	t   *testing.T
	dir string
	git *git.Repository
}

func newRaw(t *testing.T) *rawRepo {
	t.Helper()
	dir := t.TempDir()
	r, err := git.PlainInitWithOptions(dir, &git.PlainInitOptions{InitOptions: git.InitOptions{DefaultBranch: plumbing.Main}})
	if err != nil {
		t.Fatal(err)
	}
	return &rawRepo{t, dir, r}
}

func (r *rawRepo) write(kind plumbing.ObjectType, content []byte) plumbing.Hash {
	r.t.Helper()
	o := r.git.Storer.NewEncodedObject()
	o.SetType(kind)
	w, err := o.Writer()
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	hash, err := r.git.Storer.SetEncodedObject(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return hash
}

func (r *rawRepo) file(name, content string) object.TreeEntry {
	r.t.Helper()
	return object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: r.write(plumbing.BlobObject, []byte(content))}
}

func folder(name string, hash plumbing.Hash) object.TreeEntry {
	return object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: hash}
}

// tree writes a folder without any check of what is in it.
func (r *rawRepo) tree(entries ...object.TreeEntry) plumbing.Hash {
	r.t.Helper()
	slices.SortFunc(entries, func(a, b object.TreeEntry) int { return strings.Compare(a.Name, b.Name) })
	var b bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&b, "%o %s\x00", uint32(e.Mode), e.Name)
		b.Write(e.Hash[:])
	}
	return r.write(plumbing.TreeObject, b.Bytes())
}

// repeated writes ten folders in each other, each of which holds the next one ten
// times: ten trees, and ten thousand million paths.
func (r *rawRepo) repeated(leaf object.TreeEntry) plumbing.Hash {
	r.t.Helper()
	at := r.tree(leaf)
	for range 10 {
		var entries []object.TreeEntry
		for i := range 10 {
			entries = append(entries, folder(fmt.Sprint("f", i), at))
		}
		at = r.tree(entries...)
	}
	return at
}

// files writes a tree of files by their paths.
func (r *rawRepo) files(files map[string]string, more ...object.TreeEntry) plumbing.Hash {
	r.t.Helper()
	below := map[string]map[string]string{}
	entries := more
	for name, content := range files {
		if first, rest, nested := strings.Cut(name, "/"); nested {
			if below[first] == nil {
				below[first] = map[string]string{}
			}
			below[first][rest] = content
		} else {
			entries = append(entries, r.file(name, content))
		}
	}
	for name, files := range below {
		entries = append(entries, folder(name, r.files(files)))
	}
	return r.tree(entries...)
}

func (r *rawRepo) commit(tree plumbing.Hash, subject string) {
	r.t.Helper()
	text := fmt.Sprintf("tree %s\nauthor Mallory <m@example.org> 1767268800 +0000\ncommitter Mallory <m@example.org> 1767268800 +0000\n\n%s\n", tree, subject)
	hash := r.write(plumbing.CommitObject, []byte(text))
	if err := r.git.Storer.SetReference(plumbing.NewHashReference(plumbing.NewBranchReferenceName("main"), hash)); err != nil {
		r.t.Fatal(err)
	}
}

// big writes a file of so many bytes without having it in memory.
func (r *rawRepo) big(name string, size int64, line string) object.TreeEntry {
	r.t.Helper()
	cmd := exec.Command("git", "-C", r.dir, "-c", "core.looseCompression=1", "hash-object", "-w", "--stdin")
	cmd.Stdin = io.LimitReader(&endless{text: []byte(line)}, size)
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatal(err)
	}
	return object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: plumbing.NewHash(strings.TrimSpace(string(out)))}
}

// endless is a text over and over.
type endless struct {
	text []byte
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		copied := copy(p[n:], e.text[e.at:])
		n += copied
		e.at = (e.at + copied) % len(e.text)
	}
	return n, nil
}

// kustomization is a Flux manifest; spec is added to what it must have.
func kustomization(name, folder string, spec ...string) string {
	return fmt.Sprintf("apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: %s, namespace: flux-system}\nspec:\n  interval: 5m\n  prune: true\n  path: %q\n  sourceRef: {kind: GitRepository, name: flux-system}\n",
		name, folder) + strings.Join(spec, "")
}

func configMap(name string, lines ...string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: default}\n" + strings.Join(lines, "")
}

// apps is a repository whose one Kustomization builds the folder apps.
func apps(files map[string]string, more ...object.TreeEntry) func(r *rawRepo) plumbing.Hash {
	return func(r *rawRepo) plumbing.Hash {
		all := map[string]string{"entry/apps.yaml": kustomization("apps", "./apps")}
		for name, content := range files {
			all[path.Join("apps", name)] = content
		}
		return r.files(all, more...)
	}
}

// laughs are lines of aliases of aliases, which stand for 9^levels values.
func laughs(levels int) string {
	var b strings.Builder
	b.WriteString("x0: &x0 [lol]\n")
	for i := 1; i <= levels; i++ {
		fmt.Fprintf(&b, "x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d, ", i-1), 9), ", "))
	}
	return b.String()
}

func indented(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+by) + "\n"
}

// chain is a chain of so many bases.
func chain(floors int) map[string]string {
	files := map[string]string{"kustomization.yaml": "resources: [../b0]\n"}
	for i := range floors {
		files[fmt.Sprintf("../b%d/kustomization.yaml", i)] = fmt.Sprintf("resources: [../b%d]\n", i+1)
	}
	files[fmt.Sprintf("../b%d/kustomization.yaml", floors)] = "resources: [c.yaml]\n"
	files[fmt.Sprintf("../b%d/c.yaml", floors)] = configMap("c")
	return files
}

func one(name, content string) map[string]string { return map[string]string{name: content} }

var hostiles = []hostile{
	// Paths that lead out of the repository.
	{name: "path with too many ..", code: 3, want: []string{`spec.path "../../../../etc" does not exist`},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.files(one("entry/apps.yaml", kustomization("apps", "../../../../etc")))
		}},
	{name: "absolute path", code: 3, want: []string{`spec.path "/etc" does not exist`},
		tree: func(r *rawRepo) plumbing.Hash { return r.files(one("entry/apps.yaml", kustomization("apps", "/etc"))) }},
	{name: "path with a NUL", code: 3, want: []string{"spec.path", "does not exist"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.files(one("entry/apps.yaml", kustomization("apps", "a\x01b")))
		}},
	{name: "resources above the repository", code: 3, want: []string{"apps/kustomization.yaml:1", "outside of the repository"},
		tree: apps(one("kustomization.yaml", "resources: [../../../../../../../../etc/passwd]\n"))},
	{name: "absolute resources", code: 3, want: []string{"apps/kustomization.yaml", "/etc/passwd"},
		tree: apps(one("kustomization.yaml", "resources: [/etc/passwd]\n"))},
	{name: "components above the repository", code: 3, want: []string{"apps/kustomization.yaml:1", "outside of the repository"},
		tree: apps(one("kustomization.yaml", "components: [../../x]\n"))},
	{name: "absolute patch", code: 3, want: []string{"apps/kustomization.yaml", "/etc/passwd"},
		tree: apps(map[string]string{"kustomization.yaml": "resources: [c.yaml]\npatches: [{path: /etc/passwd}]\n", "c.yaml": configMap("c")})},
	{name: "generator of files of the machine", code: 3, want: []string{"apps/kustomization.yaml", "/etc/passwd"},
		tree: apps(one("kustomization.yaml", "configMapGenerator: [{name: c, files: [x=/etc/passwd]}]\n"))},
	{name: "generator of variables of the machine", code: 3, want: []string{"apps/kustomization.yaml", "outside of the repository"},
		tree: apps(one("kustomization.yaml", "secretGenerator: [{name: c, envs: [../../../../proc/self/environ]}]\n"))},
	{name: "schema, definitions and replacements elsewhere", code: 3, want: []string{"openapi: ", "crds: ", "replacements: ", "configurations: ", "outside of the repository"},
		tree: apps(one("kustomization.yaml", "openapi: {path: ../../a.json}\ncrds: [../../b.json]\nreplacements: [{path: ../../c.yaml}]\nconfigurations: [../../d.yaml]\n"))},
	{name: "a repository on the machine's disk", code: 3, want: []string{"apps/kustomization.yaml", "is a place on the machine"},
		tree: apps(one("kustomization.yaml", "resources: ['file:///tmp/other//base?ref=main']\n"))},
	{name: "an option for git", code: 3, want: []string{"apps/kustomization.yaml", "the ref is no name that Git admits"},
		tree: apps(one("kustomization.yaml", "resources: ['https://127.0.0.1:1/a/b?ref=--upload-pack=touch+/tmp/x']\n"))},

	// Links and what else a folder can hold besides files.
	{name: "links", code: 3, want: []string{"is a symbolic link"},
		tree: func(r *rawRepo) plumbing.Hash {
			link := func(name, to string) object.TreeEntry {
				return object.TreeEntry{Name: name, Mode: filemode.Symlink, Hash: r.write(plumbing.BlobObject, []byte(to))}
			}
			in := r.tree(r.file("kustomization.yaml", "resources: [passwd.yaml, loop.yaml, dir, git, chain.yaml, gone.yaml]\n"),
				link("passwd.yaml", "/etc/passwd"), link("loop.yaml", "loop.yaml"), link("dir", "../entry"), link("git", "../.git"),
				link("chain.yaml", "passwd.yaml"), link("gone.yaml", "nowhere"))
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))), folder("apps", in))
		}},
	{name: "a linked folder as the entry folder", code: 3, want: []string{"is a symbolic link"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("real", r.tree(r.file("apps.yaml", kustomization("apps", "./real")))),
				object.TreeEntry{Name: "entry", Mode: filemode.Symlink, Hash: r.write(plumbing.BlobObject, []byte("real"))})
		}},
	{name: "a submodule", code: 3, want: []string{"is a submodule"},
		tree: func(r *rawRepo) plumbing.Hash {
			sub := object.TreeEntry{Name: "apps", Mode: filemode.Submodule, Hash: plumbing.NewHash(strings.Repeat("1", 40))}
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))), sub,
				r.file(".gitmodules", "[submodule \"apps\"]\n\tpath = apps\n\turl = --upload-pack=touch /tmp/x\n"))
		}},
	{name: "a large file that Git LFS keeps", code: 3, want: []string{"apps/c.yaml", "Git LFS pointer"}, args: []string{"check", "--path", "entry", "-v"},
		tree: apps(one("c.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"))},
	{name: "a folder named kustomization.yaml", code: 3, want: []string{"is a folder"},
		tree: apps(one("kustomization.yaml/c.yaml", configMap("c")))},
	{name: "names with ..", code: 3, want: []string{"malformed", `".."`},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./entry")))), folder("..", r.tree(r.file("x", "x"))))
		}},
	{name: "names with slashes", code: 3, want: []string{"malformed"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.tree(r.file("a/../../../x.yaml", "x"))))
		}},
	{name: "the same name twice", code: 3, want: []string{"malformed", "twice"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.tree(r.file("a.yaml", configMap("a")), r.file("a.yaml", configMap("b")))))
		}},
	{name: "names that differ by case", code: 0, want: []string{"VALID"},
		tree: apps(map[string]string{"c.yaml": configMap("c"), "C.yaml": configMap("d"), "Dir/x.yaml": configMap("x"), "dir/x.yaml": configMap("y")})},
	{name: "a tree that is missing", code: 3, want: []string{"not in the repository's store"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))), folder("apps", plumbing.NewHash(strings.Repeat("2", 40))))
		}},
	{name: "a file that is missing", code: 3, want: []string{"not in the repository's store"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))),
				folder("apps", r.tree(object.TreeEntry{Name: "c.yaml", Mode: filemode.Regular, Hash: plumbing.NewHash(strings.Repeat("2", 40))})))
		}},
	{name: "a tree that is a file", code: 3, want: []string{"is a blob, not a tree"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.write(plumbing.BlobObject, []byte("no tree"))))
		}},

	// Depth.
	{name: "folders 10,000 deep", code: 3, want: []string{"folders lie more than 2048 deep"},
		tree: func(r *rawRepo) plumbing.Hash {
			at := r.tree(r.file("c.yaml", configMap("c")))
			for range 10_000 {
				at = r.tree(folder("d", at))
			}
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))), folder("apps", at))
		}},
	{name: "long names of folders", code: 3, args: []string{"check", "--path", "entry", "--output", "json"}, want: []string{"no checkout holds one"},
		tree: func(r *rawRepo) plumbing.Hash {
			at := r.tree(r.file("c.yaml", configMap("c")))
			for range 100 {
				at = r.tree(folder(strings.Repeat("d", 200), at))
			}
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))), folder("apps", at))
		}},
	{name: "folders that hold the same folders", long: true, code: 3, want: []string{"100000 files and folders"},
		tree: func(r *rawRepo) plumbing.Hash {
			at := r.repeated(r.file("note.txt", "x"))
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))), folder("apps", at))
		}},
	{name: "the same, without an entry folder given", args: []string{"check"}, code: 3, want: []string{"too large to be searched"}, long: true,
		tree: func(r *rawRepo) plumbing.Hash {
			return r.repeated(r.file("note.txt", "x"))
		}},
	{name: "the same, with patterns in each", code: 3, want: []string{".sourceignore files"},
		tree: func(r *rawRepo) plumbing.Hash {
			at := r.repeated(r.file(".sourceignore", ""))
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))), folder("apps", at))
		}},
	{name: "bases 10,000 deep", long: true, code: 3, want: []string{"more than 100 bases stand on each other"}, tree: apps(chain(10_000))},
	{name: "bases as deep as is allowed", code: 0, want: []string{"VALID"}, tree: apps(chain(90))},
	{name: "a bomb of overlays", code: 3, want: []string{"reads more than 100000 files"}, long: true,
		tree: func(r *rawRepo) plumbing.Hash {
			files := map[string]string{"entry/apps.yaml": kustomization("apps", "./l18/l"),
				"l0/l/kustomization.yaml": "resources: [c.yaml]\n", "l0/l/c.yaml": configMap("c")}
			files["l0/r/kustomization.yaml"], files["l0/r/c.yaml"] = files["l0/l/kustomization.yaml"], files["l0/l/c.yaml"]
			for i := 1; i < 19; i++ {
				for _, side := range []string{"l", "r"} {
					files[fmt.Sprintf("l%d/%s/kustomization.yaml", i, side)] = fmt.Sprintf("namePrefix: %s%d-\nresources: [../../l%d/l, ../../l%d/r]\n", side, i, i-1, i-1)
				}
			}
			return r.files(files)
		}},
	{name: "lists 10,000 deep", code: 3, want: []string{"apps/c.yaml", "more than 500 deep"},
		tree: apps(one("c.yaml", configMap("c", "x: "+strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000)+"\n")))},
	{name: "lists deeper than YAML is read", code: 3, want: []string{"apps/c.yaml", "not valid YAML"},
		tree: apps(one("c.yaml", configMap("c", "x: "+strings.Repeat("[", 1_000_000)+"\n")))},
	{name: "maps of JSON", code: 3, want: []string{"apps/c.yaml", "more than 500 deep"},
		tree: apps(one("c.yaml", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"x":`+strings.Repeat(`{"a":`, 9_000)+"1"+strings.Repeat("}", 9_001)))},
	{name: "indentation", code: 3, want: []string{"apps/c.yaml", "more than 500 deep"},
		tree: func(r *rawRepo) plumbing.Hash {
			var b strings.Builder
			for i := range 2_000 {
				b.WriteString(strings.Repeat(" ", i) + "a:\n")
			}
			return apps(one("c.yaml", configMap("c", "x:\n", indented(b.String(), " "))))(r)
		}},
	{name: "dashes", code: 3, want: []string{"apps/c.yaml", "more than 500 deep"},
		tree: apps(one("c.yaml", configMap("c", "x:\n", strings.Repeat("- ", 3_000), "a\n")))},

	// Aliases.
	{name: "aliases in a resource", code: 3, want: []string{"apps/c.yaml", "aliases expand"}, tree: apps(one("c.yaml", configMap("c", laughs(9))))},
	{name: "aliases in a kustomization file", code: 3, want: []string{"apps/kustomization.yaml", "aliases expand"},
		tree: apps(map[string]string{"kustomization.yaml": "resources: [c.yaml]\n" + laughs(9), "c.yaml": configMap("c")})},
	{name: "aliases in a base", code: 3, want: []string{"base/kustomization.yaml", "aliases expand"},
		tree: apps(map[string]string{"kustomization.yaml": "resources: [../base]\n", "../base/kustomization.yaml": "resources: []\n" + laughs(9)})},
	{name: "aliases in a Kustomization", code: 3, want: []string{"entry/apps.yaml", "aliases expand"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.files(one("entry/apps.yaml", kustomization("apps", "./apps")+laughs(9)))
		}},
	{name: "aliases in a patch's file", code: 3, want: []string{"apps/p.yaml", "aliases expand"},
		tree: apps(map[string]string{"kustomization.yaml": "resources: [c.yaml]\npatches: [{path: p.yaml}]\n", "c.yaml": configMap("c"), "p.yaml": configMap("c", laughs(9))})},
	{name: "aliases in a patch's text", code: 3, want: []string{"apps/kustomization.yaml", "patches[0]", "aliases expand"},
		tree: apps(map[string]string{"kustomization.yaml": "resources: [c.yaml]\npatches:\n- patch: |\n" + indented(configMap("c", laughs(9)), "    "), "c.yaml": configMap("c")})},
	{name: "aliases in spec.patches", code: 3, want: []string{"entry/apps.yaml", "patches[0]", "aliases expand"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.files(map[string]string{"entry/apps.yaml": kustomization("apps", "./apps", "  patches:\n  - patch: |\n", indented(configMap("c", laughs(9)), "      ")), "apps/c.yaml": configMap("c")})
		}},
	{name: "aliases in a generator's text", code: 3, want: []string{"apps/kustomization.yaml", "transformers[0]", "aliases expand"},
		tree: apps(map[string]string{"kustomization.yaml": "resources: [c.yaml]\ntransformers:\n- |\n" + indented("apiVersion: builtin\nkind: PrefixTransformer\nmetadata: {name: p}\n"+laughs(9), "  "), "c.yaml": configMap("c")})},
	{name: "aliases that a value brings along", code: 3, want: []string{"ConfigMap/default/c", "more than 1000000 values"},
		tree: func(r *rawRepo) plumbing.Hash {
			bomb := "[&x0 [lol]"
			for i := 1; i < 9; i++ {
				bomb += fmt.Sprintf(", &x%d [%s]", i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d, ", i-1), 9), ", "))
			}
			return r.files(map[string]string{"entry/apps.yaml": kustomization("apps", "./apps", fmt.Sprintf("  postBuild: {substitute: {bomb: %q}}\n", bomb+"]")),
				"apps/c.yaml": configMap("c", "x: ${bomb}\n")})
		}},
	{name: "an anchor in itself", code: 3, want: []string{"apps/c.yaml"}, tree: apps(one("c.yaml", configMap("c", "x: &a [*a]\n")))},
	{name: "aliases that a file of a ConfigMap holds", code: 0, want: []string{"VALID"},
		tree: apps(map[string]string{"kustomization.yaml": "configMapGenerator: [{name: c, files: [bomb.txt]}]\n", "bomb.txt": "&a * this is [no YAML\n"})},

	// Size.
	{name: "200 MB beside what is read", long: true, code: 0, want: []string{"VALID"},
		tree: func(r *rawRepo) plumbing.Hash {
			return apps(one("c.yaml", configMap("c")), r.big("video.yaml", 200<<20, "a: 1\n"))(r)
		}},
	{name: "200 MB in the entry folder", long: true, code: 3, want: []string{"entry/big.yaml", "the file has 200 MiB, more than the 32 MiB"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")), r.big("big.yaml", 200<<20, "a: 1\n"))))
		}},
	{name: "200 MB as a resource", code: 3, want: []string{"apps/big.yaml", "the file has 200 MiB, more than the 32 MiB"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))),
				folder("apps", r.tree(r.file("kustomization.yaml", "resources: [big.yaml]\n"), r.big("big.yaml", 200<<20, "a: 1\n"))))
		}},
	{name: "200 MB as a kustomization file", long: true, code: 3, want: []string{"apps/kustomization.yaml", "the file has 200 MiB"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))),
				folder("apps", r.tree(r.big("kustomization.yaml", 200<<20, "# nothing\n"))))
		}},
	{name: "200 MB as a generator's file", long: true, code: 3, want: []string{"apps/big.bin", "the file has 200 MiB"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))),
				folder("apps", r.tree(r.file("kustomization.yaml", "configMapGenerator: [{name: c, files: [big.bin]}]\n"), r.big("big.bin", 200<<20, "x"))))
		}},
	{name: "200 MB of patterns", long: true, code: 3, want: []string{".sourceignore", "it has 200 MiB"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))), r.big(".sourceignore", 200<<20, "x\n"))
		}},
	{name: "millions of documents", code: 3, want: []string{"apps/c.yaml", "more than 1000000 values"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))),
				folder("apps", r.tree(r.big("c.yaml", 12<<20, "---\n"))))
		}},
	{name: "millions of values", code: 3, want: []string{"apps/c.yaml", "more than 1000000 values"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))),
				folder("apps", r.tree(r.big("c.yaml", 30<<20, "- a\n"))))
		}},
	{name: "millions of values in JSON", long: true, code: 3, want: []string{"apps/c.yaml", "more than 1000000 values"},
		tree: func(r *rawRepo) plumbing.Hash {
			return apps(one("c.yaml", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"x":[`+strings.Repeat("1,", 4_000_000)+"1]}"))(r)
		}},
	{name: "a large file many times", long: true, code: 3, want: []string{"reads more than 128 MiB"},
		tree: func(r *rawRepo) plumbing.Hash {
			var keys []string
			for i := range 100 {
				keys = append(keys, fmt.Sprintf("k%d=big.bin", i))
			}
			return r.tree(folder("entry", r.tree(r.file("apps.yaml", kustomization("apps", "./apps")))),
				folder("apps", r.tree(r.file("kustomization.yaml", "configMapGenerator: [{name: c, files: ["+strings.Join(keys, ", ")+"]}]\n"), r.big("big.bin", 30<<20, "x"))))
		}},
	{name: "a ConfigMap of 2 MiB", code: 3, want: []string{"ConfigMap/default/c", "apps/c.yaml", "its values have 2 MiB"},
		tree: apps(one("c.yaml", configMap("c", "data: {x: '", strings.Repeat("x", 2<<20), "'}\n")))},
	{name: "an object of 5 MiB", code: 3, want: []string{"Widget/default/w", "the object has 5", "no request of more than 3 MiB"},
		tree: apps(one("c.yaml", "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w, namespace: default}\nspec: {x: '"+strings.Repeat("x", 5<<20)+"'}\n"))},
	{name: "a JSON patch that copies what it copied", code: 3, want: []string{"apps/kustomization.yaml", "copy"},
		tree: func(r *rawRepo) plumbing.Hash {
			var ops strings.Builder
			for i := range 60 {
				fmt.Fprintf(&ops, "    - {op: copy, from: /data, path: /data/x%d}\n", i)
			}
			return apps(map[string]string{"kustomization.yaml": "resources: [c.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: |\n" + ops.String(), "c.yaml": configMap("c", "data: {a: b}\n")})(r)
		}},

	// Kustomizations that lead to themselves.
	{name: "a Kustomization of its own folder", code: 0, want: []string{"VALID"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.files(map[string]string{"entry/a.yaml": kustomization("a", "./more"), "more/b.yaml": kustomization("b", "./more2"), "more2/c.yaml": configMap("c")})
		}},
	{name: "two Kustomizations of each other's folder", code: 3, want: []string{"is declared twice", "entry/a.yaml:1", "two/a.yaml:1"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.files(map[string]string{"entry/a.yaml": kustomization("a", "./one"), "one/b.yaml": kustomization("b", "./two"), "two/a.yaml": kustomization("a", "./one")})
		}},
	{name: "a base of itself", code: 3, want: []string{"apps/kustomization.yaml"}, tree: apps(one("kustomization.yaml", "resources: [.]\n"))},
	{name: "two bases of each other", code: 3, want: []string{"kustomization.yaml", "cycle"},
		tree: apps(map[string]string{"kustomization.yaml": "resources: [../a]\n", "../a/kustomization.yaml": "resources: [../b]\n", "../b/kustomization.yaml": "resources: [../a]\n"})},
	{name: "a child of its parent's name", code: 3, want: []string{"flux-system/apps is declared twice", "entry/apps.yaml:1", "apps/other.yaml:1"},
		tree: apps(map[string]string{"other.yaml": kustomization("apps", "./other")})},
	{name: "a child of the name that the root gets", code: 3, want: []string{"flux-system/entry is declared twice"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.files(map[string]string{"entry/a.yaml": kustomization("entry", "./other"), "other/c.yaml": configMap("c")})
		}},
	{name: "the same Kustomization twice", code: 3, want: []string{"entry/b.yaml:1", "also declared in entry/a.yaml:1"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.files(map[string]string{"entry/a.yaml": kustomization("a", "./one"), "entry/b.yaml": kustomization("a", "./two"), "one/c.yaml": configMap("c"), "two/c.yaml": configMap("d")})
		}},
	{name: "Kustomizations without end", long: true, code: 3, want: []string{"TooManyKustomizations", "more than 50 Kustomizations lie in each other", "loop/k.yaml"}, args: []string{"check", "--path", "entry", "--output", "json"},
		tree: func(r *rawRepo) plumbing.Hash {
			next := kustomization("k-${N}", "./loop", "  postBuild: {substitute: {N: \"${N}x\"}}\n")
			return r.files(map[string]string{"entry/k.yaml": kustomization("k", "./loop", "  postBuild: {substitute: {N: x}}\n"), "loop/k.yaml": next})
		}},
	{name: "twice as many with each generation", code: 3, want: []string{"is the 5001th Kustomization"}, long: true,
		tree: func(r *rawRepo) plumbing.Hash {
			one := kustomization("k-${N}a", "./loop", "  postBuild: {substitute: {N: \"${N}a\"}}\n")
			two := kustomization("k-${N}b", "./loop", "  postBuild: {substitute: {N: \"${N}b\"}}\n")
			return r.files(map[string]string{"entry/k.yaml": kustomization("k", "./loop", "  postBuild: {substitute: {N: x}}\n"), "loop/k.yaml": one + "---\n" + two})
		}},

	// Variables.
	{name: "replacements of replacements", code: 3, want: []string{"apps/c.yaml", "longer than 8 MiB"},
		tree: func(r *rawRepo) plumbing.Hash {
			text := "${a}"
			for range 8 {
				text = "${a//x/" + text + "}"
			}
			return r.files(map[string]string{"entry/apps.yaml": kustomization("apps", "./apps", "  postBuild: {substitute: {a: "+strings.Repeat("x", 100)+"}}\n"), "apps/c.yaml": configMap("c", "data: {x: '"+text+"'}\n")})
		}},
	{name: "expressions without end", long: true, code: 3, want: []string{"apps/c.yaml", "more than 50000 expressions"},
		tree: func(r *rawRepo) plumbing.Hash {
			return r.files(map[string]string{"entry/apps.yaml": kustomization("apps", "./apps", "  postBuild: {substitute: {a: x}}\n"), "apps/c.yaml": configMap("c", "data: {x: '"+strings.Repeat("${a:-", 2_000_000)+"'}\n")})
		}},
	{name: "a value that doubles with each generation", code: 3, want: []string{"N"},
		tree: func(r *rawRepo) plumbing.Hash {
			next := kustomization("k-${N}", "./loop", "  postBuild: {substitute: {N: \"${N}x\", V: \"${V}${V}${V}${V}${V}${V}${V}${V}${V}${V}\"}}\n")
			return r.files(map[string]string{"entry/k.yaml": kustomization("k", "./loop", "  postBuild: {substitute: {N: x, V: xxxxxxxxxx}}\n"), "loop/k.yaml": next})
		}},

	// Programs and charts.
	{name: "a chart", code: 3, want: []string{"apps/kustomization.yaml", "HelmRelease"},
		tree: apps(one("kustomization.yaml", "helmCharts: [{name: x, repo: 'https://127.0.0.1:1', version: 1.0.0}]\n"))},
	{name: "a program as a generator", code: 3, want: []string{"apps/kustomization.yaml"},
		tree: apps(map[string]string{"kustomization.yaml": "generators: [g.yaml]\n",
			"g.yaml": "apiVersion: x/v1\nkind: G\nmetadata:\n  name: g\n  annotations:\n    config.kubernetes.io/function: |\n      exec: {path: ./run.sh}\n", "run.sh": "#!/bin/sh\ntouch /tmp/x\n"})},
	{name: "a container as a transformer", code: 3, want: []string{"apps/kustomization.yaml"},
		tree: apps(map[string]string{"kustomization.yaml": "resources: [c.yaml]\ntransformers: [g.yaml]\n", "c.yaml": configMap("c"),
			"g.yaml": "apiVersion: x/v1\nkind: G\nmetadata:\n  name: g\n  annotations:\n    config.kubernetes.io/function: |\n      container: {image: example.com/evil}\n"})},

	// Names.
	{name: "names that command a CI system", code: 3, args: []string{"check", "--path", "entry", "--output", "github"}, want: []string{"not valid YAML"},
		tree: apps(map[string]string{"\n::error::owned\r\n##[error]\x1b[2Jx\u202e.yaml": "a: [\n", strings.Repeat("n", 250) + ".yaml": "b: ["})},
}

// TestHostileRepositories: each ends as it should, in bounded memory.
func TestHostileRepositories(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("the peak of memory is measured on Linux only")
	}
	for _, h := range hostiles {
		t.Run(h.name, func(t *testing.T) {
			if h.long && !*hostileLong {
				return // by make test-long
			}
			r := newRaw(t)
			r.commit(h.tree(r), "hostile")
			args := h.args
			if args == nil {
				args = []string{"check", "--path", "entry"}
			}
			out, code, peak := measured(t, r.dir, args...)
			t.Logf("exit code %d, peak %d MiB", code, peak)
			if code != h.code {
				t.Errorf("exit code %d, want %d", code, h.code)
			}
			for _, want := range h.want {
				if !strings.Contains(out, want) {
					t.Errorf("the output lacks %q", want)
				}
			}
			if peak > hostileMemory {
				t.Errorf("the process had %d MiB, more than %d", peak, hostileMemory)
			}
			for _, never := range []string{"goroutine ", "internal error", "fatal error"} {
				if strings.Contains(out, never) {
					t.Errorf("the output has %q", never)
				}
			}
			if t.Failed() {
				t.Logf("output:\n%.8000s", out)
			}
		})
	}
}

// measured runs sluice in a folder, without a cluster, and returns what it printed,
// its exit code and its peak of memory in MiB, 0 where that is unknown.
func measured(t *testing.T, dir string, args ...string) (out string, code, peak int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sluice", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir()}
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && runtime.GOOS == "linux" {
		peak = int(usage.Maxrss >> 10)
	}
	if left, err := os.ReadDir(strings.TrimPrefix(cmd.Env[2], "TMPDIR=")); err != nil || len(left) > 0 {
		t.Errorf("left behind in the temporary folder: %v, %v", left, err)
	}
	return string(text), cmd.ProcessState.ExitCode(), peak
}

// TestHostileGitFolders: what lies beside the objects of a repository.
func TestHostileGitFolders(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, r *rawRepo)
		code  int
		want  string
	}{
		"hooks, filters and a work tree elsewhere": {func(t *testing.T, r *rawRepo) {
			for _, hook := range []string{"post-checkout", "reference-transaction", "fsmonitor-watchman"} {
				put(t, r, ".git/hooks/"+hook, "#!/bin/sh\ntouch "+ran+"\n", 0o755)
			}
			add(t, r, ".git/config", "[core]\n\tworktree = /\n\tfsmonitor = touch "+ran+"\n\thooksPath = /tmp\n\tsshCommand = touch "+ran+
				"\n[filter \"x\"]\n\tclean = touch "+ran+"\n\tsmudge = touch "+ran+"\n[include]\n\tpath = /dev/zero\n")
			put(t, r, ".gitattributes", "* filter=x\n", 0o644)
		}, 0, "VALID"},
		"a .git file that leads to a device": {func(t *testing.T, r *rawRepo) {
			if err := os.Rename(filepath.Join(r.dir, ".git"), filepath.Join(r.dir, "moved")); err != nil {
				t.Fatal(err)
			}
			put(t, r, ".git", "gitdir: /dev/zero\n", 0o644)
		}, 3, "which is no Git folder"},
		"HEAD is a device": {func(t *testing.T, r *rawRepo) {
			device(t, r, ".git/HEAD")
		}, 3, "no readable HEAD"},
		"a branch is a device":           {func(t *testing.T, r *rawRepo) { device(t, r, ".git/refs/heads/other") }, 0, "VALID"},
		"packed references are a device": {func(t *testing.T, r *rawRepo) { device(t, r, ".git/packed-refs") }, 3, "not a file"},
		"an index is a device":           {func(t *testing.T, r *rawRepo) { device(t, r, ".git/index") }, 0, "VALID"},
		"an index of another version":    {func(t *testing.T, r *rawRepo) { put(t, r, ".git/index", "DIRC\x00\x00\x00\x63\x00\x00\x00\x01", 0o644) }, 0, "VALID"},
		"alternates of alternates": {func(t *testing.T, r *rawRepo) {
			put(t, r, ".git/objects/info/alternates", filepath.Join(r.dir, ".git/objects")+"\n", 0o644)
		}, 0, "VALID"},
		"alternates elsewhere":            {func(t *testing.T, r *rawRepo) { put(t, r, ".git/objects/info/alternates", "/etc\n", 0o644) }, 3, "borrows objects from"},
		"a pack that was cut":             {func(t *testing.T, r *rawRepo) { packed(t, r); cut(t, r, "*.pack") }, 3, ""},
		"an index of a pack that was cut": {func(t *testing.T, r *rawRepo) { packed(t, r); cut(t, r, "*.idx") }, 3, ""},
		"a pack with other bytes":         {func(t *testing.T, r *rawRepo) { packed(t, r); garble(t, r, "*.pack") }, 3, ""},
		"a reference that names itself":   {func(t *testing.T, r *rawRepo) { put(t, r, ".git/refs/heads/main", "ref: refs/heads/main\n", 0o644) }, 3, "no commit"},
		"a configuration without end":     {func(t *testing.T, r *rawRepo) { device(t, r, ".git/config") }, 3, "configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRaw(t)
			r.commit(apps(one("c.yaml", configMap("c")))(r), "good")
			tc.spoil(t, r)
			out, code, peak := measured(t, r.dir, "check", "--path", "entry")
			if code != tc.code || !strings.Contains(out, tc.want) || peak > hostileMemory || strings.Contains(out, "goroutine ") || strings.Contains(out, "internal error") {
				t.Errorf("exit code %d, want %d; peak %d MiB; output:\n%s", code, tc.code, peak, out)
			}
		})
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a program that the repository names was run")
	}
}

func put(t *testing.T, r *rawRepo, name, text string, mode os.FileMode) {
	t.Helper()
	file := filepath.Join(r.dir, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
}

func add(t *testing.T, r *rawRepo, name, text string) {
	t.Helper()
	file := filepath.Join(r.dir, filepath.FromSlash(name))
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	put(t, r, name, string(was)+text, 0o644)
}

// device puts a link to a file without end in a file's place.
func device(t *testing.T, r *rawRepo, name string) {
	t.Helper()
	file := filepath.Join(r.dir, filepath.FromSlash(name))
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", file); err != nil {
		t.Fatal(err)
	}
}

// packed puts all objects into one pack.
func packed(t *testing.T, r *rawRepo) {
	t.Helper()
	if out, err := exec.Command("git", "-C", r.dir, "repack", "-q", "-a", "-d").CombinedOutput(); err != nil {
		t.Fatalf("git repack: %v: %s", err, out)
	}
}

// pack changes the only file of a kind in the packs' folder.
func pack(t *testing.T, r *rawRepo, glob string, change func([]byte) []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, ".git/objects/pack", glob))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(files[0], 0o644), os.WriteFile(files[0], change(data), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, r *rawRepo, glob string) {
	t.Helper()
	pack(t, r, glob, func(data []byte) []byte { return data[:len(data)/2] })
}

func garble(t *testing.T, r *rawRepo, glob string) {
	t.Helper()
	pack(t, r, glob, func(data []byte) []byte {
		for i := 12; i < len(data); i++ {
			data[i] ^= byte(i * 7)
		}
		return data
	})
}
