package build

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/kustomize/api/resource"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/sluicerun/sluice/internal/flux"
)

// diagnose finds out what kustomize's error means in terms of files and lines.
// Kustomize stops at the first problem; this looks at every file that the
// build refers to and returns all of them. If it finds nothing, kustomize's
// own words are the error (S2.37).
func (b *builder) diagnose(manifest kustypes.Kustomization, cause error) error {
	v := &visitor{b: b, seen: map[string]bool{}}
	v.folder(b.k.Path())
	if len(v.problems) > 0 {
		return flux.JoinProblems(v.problems)
	}
	if file := b.failingFile(cause); file != "" {
		return b.unreadable(file, b.tree.content[file], cause)
	}
	text, where := shorter(oneLine(cause.Error())), ""
	patch, own := b.failingPatch(manifest)
	if patch != "" {
		where = patch + ": "
	}
	e := b.problem(errors.New("kustomize build failed: " + where + text))
	if own {
		e.File, e.Line = b.k.File, b.k.Line
	}
	e.Remedy = remedy(text)
	if in := (*unreadableObject)(nil); errors.As(cause, &in) && in.file != "" {
		e.File, e.Line = in.file, 0
	}
	if m := registered.FindStringSubmatch(e.Err.Error()); m != nil {
		if places := b.declared(m[1], m[2]); len(places) > 1 {
			last := places[len(places)-1]
			e.File, e.Line = last.file, last.line
			e.Remedy = fmt.Sprintf("%s %q is also declared in %s:%d: remove or rename one", m[1], m[2], places[0].file, places[0].line)
		}
	}
	return e
}

// failingTarget is kustomize's text for a folder whose kustomization file cannot
// be read.
var failingTarget = regexp.MustCompile(`couldn't make target for path '([^']*)': invalid Kustomization: json: `)

// failingFile returns the kustomization file of a base or component that has a
// field of a wrong type; "" if that is not what is wrong.
func (b *builder) failingFile(cause error) string {
	text := oneLine(cause.Error())
	m := failingTarget.FindStringSubmatch(text)
	if m == nil || !wrongType.MatchString(text) {
		return ""
	}
	for _, name := range kustomizationFiles {
		if file := path.Join(m[1], name); b.tree.content[file] != nil {
			return file
		}
	}
	return ""
}

// Kustomize tries every resource as a file and then as a folder, and tells
// about both. These find the half that does not matter.
var (
	onlyFile   = regexp.MustCompile(`(?:accumulating resources: )?accumulation err='(.*)': must build at directory: '[^']*': file is not directory`)
	onlyFolder = regexp.MustCompile(`(?:accumulating resources: )?accumulation err='accumulating resources from '[^']*': read [^:]*: is a directory': `)
	inObject   = regexp.MustCompile(` in object \{\{.*\}\}`)
	conflict   = regexp.MustCompile(`(namespace transformation produces ID conflict): \[(.*)\]`)
)

// shorter leaves out of kustomize's text what says nothing.
func shorter(text string) string {
	text = onlyFolder.ReplaceAllString(text, "")
	text = onlyFile.ReplaceAllString(text, "$1")
	if m := conflict.FindStringSubmatch(text); m != nil {
		text = m[1] + ": " + strings.Join(named(m[2]), ", ")
	}
	return inObject.ReplaceAllString(text, "")
}

// named says which objects a text of kustomize's is about that holds all of
// their content, which may be secret.
func named(objects string) []string {
	var names []string
	for decoder := json.NewDecoder(strings.NewReader(objects)); ; {
		var o struct {
			Kind     string
			Metadata struct {
				Namespace, Name string
				Annotations     map[string]string
			}
		}
		if err := decoder.Decode(&o); err != nil {
			return names // the end, or no object, of which nothing may be shown
		}
		name := fmt.Sprintf("%s/%s/%s", o.Kind, o.Metadata.Namespace, o.Metadata.Name)
		if was := o.Metadata.Annotations["internal.config.kubernetes.io/previousNamespaces"]; was != "" {
			name += fmt.Sprintf(" (of namespace %s)", was)
		}
		names = append(names, name)
	}
}

