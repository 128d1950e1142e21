package cli

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/urfave/cli/v2"
)

// version is set by the linker for releases (-X …/internal/cli.version=v1.2.3).
var version = ""

// Version returns the release's version, or what the Go toolchain knows of a
// build that is none: the module's version, else the commit, else "devel".
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

// program tells this program from every other build of sluice: by what the
// toolchain noted of it, with the versions of all libraries and the commit. One
// that is not of a commit, or not of that alone, is told apart by its own file.
func program() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Version() + " " + executable()
	}
	known := version
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && known == "":
			known = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			return Version() + " " + info.String() + executable()
		}
	}
	if known == "" {
		return Version() + " " + info.String() + executable()
	}
	return Version() + " " + info.String()
}

// executable is the digest of the file that runs, or what only this process can
// have.
var executable = sync.OnceValue(func() string {
	name, err := os.Executable()
	if err != nil {
		return identity()
	}
	file, err := os.Open(name)
	if err != nil {
		return identity()
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return identity()
	}
	return fmt.Sprintf("sha256:%x", sum.Sum(nil))
})

// libraries are those whose versions decide how sluice behaves.
var libraries = []string{
	"sigs.k8s.io/kustomize/api", "github.com/fluxcd/pkg/ssa", "k8s.io/client-go", "github.com/go-git/go-git/v5",
}

func versionCommand(sys System) *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version of sluice, of Go, and of the libraries that decide its behaviour",
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("version", "version takes no arguments, got %q", c.Args().First())
			}
			fmt.Fprintf(sys.Stdout, "sluice %s\n%s %s/%s\n", Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			info, ok := debug.ReadBuildInfo()
			if !ok {
				return nil
			}
			for _, want := range libraries {
				for _, dep := range info.Deps {
					if dep.Path == want {
						fmt.Fprintf(sys.Stdout, "%s %s\n", dep.Path, dep.Version)
					}
				}
			}
			return nil
		},
	}
}
