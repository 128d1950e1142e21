package cluster

import (
	"k8s.io/client-go/discovery"

	"github.com/sluicerun/sluice/internal/cluster/schemas"
)

// Discovery returns a client that asks which kinds the server has, as the user
// of the kubeconfig or of Options.As. It keeps no answers.
func (c *Cluster) Discovery() (discovery.DiscoveryInterface, error) {
	return discovery.NewDiscoveryClientForConfigAndClient(c.config, c.http)
}

// Schemas returns a loader of the types of the server's kinds, which asks as
// the user of the kubeconfig or of Options.As. There is one for a cluster.
func (c *Cluster) Schemas() *schemas.Loader { return c.schemas }
