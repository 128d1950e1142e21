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
	// Chain makes each Kustomization depend on the one before and wait for
	// its first Deployment (spec.healthChecks). Without it none depends on
	// another and none says what to wait for.
	Chain bool
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
	changes := []gittest.Change{readme(0)}
	for i := range o.Kustomizations {
		changes = append(changes, gittest.File(fmt.Sprintf("%s/%s.yaml", Entry, name(i)), kustomization(i, o)))
		var list strings.Builder
		list.WriteString("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n")
		for j := range o.Objects {
			file, content := object(i, j, o, firstTag)
			fmt.Fprintf(&list, "- %s\n", file)
			changes = append(changes, gittest.File(folder(i)+file, content))
		}
		changes = append(changes, gittest.File(folder(i)+"kustomization.yaml", list.String()))
	}
	r := &Repository{Dir: git.Dir, options: o, git: git}
	return r, r.commit(fmt.Sprintf("%d Kustomizations of %d objects", o.Kustomizations, o.Objects), changes...)
}

// CommitNothing adds a commit that changes no manifest.
func (r *Repository) CommitNothing() error {
	return r.commit("nothing that a cluster would see", readme(r.commits))
}

// CommitImage adds a commit that changes the image of the first Deployment of
// the first Kustomization, to another one each time.
func (r *Repository) CommitImage() error {
	tag := fmt.Sprintf("v1.0.%d", r.commits)
	file, content := object(0, 1, r.options, tag)
	return r.commit("app-0000 "+tag, gittest.File(folder(0)+file, content))
}

func (r *Repository) commit(message string, changes ...gittest.Change) error {
	if _, err := r.git.Commit(message, changes...); err != nil {
		return err
	}
	r.commits++
	// A checkout is what a CI job has, so it belongs to what is measured.
	return r.git.Checkout()
}

func readme(commit int) gittest.Change {
	return gittest.File("README.md", fmt.Sprintf("# A generated repository\n\nCommit %d. Its entry folder is %s.\n", commit, Entry))
}

func name(i int) string   { return fmt.Sprintf("app-%04d", i) }
func folder(i int) string { return "apps/" + name(i) + "/" }

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
	if !o.Chain {
		return b.String()
	}
	if i > 0 {
		fmt.Fprintf(&b, "  dependsOn:\n    - name: %s\n", name(i-1))
	}
	fmt.Fprintf(&b, `  healthChecks:
    - apiVersion: apps/v1
      kind: Deployment
      name: deployment-0001
      namespace: %s
`, name(i))
	return b.String()
}
