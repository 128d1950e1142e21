package bench

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sluicerun/sluice/internal/gittest"
)

const (
	// Entry is the entry folder of a generated repository, as sluice run
	// --path takes it.
	Entry = "clusters/bench"

	// namespace is where the Kustomizations are.
	namespace = "flux-system"

	// firstTag is the tag of all images until a commit changes one.
	firstTag = "v1.0.0"
)

// Options say what repository is wanted. There are no defaults: a size that
// is not set is an error.
type Options struct {
	// Kustomizations is their number, at least 1. They are named app-0000
	// and so on, each with a folder and a namespace of the same name.
	Kustomizations int
	// Objects is how many objects each Kustomization has, at least 2: its
	// Namespace, then a Deployment, then ConfigMaps, ServiceAccounts,
	// Services, Roles, RoleBindings and more Deployments in a fixed mix.
	Objects int
	// Layers divides the Kustomizations evenly: each one depends on all of
	// the layer before, and waits for its own first Deployment
	// (spec.healthChecks). As many layers as Kustomizations are a chain. With
	// 0 none depends on another and none says what to wait for.
	Layers int
	// Replicas of every Deployment. With 0 no pods are made: the cluster
	// then does next to nothing by itself.
	Replicas int
}

func (o Options) check() error {
	var errs []error
	if o.Kustomizations < 1 {
		errs = append(errs, fmt.Errorf("%d Kustomizations: there must be at least 1", o.Kustomizations))
	}
	if o.Objects < 2 {
		errs = append(errs, fmt.Errorf("%d objects per Kustomization: there must be at least 2, a Namespace and a Deployment", o.Objects))
	}
	if o.Layers < 0 || o.Layers > o.Kustomizations {
		errs = append(errs, fmt.Errorf("%d layers of %d Kustomizations: there can be none, or at most one for each", o.Layers, o.Kustomizations))
	}
	if o.Replicas < 0 {
		errs = append(errs, fmt.Errorf("%d replicas: the number cannot be negative", o.Replicas))
	}
	return errors.Join(errs...)
}

// Generate makes a Git repository with one commit in dir, which is created if
// need be and must not hold a repository, and checks it out there. The same
// options give the same commit hash everywhere.
func Generate(dir string, o Options) error {
	_, err := New(dir, o)
	return err
}

// Repository is a generated repository that further commits can be added to.
// It is not safe for concurrent use.
type Repository struct {
	// Dir is its folder, absolute.
	Dir string

	options Options
	git     *gittest.Repo
	commits int
	head    string // the last commit
	tag     string // of the image of the first Deployment of app-0000
	added   int    // Kustomizations by CommitKustomization
}

// New does what [Generate] does and returns the repository.
func New(dir string, o Options) (*Repository, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	git, err := gittest.Create(dir)
	if err != nil {
		return nil, err
	}
	r := &Repository{Dir: git.Dir, options: o, git: git, tag: firstTag}
	changes := []gittest.Change{readme(0)}
	for i := range o.Kustomizations {
		changes = append(changes, r.files(i)...)
	}
	return r, r.commit(fmt.Sprintf("%d Kustomizations of %d objects", o.Kustomizations, o.Objects), changes...)
}

// CommitNothing adds a commit that changes no manifest.
func (r *Repository) CommitNothing() error {
	return r.commit("nothing that a cluster would see", readme(r.commits))
}

// CommitImage adds a commit that changes the image of the first Deployment of
// the first Kustomization, to another one each time.
func (r *Repository) CommitImage() error {
	r.tag = fmt.Sprintf("v1.0.%d", r.commits)
	first := r.manifests(0)[1]
	return r.commit(name(0)+" "+r.tag, gittest.File(folder(0)+first.file, first.content))
}

// maxAdded is how many objects an added Kustomization has at most. Where a
// repository has few large ones, an addition as large as those would be
// nothing but a second installation.
const maxAdded = 20

// CommitKustomization adds a commit with one Kustomization more, of at most 20
// objects. In a repository with layers it depends on all of the last one.
func (r *Repository) CommitKustomization() error {
	i := r.count()
	r.added++
	return r.commit("add "+name(i), r.files(i)...)
}

// Head is the hash of the last commit.
func (r *Repository) Head() string { return r.head }

// At checks out a commit as a CI job does: HEAD is detached. Further commits
// would leave the branch, so all are made before.
func (r *Repository) At(commit string) error {
	if err := r.git.Detach(commit); err != nil {
		return err
	}
	return r.git.Checkout()
}

func (r *Repository) count() int { return r.options.Kustomizations + r.added }

func (r *Repository) commit(message string, changes ...gittest.Change) error {
	head, err := r.git.Commit(message, changes...)
	if err != nil {
		return err
	}
	r.head = head
	r.commits++
	// A checkout is what a CI job has, so it belongs to what is measured.
	return r.git.Checkout()
}

// files are those of the i-th Kustomization: itself, and its folder.
func (r *Repository) files(i int) []gittest.Change {
	changes := []gittest.Change{gittest.File(fmt.Sprintf("%s/%s.yaml", Entry, name(i)), kustomization(i, r.options))}
	for _, m := range r.folder(i) {
		changes = append(changes, gittest.File(folder(i)+m.file, m.content))
	}
	return changes
}

// folder is what kustomize builds: the manifests, and the list of them.
func (r *Repository) folder(i int) []manifest {
	manifests := r.manifests(i)
	var list strings.Builder
	list.WriteString("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n")
	for _, m := range manifests {
		fmt.Fprintf(&list, "- %s\n", m.file)
	}
	return append(manifests, manifest{"kustomization.yaml", list.String()})
}

// manifest is a file of a Kustomization's folder.
type manifest struct{ file, content string }

func (r *Repository) manifests(i int) []manifest {
	n := r.options.Objects
	if i >= r.options.Kustomizations {
		n = min(n, maxAdded)
	}
	list := make([]manifest, n)
	for j := range list {
		tag := firstTag
		if i == 0 && j == 1 {
			tag = r.tag
		}
		list[j] = object(i, j, r.options, tag)
	}
	return list
}

func readme(commit int) gittest.Change {
	return gittest.File("README.md", fmt.Sprintf("# A generated repository\n\nCommit %d. Its entry folder is %s.\n", commit, Entry))
}

func name(i int) string   { return fmt.Sprintf("app-%04d", i) }
func folder(i int) string { return "apps/" + name(i) + "/" }

// layer is the one that the i-th Kustomization is in. An added one is in a
// layer of its own after the last.
func (o Options) layer(i int) int { return min(i*o.Layers/o.Kustomizations, o.Layers) }

func kustomization(i int, o Options) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: %s
  namespace: %s
spec:
  interval: 10m
  timeout: 2m
  prune: true
  path: ./apps/%s
  sourceRef:
    kind: GitRepository
    name: flux-system
`, name(i), namespace, name(i))
	if o.Layers == 0 {
		return b.String()
	}
	if o.layer(i) > 0 {
		b.WriteString("  dependsOn:\n")
	}
	for before := range min(i, o.Kustomizations) {
		if o.layer(before) == o.layer(i)-1 {
			fmt.Fprintf(&b, "    - name: %s\n", name(before))
		}
	}
	fmt.Fprintf(&b, `  healthChecks:
    - apiVersion: apps/v1
      kind: Deployment
      name: deployment-0001
      namespace: %s
`, name(i))
	return b.String()
}
