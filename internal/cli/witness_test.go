package cli_test

import (
	"fmt"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// witness writes a kubeconfig that leads to the first cluster by way of a proxy, which sees every request.
func witness(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: witness FILE")
	}
	c := ts.Value("clusters").(map[string]*kubetest.Cluster)[""]
	if c == nil {
		ts.Fatalf("no cluster: start one with the command cluster")
	}
	p, err := proxy.Start(c.Config())
	ts.Check(err)
	ts.Defer(func() { ts.Check(p.Close()) })
	ts.Check(p.WriteKubeconfig(ts.MkAbs(args[0])))
	witnesses := ts.Value("witnesses").(map[string]*proxy.Proxy)
	witnesses[""] = p
}

// writes prints every request that the witness saw and that was to change something, or "nothing". That nothing went by way
// of it is an error: then it has seen nothing.
func writes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: writes")
	}
	p := ts.Value("witnesses").(map[string]*proxy.Proxy)[""]
	if p == nil {
		ts.Fatalf("no witness: make one with the command witness")
	}
	requests := p.Take()
	if len(requests) == 0 {
		ts.Fatalf("no request has come by way of the witness")
	}
	writing := proxy.Writing(requests)
	if len(writing) == 0 {
		fmt.Fprintln(ts.Stdout(), "nothing")
	}
	for _, request := range writing {
		fmt.Fprintln(ts.Stdout(), request)
	}
}
