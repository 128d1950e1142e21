# What a newcomer needs is Go, make and git; everything else is fetched and
# built by these targets.

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS = -s -w -X github.com/sluicerun/sluice/internal/cli.version=$(VERSION)
COMPARE = CGO_ENABLED=0 $(GO) run -trimpath ./internal/bench/compare

# How many packages are tested at once: the tests of each wait for clusters more
# than they compute.
PACKAGES ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))

.PHONY: help demo test test-long fuzz bench bench-huge bench-docs lint build clean
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: bin/sluice cluster-build ## deploy the sample repository to a throwaway cluster, three times
	@$(KUBETEST) run -- sh testdata/demo.sh

test: cluster-build ## run every test, against a real API server, with the race detector
	@echo "compiling and running the tests; the first time this compiles the Kubernetes libraries with the race detector, which takes minutes"
	$(GO) test -race -timeout 60m -p $(PACKAGES) ./...
	cd internal/upstream && $(GO) test -timeout 30m ./... # one goroutine, and hundreds of schemas to parse

test-long: cluster-build ## try random plans for as long as FOR says (default 30m; SEED=N starts at another), then disturb runs in every way, and fuzz: takes hours
	$(GO) test ./internal/plan -count 1 -v -timeout 0 -run TestProvenUnchangedImpliesNoChange -args -proof.for $(or $(FOR),30m) -proof.seed $(or $(SEED),$$(date +%s))
	$(GO) test ./internal/run -count 1 -v -timeout 0 -parallel 8 -run 'Test(Killed|Trouble)AtEachRequest' -args -run.everywhere
	$(GO) test ./internal/run -count 1 -v -timeout 0 -run TestOutagesDuringARun -args -outage.long
	$(GO) test ./internal/cli -count 1 -v -timeout 0 -run TestHostile -args -hostile.long
	$(GO) test ./internal/cli -count 1 -v -timeout 0 -run TestRunsAtOnce -args -twice.runs 10
	$(GO) test ./internal/cli -count 1 -v -timeout 1h -run TestSignalsAtRandomInstants -args -signals.instants 50 -signals.seed $(or $(SEED),$$(date +%s))
	$(MAKE) fuzz FUZZTIME=$(or $(FUZZTIME),1m)

# A package is compiled for each of its targets; one finding ends it, and leaves the
# input beside the test as a seed.
fuzz: ## run every fuzz target for FUZZTIME (default 10s); FUZZ=package/Target for some
	@set -e; for module in . internal/upstream; do \
		( cd $$module; for file in $$(grep -rlE --include='*_test.go' '^func Fuzz' . $$(test $$module = . && echo --exclude-dir=upstream) | sort); do \
			for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' $$file); do \
				case "$${file%/*}/$$target" in *$(FUZZ)*) ;; *) continue ;; esac; \
				echo "fuzz $${file%/*} $$target"; \
				$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(or $(FUZZTIME),10s) -fuzzminimizetime 2s $${file%/*}; \
			done; \
		done ); \
	done

bench: cluster-build bin/sluice ## time, requests and memory beside other clients; BENCH='--scale 0.05' for a quick look
	$(COMPARE) --sluice bin/sluice --json bin/bench.json $(BENCH)

bench-huge: cluster-build bin/sluice ## the same with 20,000 objects; takes half an hour
	$(COMPARE) --sluice bin/sluice --json bin/bench-huge.json --shapes huge --clients sluice,ssa-32 $(BENCH)

bench-docs: ## write what bench and bench-huge have measured into docs/benchmarks.md
	$(COMPARE) publish docs/benchmarks.md bin/bench.json $(wildcard bin/bench-huge.json)

lint: ## gofmt, go vet and staticcheck
	@unformatted=$$(gofmt -l cmd internal); if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	cd internal/upstream && $(GO) vet ./...
	staticcheck=$$($(GO) tool -n staticcheck) && cd internal/upstream && "$$staticcheck" ./...

build: bin/sluice ## build bin/sluice

.PHONY: bin/sluice
bin/sluice:
	@echo "building bin/sluice"
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/sluice ./cmd/sluice

clean: ## remove what the targets made here
	rm -rf bin

include cluster.mk