// registered is kustomize's text for two objects of the same id (S2.30).
var registered = regexp.MustCompile(`already registered id: ([A-Za-z0-9]+)\.[^/\s]*/([^.\s']+)`)

// remedy says what to do about some of kustomize's texts.
func remedy(text string) string {
	switch {
	case strings.Contains(text, "must specify --enable-helm"):
		return "Flux does not inflate Helm charts in kustomization.yaml either: use a HelmRelease, or commit the rendered manifests"
	case strings.Contains(text, "no 'git' program on path"):
		return "a remote base needs git: install it, or copy the base into the repository"
	case strings.Contains(text, "recovered from kustomize build panic"):
		return "kustomize itself stops on something in this build, and in Flux too: look for a malformed name, patch or manifest in what changed last"
	case strings.Contains(text, "produces ID conflict"):
		return "give one of the objects another name, or leave targetNamespace out"
	case strings.Contains(text, "Found multiple kustomization files"):
		return "keep one of kustomization.yaml, kustomization.yml and Kustomization"
	case strings.Contains(text, "fs-security-constraint"):
		return "a build can only read files of its own repository: copy the file into it"
	case strings.Contains(text, "hit") && strings.Contains(text, "timeout running"):
		return "the remote base did not answer in time: copy it into the repository, or add ?timeout=120s to its URL"
	}
	return ""
}

// place is a line of a file.
type place struct {
	file string
	line int
}

// declared lists where objects of that kind and name stand.
func (b *builder) declared(kind, name string) []place {
	var places []place
	for _, file := range b.tree.files() {
		docs, _ := documents(b.tree.content[file])
		for _, d := range docs {
			if scalar(d, "kind") == kind && scalar(child(d, "metadata"), "name") == name {
				places = append(places, place{file, d.Line})
			}
		}
	}
	return places
}

// wrongType is how the JSON decoder says that a field is not what it should be.
var wrongType = regexp.MustCompile(`cannot unmarshal (\w+) into Go struct field (?:\w+\.)?(\S+) of type (\S+)`)

// unreadable makes an error of a kustomization file that cannot be decoded.
func (b *builder) unreadable(file string, data []byte, cause error) error {
	docs, err := documents(data)
	if err != nil {
		return b.syntax(file, err)
	}
	text := oneLine(cause.Error())
	e := &flux.Problem{Kustomization: b.k.ID, File: file, Err: errors.New(text)}
	if m := wrongType.FindStringSubmatch(text); m != nil {
		want := strings.TrimPrefix(strings.NewReplacer("[]", "a list of ", "types.", "", "string", "strings").Replace(m[3]), "*")
		e.Err = fmt.Errorf("%s must be %s, not a %s", m[2], want, m[1])
		e.Remedy = "see https://kubectl.docs.kubernetes.io/references/kustomize/kustomization"
		if m[3] == "string" {
			switch m[1] {
			case "bool":
				e.Remedy = "put the value into quotes; without them YAML reads y, n, yes, no, on and off as booleans"
			case "number":
				e.Remedy = "put the value into quotes; without them it is a number"
			}
		}
		top, _, _ := strings.Cut(m[2], ".")
		if n := child(docs[0], top); n != nil {
			e.Line = n.Line
		}
	}
	return e
}

// The YAML library says where something is wrong in two ways. Its scanner
// counts lines from 1; its parser, which has the texts of fromParser, counts
// from 0. Neither says so for the first line.
var (
	yamlLine   = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	fromParser = regexp.MustCompile(`^did not find expected (key|node content|'-' indicator|',' or ']'|',' or '}'|<)`)
)

