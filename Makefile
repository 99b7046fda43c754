# The commands of the house. `make` lists them. Recipes are POSIX sh, and say what they do.

GO ?= go

SEEDS ?= 1000
FIRST_SEED ?= 1
T ?= 30s
EVERY ?= 1
BENCH ?= .
COUNT ?= 6
PKG ?= ./...
BASE ?= HEAD

# The compiler of the eBPF programs, as bpf/generate.go names it.
BPF_CC = clang-14

# What the tag rdma changes, and its tests on a host with a device.
RDMA_PACKAGES = ./transports/rdma ./vsync ./vsync/field ./oob ./cmd/khamsin
RDMA_HERE = $(GO) test -count=1 -tags rdma -v ./transports/rdma && \
	$(GO) test -count=1 -tags rdma -v -run RDMA ./vsync ./vsync/field ./oob ./cmd/khamsin

PLATFORMS = windows/amd64 darwin/arm64 linux/arm64 android/arm64

# Packages whose tests import the package named $(1).
users = $(GO) list -f '{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}' ./... \
	| grep -F ' github.com/khamsin-io/khamsin/$(1) ' | cut -d ' ' -f 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help check test unit fmt vet staticcheck lint rows rows-check generate generate-check deps sim sim-seed \
	exhaustive canary race cover conformance netns field rdma-vm scale crowd soak hostile fuzz bench bench-compare cross demo

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

check: SEEDS = 100
check: fmt vet staticcheck lint rows-check unit sim ## before a commit: all that is quick, and 100 seeds

# As root, tests that need network namespaces or XDP fail where they cannot have them.
test: export KHAMSIN_REQUIRE := $(or $(KHAMSIN_REQUIRE),$(shell test "$$(id -u)" = 0 && echo netns,xdp))
test: EVERY = 91
test: deps fmt vet staticcheck lint rows-check generate-check cross canary sim exhaustive race ## all that CI runs
	$(GO) test -count=1 -p $(AT_ONCE) -timeout 30m ./...
	@if [ "$$(id -u)" = 0 ] || command -v qemu-system-x86_64 >/dev/null 2>&1; then $(MAKE) rdma-vm; \
	else echo 'test: rdma-vm is left out: there is no qemu-system-x86_64'; fi

# What `make unit` leaves to `make test`, because it takes long: packages that start many processes or namespaces, and
# single tests.
SLOW_PACKAGES = /transports/xdp$$|/perf$$|/tune/probe$$
SLOW_TESTS = ^(TestAutotuneOnALossyPath|TestSystemsOver.*|TestNetworks|TestOrderedQueriesAreOfOneState)$$

unit: ## unit tests, short, but for the slow ones
	$(GO) test -short -skip '$(SLOW_TESTS)' $$($(GO) list ./... | grep -Ev '$(SLOW_PACKAGES)')

fmt: ## fail when a file is not formatted
	@echo 'gofmt -l .'
	@files=$$(gofmt -l .) || exit 1; if [ -n "$$files" ]; then echo "not formatted:"; echo "$$files"; exit 1; fi

vet: ## go vet
	$(GO) vet ./...

staticcheck: ## staticcheck, in the version of go.mod
	$(GO) tool staticcheck ./...

lint: ## house rules: import arrows, pure machines, sizes, package state, unwanted words
	$(GO) run ./tools/archlint

rows: ## write docs/manual-coverage.md: what is shown to work, and where
	$(GO) run ./tools/rows

rows-check: ## fail when docs/manual-coverage.md is stale
	$(GO) run ./tools/rows -check

generate: ## make generated files anew; tests fail when the demo's data differs
	$(GO) generate ./...
	$(GO) run ./tools/gendata
	$(GO) run ./tools/rows

generate-check: ## fail when the committed eBPF objects are not what their sources make
	@if ! command -v $(BPF_CC) >/dev/null 2>&1; then \
		echo "generate-check: $(BPF_CC) is missing: make deps installs it"; test "$$(id -u)" != 0; exit; \
	fi; \
	dir=$$(mktemp -d) || exit 1; trap 'rm -rf "$$dir"' EXIT; trap 'exit 1' INT TERM; \
	cp bpf/*_bpfe[bl].go bpf/*_bpfe[bl].o "$$dir" && echo $(GO) generate ./bpf && $(GO) generate ./bpf || exit 1; \
	for file in "$$dir"/*; do cmp "$$file" "bpf/$${file##*/}" || differs=yes; done; \
	if [ -n "$$differs" ]; then echo 'generate-check: commit what make generate changed'; exit 1; fi

