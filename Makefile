# Everything that is done with this repository. Only Go and make are needed.

GO        ?= go
TESTFLAGS ?=
FUZZTIME  ?= 60s
BENCHFLAGS ?=
# Of make sim: how many seeds, from which on, and one to look at; of the other suites: more flags.
N          ?= 600
FIRST      ?= 1
SEED       ?=
SIMFLAGS   ?=
LINEARFLAGS ?=
CRASHFLAGS ?=
KUBEFLAGS  ?=
PLANTFLAGS ?= -rotate -1 -of 8 -baseline=false
# The packages of the main module, without the suites in tests/ that have targets of their own.
UNIT       = $$($(GO) list ./... | grep -v /tests/) ./tests/runner ./tests/model ./tests/check ./tests/bounded ./tests/ports
OURS       = -not -path './proto/*pb/*' -not -path './.cache/*'

.DEFAULT_GOAL := help
.PHONY: help build check format vet tidy staticcheck quick unit race test compat dr sim linear crash failpoints plants fuzz kube demo bench bench-peer proto golden dist hooks

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the programs into bin/
	$(GO) build -o bin/ ./cmd/...

check: format vet tidy staticcheck quick ## what every commit passes, in under two minutes
	@echo "left to make unit: $$(grep -rh --include='*_test.go' '^	quick\.LeaveOut(t)' . | wc -l) tests that are whole scenarios, and two of three cases of exhaustive ones (internal/quick)"

format: ## list files that gofmt would change
	@files=$$(find . -name '*.go' $(OURS) | xargs gofmt -l); \
	if [ -n "$$files" ]; then echo "gofmt would change:"; echo "$$files"; exit 1; fi

vet: ## the compiler's own doubts
	$(GO) vet ./...

tidy: ## the rules of the tree: imports, sizes, calls (internal/tidy)
	$(GO) test ./internal/tidy

staticcheck: ## the linter pinned in tools/
	$(GO) build -C tools -o ../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	bin/staticcheck ./...

# In one order, so that Go need not repeat what nothing has changed for. Tests wait more than they compute:
# four packages and four tests of each on two cores. vet is a target of its own.
quick: ## as unit, but for whole scenarios and some cases of exhaustive tests (internal/quick)
	HOLDFAST_QUICK=1 $(GO) test -short -timeout 30m -vet=off -p 4 -parallel 4 -tags invariants $(TESTFLAGS) $(UNIT) ./tests/plants

unit: ## all packages, with invariants, in random order
	$(GO) test -short -timeout 30m -p 4 -tags invariants -shuffle=on $(TESTFLAGS) $(UNIT) ./tests/plants

race: ## the same under the race detector; the rules of the tree run no code of ours
	$(GO) test -short -timeout 30m -p 4 -race -tags invariants -shuffle=on $(TESTFLAGS) $$(printf '%s\n' $(UNIT) | grep -v internal/tidy)

test: ## all suites, ending with a table (HOLDFAST_REQUIRE_ALL=1: nothing may be left out)
	@$(GO) run ./tests/runner

compat: ## etcd's own clients and a live etcd against our server (tests/compat)
	$(GO) test -C tests/compat -count=1 -short $(TESTFLAGS) ./...

dr: ## members killed, damaged, majorities destroyed, everything restored (tests/dr)
	$(GO) test -short -timeout 20m $(TESTFLAGS) ./tests/dr/...
	$(GO) test -timeout 20m -count=1 -run 'DamagedGetsAnother|FlippedBitAnywhere' $(TESTFLAGS) ./server

sim: ## whole clusters on one goroutine, by seed: make sim N=2000 FIRST=5000, make sim SEED=7
	$(GO) run ./tests/sim/run $(if $(SEED),-seed $(SEED),-seeds $(N) -first $(FIRST)) $(SIMFLAGS)

linear: ## real processes under attack, judged by what clients saw (LINEARFLAGS="-histories 100", -seed, -nemesis, -workload)
	$(GO) test -short -timeout 90m -count=1 $(TESTFLAGS) ./tests/network
	$(GO) test -short -timeout 90m -count=1 $(TESTFLAGS) ./tests/linear $(LINEARFLAGS)

crash: ## a member's storage through power cuts, failing calls and damage (CRASHFLAGS=-long)
	$(GO) test -short -timeout 90m -count=1 $(TESTFLAGS) ./tests/fusefs
	$(GO) test -short -timeout 90m -count=1 $(TESTFLAGS) ./tests/crash $(CRASHFLAGS)

failpoints: ## processes that die at every named place
	$(GO) vet -tags failpoints ./internal/fail ./cmd/...
	$(GO) test -tags failpoints $(TESTFLAGS) ./internal/fail ./cmd/holdfast
	$(GO) test -short -count=1 $(TESTFLAGS) ./tests/failpoints

plants: ## deliberate mistakes that the suites must notice, a part in turn (PLANTFLAGS= for all of them)
	$(GO) run ./tests/plants $(PLANTFLAGS)

fuzz: ## every decoder and request check, FUZZTIME each
	@$(GO) run ./tests/runner -only fuzz -fuzztime $(FUZZTIME)

kube: ## control planes and simulated nodes that are killed, and the history replayed (KUBEFLAGS="-faults=30m -seed=7")
	$(GO) test -short -timeout 20m -count=1 $(TESTFLAGS) ./tests/kube/... $(KUBEFLAGS)

demo: build ## a disaster and its repair on one screen
	@$(GO) run ./tests/demo

bench: ## the benchmarks of the packages
	$(GO) test -run '^$$' -bench . -benchmem $(UNIT)

bench-peer: ## us and etcd, measured side by side (BENCHFLAGS="-rounds 1 -only put-100")
	$(GO) run -C tests/bench . $(BENCHFLAGS)

proto: ## generate proto/ from its .proto files
	$(GO) run -C tools ./protogen

golden: ## rewrite the golden files of all packages; review the difference
	$(GO) test $$($(GO) list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | awk '/ .*internal\/golden/ {print $$1}') -rewrite

dist: ## static programs for linux in dist/, with checksums (PLATFORMS="linux/amd64")
	GO="$(GO)" contrib/dist/dist.sh dist

hooks: ## have git run make check before each commit
	git config core.hooksPath .githooks
