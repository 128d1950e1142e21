package build

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"

	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/sluicerun/sluice/internal/flux"
)

// remoteBases returns a problem for everything in the build that kustomize
// would fetch: repositories that it would clone and files that it would
// download (S2.34). Flux stops at the clones only, after they have been made;
// here nothing is fetched.
func (b *builder) remoteBases(k kustypes.Kustomization) error {
	r := &remotes{b: b, seen: map[string]bool{}}
	if b.generated {
		for _, entry := range k.Resources {
			r.folder(path.Join(b.k.Path(), entry))
		}
	} else {
		r.folder(b.k.Path())
	}
	for i, g := range b.k.Extra.ConfigMapGenerator {
		var n yaml.Node
		if err := n.Encode(g); err != nil {
			continue // it has been read, so there is nothing to say about it
		}
		sources(&n, func(n *yaml.Node) {
			if n != nil {
				r.name("", b.k.File, fmt.Sprintf("spec.configMapGenerator[%d]", i), &yaml.Node{Value: n.Value, Line: b.k.Line})
			}
		})
	}
	return flux.JoinProblems(r.problems)
}

// remotes looks for what is remote in the files of a build, following what is
// local. What cannot be read is passed over: kustomize will say so.
type remotes struct {
	b        *builder
	seen     map[string]bool
	problems []*flux.Problem
}

// folder looks at the kustomization file of a folder, if it has one.
func (r *remotes) folder(dir string) {
	if r.seen[dir] {
		return
	}
	r.seen[dir] = true
	for _, name := range kustomizationFiles {
		file := path.Join(dir, name)
		data, err := r.b.tree.glance(file)
		if err != nil {
			continue
		}
		docs, err := documents(data)
		if err != nil || len(docs) == 0 {
			return
		}
		references(docs[0], func(field string, n *yaml.Node, folders bool) {
			if local := r.name(dir, file, field, n); local != "" && folders {
				r.folder(local)
			}
		})
		for _, field := range []string{"generators", "transformers", "validators"} {
			for _, n := range entries(docs[0], field) {
				if inline(n) {
					r.plugins(dir, file, field, []byte(n.Value), n.Line)
				} else if local := r.name(dir, file, field, n); local != "" {
					r.folder(local)
					if data, err := r.b.tree.glance(local); err == nil {
						r.plugins(dir, local, field, data, 0)
					}
				}
			}
		}
		return
	}
}

// plugins looks at the configuration of generators and transformers, which may
// stand inside a file: then line is where, and its own lines do not count.
func (r *remotes) plugins(dir, file, field string, data []byte, line int) {
	docs, err := documents(data)
	if err != nil {
		return
	}
	for _, d := range docs {
		visit := func(n *yaml.Node) {
			if n == nil {
				return
			}
			at := *n
			if line > 0 {
				at.Line = line
			}
			r.name(dir, file, field, &at)
		}
		sources(d, visit)
		for _, n := range fields(d, "path", 0) {
			visit(n)
		}
		for _, n := range entries(d, "paths") {
			visit(n)
		}
		for _, n := range entries(d, "replacements") {
			for _, at := range fields(n, "path", 0) {
				visit(at)
			}
		}
	}
}

// name looks at one name. It returns the path in the tree of what is local.
func (r *remotes) name(dir, file, field string, n *yaml.Node) (local string) {
	if n == nil || n.Value == "" {
		return ""
	}
	local = path.Join(dir, n.Value)
	if !r.remote(local, n.Value) {
		return local
	}
	r.problems = append(r.problems, &flux.Problem{
		Kustomization: r.b.k.ID,
		File:          file,
		Line:          n.Line,
		Err:           fmt.Errorf("%s: %q is remote, which --no-remote-bases forbids", field, redacted(n.Value)),
		Remedy:        "copy it into the repository, or leave --no-remote-bases out",
	})
	return ""
}

// Kustomize's idea of what it can clone. A name without a scheme needs GitHub's
// name, or a user and, after the host, more than one folder; that it is a file
// of the tree comes first.
var (
	schemed   = regexp.MustCompile(`(?i)^(git::)?(ssh|https?|file)://`)
	shortened = regexp.MustCompile(`(?i)^(git::)?(([a-z][a-z0-9-]*@)?github\.com[/:].|[a-z][a-z0-9-]*@[^/:]+[/:].*(/|\.git))`)
)

func (r *remotes) remote(local, name string) bool {
	if schemed.MatchString(name) {
		return true
	}
	if !shortened.MatchString(name) {
		return false
	}
	info, err := r.b.tree.stat(local)
	return err != nil || info.IsDir()
}

// fetches reports whether the build has fetched anything, or could have.
func (b *builder) fetches(manifest kustypes.Kustomization) bool {
	return b.tree.cloned || b.remoteBases(manifest) != nil
}

// redacted is a name without the password that a URL may hold.
func redacted(name string) string {
	if !strings.Contains(name, "@") {
		return name
	}
	if u, err := url.Parse(name); err == nil {
		return u.Redacted()
	}
	return name
}

// permitted refuses what is no remote base, though git would fetch it: a folder of
// the machine, and a name that git would take for an option, such as one that says
// which program to run. It sees what remote bases name as well.
func (b *builder) permitted(file, field, entry string) {
	name := entry
	if len(name) >= 5 && strings.EqualFold(name[:5], "git::") {
		name = name[5:]
	}
	if len(name) >= 7 && strings.EqualFold(name[:7], "file://") {
		refuse(file, "a build can only read files of its own repository: copy it into the repository",
			"%s: %q is a place on the machine that builds", field, entry)
	}
	_, query, _ := strings.Cut(name, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return // then kustomize does not read it either
	}
	for _, key := range []string{"ref", "version"} {
		if strings.HasPrefix(values.Get(key), "-") {
			refuse(file, "name a branch, a tag or a commit", "%s: %q: the %s is no name that Git admits", field, redacted(entry), key)
		}
	}
}