deps: ## as root, install what tests in namespaces and virtual machines, and make generate, need, when it is missing
	@missing=; \
	command -v ip >/dev/null 2>&1 || missing="$$missing iproute2"; \
	command -v nft >/dev/null 2>&1 || missing="$$missing nftables"; \
	command -v gcc >/dev/null 2>&1 || missing="$$missing gcc libc6-dev"; \
	command -v $(BPF_CC) >/dev/null 2>&1 || missing="$$missing $(BPF_CC)"; \
	command -v llvm-strip-$(BPF_CC:clang-%=%) >/dev/null 2>&1 || missing="$$missing llvm-$(BPF_CC:clang-%=%)"; \
	test -e /usr/include/bpf/bpf_helpers.h || missing="$$missing libbpf-dev"; \
	command -v qemu-system-x86_64 >/dev/null 2>&1 || missing="$$missing qemu-system-x86"; \
	command -v busybox >/dev/null 2>&1 || missing="$$missing busybox-static"; \
	command -v depmod >/dev/null 2>&1 || missing="$$missing kmod"; \
	command -v xz >/dev/null 2>&1 || missing="$$missing xz-utils"; \
	[ -e /usr/include/infiniband/verbs.h ] || missing="$$missing libibverbs-dev"; \
	[ -e /etc/libibverbs.d/rxe.driver ] || missing="$$missing ibverbs-providers"; \
	command -v systemd-analyze >/dev/null 2>&1 || missing="$$missing systemd"; \
	if [ -z "$$missing" ]; then echo "deps: nothing is missing"; exit 0; fi; \
	echo "deps: missing:$$missing"; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then \
		echo "deps: not root, or no apt-get: install them by hand"; exit 0; \
	fi; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing

sim: ## simulated runs under faults: SEEDS=n FIRST_SEED=m
	$(GO) run ./tools/simrun -seeds $(SEEDS) -first $(FIRST_SEED)

sim-seed: ## one simulated run again, with its timeline: SEED=n
	@if [ -z "$(SEED)" ]; then echo 'usage: make sim-seed SEED=n'; exit 2; fi
	$(GO) run ./tools/simrun -seed $(SEED) -trace

exhaustive: ## small worlds with up to two crashes, at every step: EVERY=1; larger leaves out so many
	$(GO) run ./tools/simrun -exhaustive -every $(EVERY)

canary: ## plant each known bug and see that the simulator's checkers catch it
	$(GO) run -tags khamsin_canary ./tools/simrun -canary

# What has no goroutines, and takes long under the race detector.
SEQUENTIAL = ./vsync/sim ./tools/simrun

# Many tests wait more than they compute: three packages at a time even where there are two cores.
AT_ONCE ?= $(shell n=$$(nproc 2>/dev/null || echo 2); if [ "$$n" -gt 3 ]; then echo "$$n"; else echo 3; fi)

race: ## short tests under the race detector, with the costly assertions
	CGO_ENABLED=1 $(GO) test -race -short -p $(AT_ONCE) -timeout 20m -tags khamsin_invariants \
		$$($(GO) list ./... | grep -Ev '$(subst $() ,|,$(SEQUENTIAL:.%=%$$))')
	$(GO) test -short -tags khamsin_invariants $(SEQUENTIAL)

cover: ## statements that tests of engine and machines run, for each package; fails below 90 %
	$(GO) test -short -coverprofile=cover.out -coverpkg=./vsync/internal/... ./vsync/internal/... ./vsync/sim
	$(GO) run ./tools/cover -least 90 -not vsync/internal/host cover.out

conformance: ## the one suite that every transport passes
	@packages=$$($(call users,dataplane/transporttest)); \
	if [ -z "$$packages" ]; then echo 'conformance: no package runs the suite'; exit 1; fi; \
	echo $(GO) test -count=1 $$packages; $(GO) test -count=1 $$packages