// syntax makes an error of what the YAML library says.
func (b *builder) syntax(file string, err error) *flux.Problem {
	e := &flux.Problem{Kustomization: b.k.ID, File: file, Err: err, Remedy: "correct the YAML"}
	if m := yamlLine.FindStringSubmatch(oneLine(err.Error())); m != nil {
		line := 0
		if m[1] != "" {
			line, _ = strconv.Atoi(m[1]) // the expression admits digits only
		}
		if line == 0 || fromParser.MatchString(m[2]) {
			line++
		}
		e.Line, e.Err = line, fmt.Errorf("not valid YAML: %s", m[2])
	}
	return e
}

// notKubernetes says why a file below a folder without kustomization.yaml is
// no manifest (S2.4), and where.
func (b *builder) notKubernetes(file string, data []byte, cause error) *flux.Problem {
	docs, err := documents(data)
	if err != nil {
		return b.syntax(file, err)
	}
	e := &flux.Problem{
		Kustomization: b.k.ID,
		File:          file,
		Err:           fmt.Errorf("failed to decode Kubernetes YAML from %s: %s", file, reason(cause)),
		Remedy:        fmt.Sprintf("every YAML file below %q must be a manifest: move this one, or name the manifests in a kustomization.yaml", b.k.Path()),
	}
	for _, d := range docs {
		if d.Kind != yaml.MappingNode || scalar(d, "kind") == "" || scalar(child(d, "metadata"), "name") == "" && !strings.HasSuffix(scalar(d, "kind"), "List") {
			e.Line = d.Line
			break
		}
	}
	return e
}

// reason is the first line of kustomize's text; what follows is the object
// itself, which may be long or secret.
func reason(err error) string {
	first, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	first, _, _ = strings.Cut(first, " in object {")
	return oneLine(first)
}

// parses runs kustomize's parser, which panics on some input, over a file.
func parses(factory *resource.Factory, data []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("recovered from panic while parsing: %v", r)
		}
	}()
	_, err = factory.SliceFromBytes(data)
	return err
}

// dropped says what a missing path is in the commit, if it is something that
// sources leave out (S10.38).
func dropped(err error) string {
	var at *fs.PathError
	if !errors.As(err, &at) {
		return ""
	}
	_, is, _ := strings.Cut(at.Err.Error(), fs.ErrNotExist.Error()+": ")
	if strings.Contains(is, "symbolic link") || strings.Contains(is, "submodule") {
		return is
	}
	return ""
}

// missingPath says that spec.path names no folder, and which ones are near.
func (b *builder) missingPath() error {
	if _, err := b.tree.stat(b.k.Path()); err != nil && dropped(err) != "" {
		e := b.problem(fmt.Errorf("kustomization path not found: spec.path %q does not exist in %s: %s", b.k.Spec.Path, b.k.Source(), dropped(err)))
		e.Remedy = "commit the files themselves"
		return e
	}
	e := b.problem(fmt.Errorf("kustomization path not found: spec.path %q does not exist in %s", b.k.Spec.Path, b.k.Source()))
	if near := b.nearFolders(b.k.Path()); len(near) > 0 {
		e.Remedy = "did you mean " + strings.Join(near, ", ") + "?"
	}
	return e
}

// visitor follows the references of kustomization files through the tree.
type visitor struct {
	b        *builder
	seen     map[string]bool
	problems []*flux.Problem
}

func (v *visitor) add(file string, line int, remedy, format string, args ...any) {
	v.problems = append(v.problems, &flux.Problem{Kustomization: v.b.k.ID, File: file, Line: line, Err: fmt.Errorf(format, args...), Remedy: remedy})
}

