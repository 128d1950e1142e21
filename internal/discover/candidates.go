package discover

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sluicerun/sluice/internal/flux"
)

// Candidate is a folder that a run can start from.
type Candidate struct {
	// Path is relative to the root of the tree; the root itself is ".".
	Path string
	// Kustomizations are the ids that its manifests declare, sorted, as far
	// as the manifests say a namespace and a name.
	Kustomizations []flux.ID
	// SelfReference says that one of them builds the folder itself, as
	// flux bootstrap makes it.
	SelfReference bool
}

// Candidates returns the entry folders of a tree, sorted by path: those whose
// build holds Kustomization manifests that no other candidate's does, directly
// or through the paths of its Kustomizations. Files are looked at as they are,
// not built, so this is for proposing a path, never for finding the
// Kustomizations of a run (S16.1). Files that do not parse are passed over.
func Candidates(tree fs.FS) ([]Candidate, error) {
	m, err := survey(tree)
	if err != nil {
		return nil, err
	}
	// Every folder that a manifest points to or stands in may be an entry.
	var folders []string
	self := map[string]bool{}
	for _, manifest := range m.manifests {
		folders = append(folders, path.Dir(manifest.file))
		if p := manifest.path; p != "" && within(manifest.file, p) {
			folders = append(folders, p)
			self[p] = true
		}
	}
	for folder := range m.references {
		if len(m.holds(folder)) > 0 {
			folders = append(folders, folder)
		}
	}
	slices.Sort(folders)
	folders = slices.Compact(folders)
	reach := map[string]reached{}
	for _, f := range folders {
		reach[f] = m.reach(f)
	}
	// leads reports whether a run of one folder comes to another. Overlays
	// may share all their manifests, and are apart all the same.
	leads := func(from, to string) bool {
		if _, listed := m.references[to]; listed {
			return reach[from].folders[to]
		}
		return reach[from].folders[to] || covers(reach[from].manifests, m.holds(to))
	}
	var candidates []Candidate
	for _, f := range folders {
		own := m.holds(f)
		if len(own) == 0 || slices.ContainsFunc(folders, func(other string) bool {
			return other != f && leads(other, f) && (!leads(f, other) || before(other, f, self))
		}) {
			continue
		}
		c := Candidate{Path: f, SelfReference: self[f]}
		for _, i := range own {
			if id := m.manifests[i].id; id.Name != "" {
				c.Kustomizations = append(c.Kustomizations, id)
			}
		}
		slices.SortFunc(c.Kustomizations, func(a, b flux.ID) int { return strings.Compare(a.String(), b.String()) })
		c.Kustomizations = slices.Compact(c.Kustomizations)
		candidates = append(candidates, c)
	}
	return candidates, nil
}

// before decides between two folders that lead to each other: a folder that is
// built by one of its own Kustomizations, then the shorter path.
func before(a, b string, self map[string]bool) bool {
	rank := func(f string) int {
		if self[f] {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(len(a), len(b)), strings.Compare(a, b)) < 0
}

func covers(reach map[int]bool, own []int) bool {
	return !slices.ContainsFunc(own, func(i int) bool { return !reach[i] })
}

// within reports whether a file is in a folder or below it.
func within(file, folder string) bool {
	return folder == "." || strings.HasPrefix(file, folder+"/")
}

// manifest is a Kustomization manifest as it stands in a file.
type manifest struct {
	file string
	id   flux.ID
	// path is the folder it points to, see repositoryPath.
	path string
}

// overview is what the files of a tree say.
type overview struct {
	manifests []manifest
	// references are what each folder's kustomization file names: files and
	// folders. Folders without such a file are not in it.
	references map[string][]string
	held       map[string][]int
}

// kustomizationFiles are the names of kustomization files (S2.1).
var kustomizationFiles = []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}

// What a repository may hold for entry folders to be proposed: who has more, or
// says to have it by a few folders that hold the same ones many times, names the
// folder.
const (
	maxEntries      = 500_000 // files and folders
	maxKnown        = 10_000  // folders with a kustomization file, and manifests
	maxManifest     = 2 << 20 // bytes of a file; larger ones hold something else
	tooManyToSearch = "the repository is too large to be searched for entry folders: it holds more than %d %s"
)

func survey(tree fs.FS) (*overview, error) {
	m := &overview{references: map[string][]string{}, held: map[string][]int{}}
	seen := 0
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("looking for Kustomizations: %w", err)
		}
		if seen++; seen > maxEntries {
			return fmt.Errorf(tooManyToSearch, maxEntries, "files and folders")
		}
		if len(m.references)+len(m.manifests) > maxKnown {
			return fmt.Errorf(tooManyToSearch, maxKnown, "Kustomizations and kustomization files")
		}
		if e.IsDir() {
			if e.Name() == ".git" {
				return fs.SkipDir
			}
			return nil
		}
		ext := path.Ext(name)
		kustomization := slices.Contains(kustomizationFiles, e.Name())
		if !e.Type().IsRegular() || ext != ".yaml" && ext != ".yml" && !kustomization {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("looking for Kustomizations: %w", err)
		}
		if info.Size() > maxManifest {
			return nil
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return fmt.Errorf("looking for Kustomizations: %w", err)
		}
		if kustomization {
			m.kustomization(name, data)
			return nil
		}
		m.read(name, data)
		return nil
	})
	return m, err
}

