// Command generate writes a Git repository of Flux Kustomizations, to try
// sluice or another tool at a size of your choice:
//
//	go run ./internal/bench/generate --kustomizations 100 --objects 20 DIR
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/sluicerun/sluice/internal/bench"
)

func main() {
	var o bench.Options
	flags := flag.NewFlagSet("generate", flag.ExitOnError)
	flags.IntVar(&o.Kustomizations, "kustomizations", 100, "how many Kustomizations")
	flags.IntVar(&o.Objects, "objects", 20, "objects of each, its Namespace included")
	flags.IntVar(&o.Layers, "layers", 0, "each depends on all of the layer before and waits for a Deployment; as many as Kustomizations: a chain")
	flags.IntVar(&o.Replicas, "replicas", 0, "replicas of every Deployment")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: generate [flags] DIR")
		flags.PrintDefaults()
	}
	_ = flags.Parse(os.Args[1:]) // ExitOnError: it does not return an error
	if flags.NArg() != 1 {
		flags.Usage()
		os.Exit(64)
	}
	dir := flags.Arg(0)
	if err := bench.Generate(dir, o); err != nil {
		fmt.Fprintf(os.Stderr, "generate: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("%d Kustomizations of %d objects: sluice run --repo %s --path %s\n", o.Kustomizations, o.Objects, dir, bench.Entry)
}