// folder looks at the kustomization file of a folder and at all it names.
func (v *visitor) folder(dir string) {
	if v.seen[dir] {
		return
	}
	v.seen[dir] = true
	for _, name := range kustomizationFiles {
		file := path.Join(dir, name)
		data, err := v.b.tree.glance(file)
		if err != nil {
			continue
		}
		docs, err := documents(data)
		if err != nil {
			v.problems = append(v.problems, v.b.syntax(file, err))
			return
		}
		if len(docs) > 0 {
			v.kustomization(dir, file, docs[0])
		}
		return
	}
	// Generated: the scan has already parsed its files; its subfolders have
	// files of their own.
	if dir == v.b.k.Path() {
		if resources, err := v.b.scan(dir); err == nil {
			for _, r := range resources {
				if info, err := v.b.tree.stat(path.Join(dir, r)); err == nil && info.IsDir() {
					v.folder(path.Join(dir, r))
				}
			}
		}
	}
}

func (v *visitor) kustomization(dir, file string, doc *yaml.Node) {
	references(doc, func(field string, n *yaml.Node, folders bool) {
		v.reference(dir, file, field, n, folders)
	})
}

// reference looks at one path that a kustomization file names.
func (v *visitor) reference(dir, file, field string, n *yaml.Node, folders bool) {
	if n == nil || n.Kind != yaml.ScalarNode || n.Value == "" || !localAndRelative(n.Value) {
		return
	}
	target := path.Join(dir, n.Value)
	if outsideOf(target) {
		v.add(file, n.Line, "a build can only read files of its own repository", "%s: %q is outside of the repository", field, n.Value)
		return
	}
	info, err := v.b.tree.stat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if strings.Contains(n.Value, "?ref=") || strings.Contains(n.Value, ".git") || strings.Contains(n.Value, "//") {
			return // perhaps a repository; kustomize's own error says more
		}
		remedy := "add the file, or remove the entry"
		if near := v.b.nearFiles(target); len(near) > 0 {
			remedy = "did you mean " + strings.Join(near, ", ") + "?"
		}
		if is := dropped(err); is != "" {
			v.add(file, n.Line, "commit the files themselves", "%s: %q does not exist: %s", field, n.Value, is)
			return
		}
		v.add(file, n.Line, remedy, "%s: %q does not exist: looked for %q", field, n.Value, target)
	case err != nil:
		v.add(file, n.Line, "", "%s: %q: %w", field, n.Value, err)
	case info.IsDir() && folders:
		if !slices.ContainsFunc(kustomizationFiles, func(f string) bool {
			i, err := v.b.tree.stat(path.Join(target, f))
			return err == nil && !i.IsDir()
		}) {
			v.add(file, n.Line, fmt.Sprintf("add %q", path.Join(target, kustomizationFiles[0])), "%s: %q is a folder without a kustomization file", field, n.Value)
			return
		}
		v.folder(target)
	case info.IsDir():
		v.add(file, n.Line, "name a file", "%s: %q is a folder", field, n.Value)
	default:
		v.manifest(target, folders)
	}
}

// manifest checks that a file is YAML, if it says so by its name.
func (v *visitor) manifest(file string, resource bool) {
	if v.seen[file] {
		return
	}
	v.seen[file] = true
	ext := path.Ext(file)
	if ext != ".yaml" && ext != ".yml" && !resource {
		return
	}
	data, err := v.b.tree.glance(file)
	if err != nil {
		v.add(file, 0, "", "%w", err)
		return
	}
	if _, err := documents(data); err != nil {
		v.problems = append(v.problems, v.b.syntax(file, err))
	}
}

// documents parses a YAML stream. Empty documents are left out.
func documents(data []byte) ([]*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var docs []*yaml.Node
	for {
		var n yaml.Node
		if err := decoder.Decode(&n); errors.Is(err, io.EOF) {
			return docs, nil
		} else if err != nil {
			return docs, err
		}
		if n.Kind == yaml.DocumentNode && len(n.Content) > 0 && n.Content[0].Tag != yaml.NodeTagNull {
			docs = append(docs, n.Content[0])
		}
	}
}
