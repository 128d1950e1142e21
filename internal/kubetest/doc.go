// Package kubetest starts a real Kubernetes control plane for tests and demonstrations: etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler and KWOK, which plays the kubelets. Deployments roll out, Jobs complete, volumes are
// bound, and pods can be made to fail in documented ways (docs/test-cluster.md).
//
// Contract:
//
//   - The five programs are built once from the Go modules pinned in the nested module "binaries" and kept in the user's cache
//     folder. A half-finished build is never taken for a whole one, and two processes that build at once do not disturb each other.
//   - A cluster belongs to the process that started it. When that process ends, however it ends, nothing of the cluster is left
//     running and its folder is gone. Only a cluster started with Options.Detach outlives its starter.
//   - Nothing listens on anything but the loopback interface, and every port asks for a client certificate of the cluster's own
//     authority, except etcd's.
//
// A test needs two lines:
//
//	c := kubetest.Shared(t)               // one cluster per test binary, started by the first test that asks
//	namespace := kubetest.Namespace(t, c) // fresh, deleted when the test ends
//
// The package is for tests and for cmd/kubetest only; the product never imports it. It works on Linux and macOS.
package kubetest
