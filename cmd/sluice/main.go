// Command sluice runs Flux Kustomizations from a CI job: see the README.
package main

import (
	"context"
	"os"

	"github.com/sluicerun/sluice/internal/cli"
)

func main() {
	ctx, stop := cli.Signals(context.Background())
	code := cli.Main(ctx, os.Args, cli.System{
		Getenv: os.Getenv,
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
	})
	stop()
	os.Exit(code)
}
