//go:build unix

package kubetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// component is one of the programs that make up a cluster.
type component struct {
	name string // of the file, as envtest and the Kubernetes releases name it
	pkg  string // the main package, named by a tool directive of the nested module
}

// components in the order in which they are built: etcd first because it is small and shows early that building works.
var components = []component{
	{"etcd", "go.etcd.io/etcd/server/v3"},
	{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
	{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
	{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"},
	{"kwok", "sigs.k8s.io/kwok/cmd/kwok"},
}

const (
	modulePath = "github.com/sluicerun/sluice" // of the main module, which holds the nested one
	nestedDir  = "internal/kubetest/binaries"  // of the nested module, within the main one
	goFlags    = "-mod=readonly"               // the nested go.mod and go.sum say it all; a build never changes them
)

// binaries tells where the programs of a cluster are.
type binaries struct {
	path map[string]string // component name → absolute path of a complete program
}

// Build makes sure that the programs of a cluster exist and returns their paths by name (etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler, kwok). What is missing is built into the user's cache folder, which takes minutes;
// progress, the program and the seconds spent, is written to progress about every 10 seconds.
//
// If the environment variable KUBEBUILDER_ASSETS names a folder, the programs in it are used. An envtest bundle holds only some
// of them; the others are built, and progress says which. A folder that is not there is an error.
//
// Build may be called by several processes at once: one builds, the others say for whom they wait.
func Build(ctx context.Context, progress io.Writer) (map[string]string, error) {
	b, err := ensureBinaries(ctx, os.Getenv("KUBEBUILDER_ASSETS"), progress)
	if err != nil {
		return nil, err
	}
	return b.path, nil
}

func ensureBinaries(ctx context.Context, assets string, progress io.Writer) (*binaries, error) {
	found, missing, err := fromAssets(assets)
	if err != nil || len(missing) == 0 {
		return &binaries{path: found}, err
	}
	if assets != "" {
		fmt.Fprintf(progress, "kubetest: KUBEBUILDER_ASSETS=%s lacks %s: building what is missing\n", assets, strings.Join(names(missing), ", "))
	}
	module, err := locateModule()
	if err != nil {
		return nil, err
	}
	root, err := cacheRoot()
	if err != nil {
		return nil, err
	}
	spec, err := newBuildSpec(ctx, module, root)
	if err != nil {
		return nil, err
	}
	s := store{dir: filepath.Join(root, spec.key()), build: spec.build, progress: progress}
	built, err := s.ensure(ctx, missing)
	if err != nil {
		return nil, err
	}
	for name, path := range built {
		found[name] = path
	}
	return &binaries{path: found}, nil
}

// fromAssets returns the programs that are in the folder assets, which may be "", and those that are not.
func fromAssets(assets string) (found map[string]string, missing []component, err error) {
	found = map[string]string{}
	if assets == "" {
		return found, components, nil
	}
	assets, err = filepath.Abs(assets)
	if err != nil {
		return nil, nil, fmt.Errorf("KUBEBUILDER_ASSETS: %w", err)
	}
	if info, err := os.Stat(assets); err != nil || !info.IsDir() {
		return nil, nil, fmt.Errorf("KUBEBUILDER_ASSETS names %q, which is not a folder: correct it or unset it, then the programs are built", assets)
	}
	for _, c := range components {
		path := filepath.Join(assets, c.name)
		if isProgram(path) {
			found[c.name] = path
		} else {
			missing = append(missing, c)
		}
	}
	return found, missing, nil
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func names(cs []component) []string {
	out := make([]string, len(cs))
	for i, c := range cs {
		out[i] = c.name
	}
	return out
}

// locateModule finds the nested module. It is a real module and not an embedded copy, so that there is one place to update and
// tools that watch dependencies see it; go:embed cannot reach into another module. Tests and `go run` have their working
// directory inside the checkout, so walking up from it finds the module without asking the go command; a program that was built
// from the checkout and is run elsewhere knows the place from its debug information, unless it was built with -trimpath.
func locateModule() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.Contains(data, []byte("module "+modulePath+"\n")) {
			return filepath.Join(dir, filepath.FromSlash(nestedDir)), nil
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		dir := filepath.Join(filepath.Dir(file), "binaries")
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%q is not inside a checkout of %s, whose folder %s pins the programs of the test cluster: run it from there, "+
		"or set KUBEBUILDER_ASSETS to a folder that holds %s", wd, modulePath, nestedDir, strings.Join(names(components), ", "))
}

// cacheRoot is the folder that holds one folder of programs per build specification.
func cacheRoot() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w; set HOME or XDG_CACHE_HOME", err)
	}
	return filepath.Join(cache, "sluice", "kubetest"), nil
}

// buildSpec is all that decides what the programs are.
type buildSpec struct {
	module    string // folder of the nested module
	root      string // of the cache
	ldflags   string
	goVersion string
	sources   []byte // go.mod and go.sum
}

// newBuildSpec asks the nested module for its versions. It fails if there is no go command.
func newBuildSpec(ctx context.Context, module, root string) (*buildSpec, error) {
	spec := &buildSpec{module: module, root: root}
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return nil, fmt.Errorf("read what pins the programs of the test cluster: %w", err)
		}
		spec.sources = append(spec.sources, data...)
	}
	out, err := spec.goCommand(ctx, "env", "GOVERSION").Output()
	if err != nil {
		return nil, fmt.Errorf("ask for the Go version: %w; the programs of the test cluster are built from source, so Go must be on the PATH", explain(err))
	}
	spec.goVersion = strings.TrimSpace(string(out))

	kubernetes, err := requiredVersion(spec.sources, "k8s.io/kubernetes")
	if err != nil {
		return nil, err
	}
	major, minor, err := majorMinor(kubernetes)
	if err != nil {
		return nil, err
	}
	// Without a stamp Kubernetes calls itself v0.0.0-master+$Format:%H$, and clients that look at the version go wrong. Symbols
	// (-s) and debug information (-w) are left out: nobody debugs these programs, and linking takes half the time.
	const version = "k8s.io/component-base/version."
	spec.ldflags = "-s -w -X " + version + "gitVersion=" + kubernetes + " -X " + version + "gitMajor=" + major +
		" -X " + version + "gitMinor=" + minor + " -X " + version + "gitTreeState=clean"
	return spec, nil
}

