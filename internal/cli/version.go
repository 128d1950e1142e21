package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

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