netns: export KHAMSIN_REQUIRE := $(or $(KHAMSIN_REQUIRE),netns,xdp)
netns: deps ## tests in network namespaces; needs root
	@packages=$$($(call users,internal/netns)); \
	if [ -z "$$packages" ]; then echo 'netns: no test uses network namespaces'; exit 1; fi; \
	echo $(GO) test -count=1 $$packages; $(GO) test -count=1 $$packages

field: ROUNDS ?= 20
field: ## real systems over every transport under the simulator's checkers, ROUNDS=20 kills and cuts each; needs root
	KHAMSIN_REQUIRE=netns,xdp KHAMSIN_FIELD=$(ROUNDS) $(GO) test -count=1 -timeout 60m -v ./vsync/field

rdma-vm: export KHAMSIN_REQUIRE := $(or $(KHAMSIN_REQUIRE),rdma)
rdma-vm: deps ## all that needs RDMA, in two virtual machines; on this host with KHAMSIN_RDMA_DEV=mlx5_0
	$(GO) vet -tags rdma $(RDMA_PACKAGES)
	$(GO) tool staticcheck -tags rdma $(RDMA_PACKAGES)
	@if [ -n "$$KHAMSIN_RDMA_DEV" ]; then echo '$(RDMA_HERE)'; $(RDMA_HERE); \
	else echo '$(GO) run ./tools/rdmavm'; $(GO) run ./tools/rdmavm; fi

crowd: CROWD ?= 200
crowd: ## start CROWD=200 processes at once
	KHAMSIN_CROWD=$(CROWD) $(GO) test -count=1 -v -run '^TestCrowd$$' ./perf

soak: T = 10m
soak: ## five members at full load for T=10m with the default failure detection: nobody may be accused
	KHAMSIN_SOAK=$(T) $(GO) test -count=1 -timeout 90m -v -run '^TestSoak$$' ./perf

hostile: PACKETS ?= 10000000
hostile: ## throw PACKETS=10000000 hostile packets at live processes of a system with a key
	KHAMSIN_HOSTILE=$(PACKETS) $(GO) test -count=1 -timeout 120m -v -run '^TestHostile$$' ./vsync

scale: ## large runs, the tests named TestScale...
	KHAMSIN_SCALE=1 $(GO) test -count=1 -timeout 60m -v -run '^TestScale' $(PKG)

fuzz: ## each fuzz target in turn: T=30s
	@files=$$(grep -rlE --include='*_test.go' '^func Fuzz[A-Z]' . | grep -v /testdata/ | sort); \
	if [ -z "$$files" ]; then echo 'fuzz: no targets'; exit 1; fi; \
	for file in $$files; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "$(GO) test -run '^$$' -fuzz '^$$target\$$' -fuzztime $(T) $$(dirname "$$file")"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(T) "$$(dirname "$$file")" || exit 1; \
		done; \
	done

bench: ## benchmarks: BENCH=regexp COUNT=6 PKG=./...
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) $(PKG)

bench-compare: ## benchmarks of BASE=HEAD against the working tree
	@dir=$$(mktemp -d) || exit 1; \
	trap 'git worktree remove --force "$$dir/base" 2>/dev/null; rm -rf "$$dir"' EXIT; trap 'exit 1' INT TERM; \
	bench="$(GO) test -run ^$$ -bench $(BENCH) -benchmem -count $(COUNT) $(PKG)"; \
	git worktree add --quiet --detach "$$dir/base" $(BASE) || exit 1; \
	echo "at $(BASE): $$bench"; (cd "$$dir/base" && $$bench) >"$$dir/old.txt" || { cat "$$dir/old.txt"; exit 1; }; \
	echo "here: $$bench"; $$bench >"$$dir/new.txt" || { cat "$$dir/new.txt"; exit 1; }; \
	$(GO) run ./tools/benchcompare "$$dir/old.txt" "$$dir/new.txt"

cross: ## build for the other platforms, all but tools
	@for platform in $(PLATFORMS); do \
		export CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/}; \
		echo "GOOS=$$GOOS GOARCH=$$GOARCH $(GO) build (all packages but tools)"; \
		$(GO) build $$($(GO) list ./... | grep -v /tools/) || exit 1; \
	done

demo: ## the main job
	$(GO) run ./cmd/khamsin demo
