# Targets: build man demo test test-k8s lint fuzz explore soak mutants cover bench docs servers keepalive examples storm. CI runs .ci/run, which runs `make test`.

GO      ?= go
BIN     ?= bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
MAXSIZE := 10485760
MODULE  := github.com/hotswap-init/entrypoint

# The runtime defaults are linked in, because an environment variable would leak into
# the app: no preemption signal (it looks like a SIGURG to forward), no open cgroup
# files. The reaper is told, so that it need not guess.
LDFLAGS := -s -w $(if $(filter amd64,$(shell $(GO) env GOARCH)),-funcalign=8) \
	-X=runtime.godebugDefault=asyncpreemptoff=1,containermaxprocs=0,updatemaxprocs=0 \
	-X github.com/hotswap-init/entrypoint/reaper.preemptOff=1 \
	-X main.version=$(VERSION)

# The binary has 10 MiB at most. Functions are inlined where that can be felt: in the runtime, where bytes pass, and where a child is forked; generic
# functions have short names; and functions are not spread over the lines of the processor's cache.
HOT := runtime runtime/... internal/runtime/... internal/abi internal/bytealg internal/cpu internal/goarch internal/race sync sync/... internal/sync \
	syscall internal/syscall/... internal/poll golang.org/x/sys/unix io bufio bytes net $(MODULE)/reaper $(MODULE)/internal/proxy/carry
GCFLAGS := -gcflags='all=-l -d=maxshapelen=40' $(foreach p,$(HOT),-gcflags='$(p)=-d=maxshapelen=40')

.PHONY: build man demo test test-k8s lint fuzz explore soak mutants cover bench docs servers keepalive examples storm

build:
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -trimpath $(GCFLAGS) -ldflags '$(LDFLAGS)' -o $(BIN)/entrypoint ./cmd/entrypoint
	@size=$$(stat -c %s $(BIN)/entrypoint); [ $$size -le $(MAXSIZE) ] || { echo "bin/entrypoint has $$size bytes, more than 10 MiB" >&2; exit 1; }
	@if readelf -l $(BIN)/entrypoint 2>/dev/null | grep -q INTERP; then echo "bin/entrypoint is not static" >&2; exit 1; fi
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/kubectl-hotswap ./cmd/kubectl-hotswap

# The manual page, in bin/.
man: build
	$(BIN)/entrypoint help --man > $(BIN)/entrypoint.1

# Swaps a real container five times under load, one of them with a broken binary. Without an
# engine, and without the right to install one, it uses a private PID namespace.
demo:
	@bash integration/packages.sh demo || true
	$(GO) run ./integration/demo

# Everything; see integration/test.sh. Installs what is missing when root on Debian.
test:
	bash integration/test.sh

# On a real Kubernetes node; see docs/kubernetes-tests.md. Builds its programs once, which takes minutes.
test-k8s:
	bash integration/kubernetes/test.sh tally

lint:
	bash integration/lint.sh

# Each fuzz target of what comes from outside, for FUZZTIME (1m), two at a time. FUZZ=all takes every target of the repository.
fuzz:
	bash integration/fuzz.sh

# The supervisor in fake time: every short sequence of events, and EXPLORE_WALKS long ones by chance.
explore:
	bash integration/explore.sh

# Swaps and faults by chance, under load, for SOAK (1h). CI does it for a minute.
soak: build
	SOAK=$(or $(SOAK),1h) ENTRYPOINT_BINARY=$(CURDIR)/bin/entrypoint $(GO) test -tags integration -run '^TestSoak$$' -count=1 -timeout 0 -v ./integration

# Takes the handling of each fault out of the product, one at a time, and wants the row of the fault matrix to fail. Half an hour.
# `make mutants MUTANTS='-run stop'` takes those whose row matches.
mutants:
	@bash integration/packages.sh || true
	$(GO) run ./integration/mutants $(MUTANTS)

# How much of each package the tests run, and which error paths: docs/coverage.md. A quarter of an hour, as root.
cover:
	$(GO) run ./integration/cover

# Measures against the budgets, beside other inits and proxies, and writes bench/report.md and its plots: below 20 minutes, best on a calm machine.
# `make bench BENCH=-quick` takes 3 and writes nothing.
bench:
	@bash integration/packages.sh bench || true
	$(GO) run ./bench $(or $(BENCH),-out bench)

docs:
	$(GO) run ./cmd/entrypoint config --markdown > docs/environment.md

# Swaps every server of the matrix under load and writes down what was counted.
servers:
	bash integration/packages.sh
	INTEGRATION_TABLE=$(CURDIR)/docs/servers.md REQUIRE_ENGINES=docker $(GO) test -tags integration -run '^TestStacks$$' -count=1 -parallel 4 -timeout 30m ./integration

# Swaps a graceful server a hundred times under 64 clients that never try again, for each protocol, more than a million
# requests in all, and prints what was counted. `make test` has the short form.
storm:
	GRACEFUL_ROUNDS=100 GRACEFUL_CLIENTS=64 GRACEFUL_REQUESTS=1500 $(GO) test -run '^TestStorm$$' -count=1 -timeout 60m -v ./graceful

# Swaps every server of examples/ with its recipe and without, and writes down what keep-alive clients lost.
keepalive:
	bash integration/packages.sh
	INTEGRATION_TABLE=$(CURDIR)/docs/keepalive.md REQUIRE_ENGINES=docker EXAMPLE_SWAPS=5 $(GO) test -tags integration -run '^TestExamples$$' -count=1 -parallel 4 -timeout 15m ./integration

# Builds every Dockerfile of examples/ without a network, runs the image and swaps it. `make test` has those that build fast.
examples:
	bash integration/packages.sh
	EXAMPLE_BUILDS=all REQUIRE_ENGINES=docker $(GO) test -tags integration -run '^TestExampleBuilds$$' -count=1 -parallel 4 -timeout 15m -v ./integration
