# A real Kubernetes control plane on this machine, see docs/test-cluster.md.

CLUSTER_DIR ?= .cluster

.PHONY: cluster cluster-down cluster-build

cluster: ## start the test cluster in the background; use it with KUBECONFIG=.cluster/kubeconfig
	@go run ./cmd/kubetest up --dir $(CLUSTER_DIR)

cluster-down: ## stop the test cluster and remove its files
	@go run ./cmd/kubetest down --dir $(CLUSTER_DIR)

cluster-build: ## build the programs of the test cluster, once; takes some minutes
	@go run ./cmd/kubetest build
