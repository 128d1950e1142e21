package cluster

import "k8s.io/client-go/discovery"

// Discovery returns a client that asks which kinds the server has, as the user
// of the kubeconfig or of Options.As. It keeps no answers.
func (c *Cluster) Discovery() (discovery.DiscoveryInterface, error) {
	return discovery.NewDiscoveryClientForConfigAndClient(c.config, c.http)
}