// read notes the Kustomization manifests of a file.
func (m *overview) read(name string, data []byte) {
	if !bytes.Contains(data, []byte(flux.Group)) {
		return
	}
	docs, _ := documents(data) // a broken file is the build's to report
	for _, d := range docs {
		group, _, _ := strings.Cut(scalar(d, "apiVersion"), "/")
		if group != flux.Group || scalar(d, "kind") != flux.KustomizationKind {
			continue
		}
		found := manifest{file: name}
		if _, metadata := lookUp(d, "metadata"); metadata != nil {
			found.id = flux.ID{Namespace: scalar(metadata, "namespace"), Name: scalar(metadata, "name")}
		}
		if _, spec := lookUp(d, "spec"); spec != nil {
			source := ""
			if _, ref := lookUp(spec, "sourceRef"); ref != nil {
				source = scalar(ref, "name")
			}
			found.path = repositoryPath(scalar(spec, "path"), source)
		}
		m.manifests = append(m.manifests, found)
	}
}

// repositoryPath returns the folder that a manifest points to, "" if that is
// not known. The root is believed to be this repository's only for the source
// that flux bootstrap makes: a Kustomization of another repository often has no
// path at all.
func repositoryPath(p, source string) string {
	clean := flux.CleanPath(p)
	if strings.Contains(p, "${") || clean == "." && source != bootstrapName {
		return ""
	}
	return clean
}

// kustomization notes what a kustomization file names.
func (m *overview) kustomization(name string, data []byte) {
	dir := path.Dir(name)
	if _, known := m.references[dir]; known {
		return
	}
	m.references[dir] = nil
	docs, _ := documents(data) // as above
	if len(docs) == 0 {
		return
	}
	for _, field := range []string{"resources", "bases", "components"} {
		_, list := lookUp(docs[0], field)
		if list == nil || list.Kind != yaml.SequenceNode {
			continue
		}
		for _, n := range list.Content {
			if target := path.Join(dir, n.Value); n.Kind == yaml.ScalarNode && n.Value != "" && !strings.HasPrefix(target, "..") {
				m.references[dir] = append(m.references[dir], target)
			}
		}
	}
}

// holds returns the manifests in the build of a folder, as indexes, sorted.
func (m *overview) holds(folder string) []int {
	if known, ok := m.held[folder]; ok {
		return known
	}
	m.held[folder] = nil // ends a cycle of folders, which no build has
	var own []int
	references, listed := m.references[folder]
	if listed {
		for _, r := range references {
			own = append(own, m.in(r)...)
			own = append(own, m.holds(r)...)
		}
	} else {
		for i, manifest := range m.manifests {
			if within(manifest.file, folder) && m.nearest(manifest.file, folder) == "" {
				own = append(own, i)
			}
		}
		for sub := range m.references {
			if sub != folder && within(sub, folder) && m.nearest(sub, folder) == "" {
				own = append(own, m.holds(sub)...)
			}
		}
	}
	slices.Sort(own)
	own = slices.Compact(own)
	m.held[folder] = own
	return own
}

// in returns the manifests of one file.
func (m *overview) in(file string) []int {
	var own []int
	for i, manifest := range m.manifests {
		if manifest.file == file {
			own = append(own, i)
		}
	}
	return own
}

// nearest returns a folder with a kustomization file strictly between the
// folder and the name below it; "" if there is none.
func (m *overview) nearest(name, folder string) string {
	for dir := path.Dir(name); dir != folder && dir != "."; dir = path.Dir(dir) {
		if _, ok := m.references[dir]; ok {
			return dir
		}
	}
	return ""
}

// reached is what a run of a folder comes to.
type reached struct {
	manifests map[int]bool
	folders   map[string]bool
}

// reach follows the builds and the paths from a folder on.
func (m *overview) reach(folder string) reached {
	r := reached{map[int]bool{}, map[string]bool{}}
	m.visit(folder, r.folders)
	queue := m.holds(folder)
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		if r.manifests[i] {
			continue
		}
		r.manifests[i] = true
		if p := m.manifests[i].path; p != "" {
			m.visit(p, r.folders)
			queue = append(slices.Clip(queue), m.holds(p)...)
		}
	}
	return r
}

// visit adds the folders of a build.
func (m *overview) visit(folder string, folders map[string]bool) {
	if folders[folder] {
		return
	}
	folders[folder] = true
	if references, listed := m.references[folder]; listed {
		for _, r := range references {
			m.visit(r, folders)
		}
		return
	}
	for _, manifest := range m.manifests {
		if within(manifest.file, folder) && m.nearest(manifest.file, folder) == "" {
			folders[path.Dir(manifest.file)] = true
		}
	}
	for sub := range m.references {
		if sub != folder && within(sub, folder) && m.nearest(sub, folder) == "" {
			m.visit(sub, folders)
		}
	}
}
