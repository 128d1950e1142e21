//go:build unix

package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sluicerun/sluice/internal/kubetest"
	"github.com/sluicerun/sluice/internal/kubetest/proxy"
)

// counts are requests by verb, one of proxy.Verbs.
type counts map[string]int

func (c counts) total() int {
	n := 0
	for _, requests := range c {
		n += requests
	}
	return n
}

// String tells all verbs that occurred, such as "list 7, apply 2000".
func (c counts) String() string {
	var parts []string
	for _, verb := range proxy.Verbs {
		if c[verb] > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", verb, thousands(c[verb])))
		}
	}
	return strings.Join(parts, ", ")
}

// counter counts for clients that are processes of their own. The API server's
// own metrics cannot tell one client's requests from those of the controllers.
// It takes some of the machine that the client and the server would have, so
// what is counted is not timed.
type counter struct {
	*proxy.Proxy
	kubeconfig string
}

// newCounter starts a counter; its kubeconfig is written to a file in dir.
func newCounter(c *kubetest.Cluster, dir string) (*counter, error) {
	p, err := proxy.Start(c.Config())
	if err != nil {
		return nil, err
	}
	count := &counter{p, filepath.Join(dir, "counted.kubeconfig")}
	if err := p.WriteKubeconfig(count.kubeconfig); err != nil {
		p.Close() // the error says more
		return nil, err
	}
	return count, nil
}
