//go:build unix

package kubetest

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// contextName is the name of the cluster and of the context in every kubeconfig that this package writes.
const contextName = "kubetest"

// writeKubeconfig writes a self-contained kubeconfig to path, readable by its owner only. It replaces the file in one step.
func writeKubeconfig(path, server string, ca []byte, user string, client pair) error {
	config := clientcmdapi.NewConfig()
	config.Clusters[contextName] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: client.cert, ClientKeyData: client.key}
	config.Contexts[contextName] = &clientcmdapi.Context{Cluster: contextName, AuthInfo: user, Namespace: "default"}
	config.CurrentContext = contextName
	data, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode the kubeconfig of %q: %w", user, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".kubeconfig-")
	if err != nil {
		return fmt.Errorf("write the kubeconfig of %q: %w", user, err)
	}
	defer os.Remove(tmp.Name()) // gone already if the rename worked
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return fmt.Errorf("write the kubeconfig of %q: %w", user, err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("write the kubeconfig of %q: %w", user, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write the kubeconfig of %q: %w", user, err)
	}
	return nil
}
