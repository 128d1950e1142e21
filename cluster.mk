# A real Kubernetes control plane on this machine, see docs/test-cluster.md.

CLUSTER_DIR ?= .cluster

# Built with the flags of bin/sluice, so that the Kubernetes libraries are
# compiled once for both.
KUBETEST = CGO_ENABLED=0 $(GO) run -trimpath ./cmd/kubetest

.PHONY: cluster cluster-down cluster-build

cluster: ## start the test cluster in the background; use it with KUBECONFIG=.cluster/kubeconfig
	@$(KUBETEST) up --dir $(CLUSTER_DIR)
	@echo "or, here: make cluster-down"

cluster-down: ## stop the test cluster and remove its files
	@$(KUBETEST) down --dir $(CLUSTER_DIR)

cluster-build: ## build the programs of the test cluster, once; takes some minutes
	@echo "the test cluster: compiling the tool that builds and starts it"
	@$(KUBETEST) build