// key names the folder of the programs: whatever could change them changes it.
func (s *buildSpec) key() string {
	h := sha256.New()
	fmt.Fprintln(h, s.goVersion, runtime.GOOS, runtime.GOARCH, goFlags, s.ldflags)
	for _, c := range components {
		fmt.Fprintln(h, c.name, c.pkg)
	}
	h.Write(s.sources)
	return hex.EncodeToString(h.Sum(nil))[:20]
}

// goCommand is the go command in the nested module, shielded from the flags of whoever called it.
func (s *buildSpec) goCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = s.module
	cmd.Env = append(os.Environ(), "GOFLAGS="+goFlags, "GOWORK=off", "CGO_ENABLED=0", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	// Where there is no home folder, as in some containers, Go has no default for its caches.
	for name, dir := range map[string]string{"GOCACHE": "gocache", "GOPATH": "gopath"} {
		if os.Getenv("HOME") == "" && os.Getenv(name) == "" {
			cmd.Env = append(cmd.Env, name+"="+filepath.Join(s.root, dir))
		}
	}
	return cmd
}

// build builds one program into the file output. What the go command prints goes to log, one line per compiled package.
func (s *buildSpec) build(ctx context.Context, c component, output string, log io.Writer) error {
	var tail tailBuffer
	cmd := s.goCommand(ctx, "build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", s.ldflags, "-o", output, c.pkg)
	cmd.Stdout, cmd.Stderr = log, io.MultiWriter(log, &tail)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("go build %s: %w:\n%s", c.pkg, err, tail.String())
	}
	return nil
}

// requiredVersion reads the version of a module from the text of a go.mod.
func requiredVersion(goMod []byte, module string) (string, error) {
	for line := range strings.Lines(string(goMod)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) >= 2 && fields[0] == module && strings.HasPrefix(fields[1], "v") {
			return fields[1], nil
		}
	}
	return "", fmt.Errorf("%s/go.mod does not require %s", nestedDir, module)
}

func majorMinor(version string) (major, minor string, err error) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) != 3 {
		return "", "", fmt.Errorf("%s/go.mod: %q is not a version like v1.2.3", nestedDir, version)
	}
	return parts[0], parts[1], nil
}

// explain adds what a command wrote to its standard error, which exec.ExitError keeps but does not show.
func explain(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}

// tailBuffer keeps the last bytes written to it.
type tailBuffer struct{ data []byte }

const tailSize = 4 << 10

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.data = append(b.data, p...)
	if extra := len(b.data) - tailSize; extra > 0 {
		b.data = append(b.data[:0], b.data[extra:]...)
	}
	return len(p), nil
}

func (b *tailBuffer) String() string { return strings.TrimSpace(string(b.data)) }
