# Targets: build demo test lint bench docs servers keepalive storm. CI runs .ci/run, which runs `make test`.

GO      ?= go
BIN     ?= bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
MAXSIZE := 10485760

# The runtime defaults are linked in, because an environment variable would leak into
# the app: no preemption signal (it looks like a SIGURG to forward), no open cgroup
# files. The reaper is told, so that it need not guess.
LDFLAGS := -s -w \
	-X=runtime.godebugDefault=asyncpreemptoff=1,containermaxprocs=0,updatemaxprocs=0 \
	-X github.com/hotswap-init/entrypoint/reaper.preemptOff=1 \
	-X main.version=$(VERSION)

.PHONY: build demo test lint bench docs servers keepalive storm

build:
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/entrypoint ./cmd/entrypoint
	@size=$$(stat -c %s $(BIN)/entrypoint); [ $$size -le $(MAXSIZE) ] || { echo "bin/entrypoint has $$size bytes, more than 10 MiB" >&2; exit 1; }
	@if readelf -l $(BIN)/entrypoint 2>/dev/null | grep -q INTERP; then echo "bin/entrypoint is not static" >&2; exit 1; fi

# Swaps a real container five times under load, one of them with a broken binary. Without an
# engine, and without the right to install one, it uses a private PID namespace.
demo:
	@bash integration/packages.sh demo || true
	$(GO) run ./integration/demo

# Everything; see integration/test.sh. Installs what is missing when root on Debian.
test:
	bash integration/test.sh

lint:
	bash integration/lint.sh

bench:
	$(GO) run ./bench

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
	INTEGRATION_TABLE=$(CURDIR)/docs/keepalive.md REQUIRE_ENGINES=docker $(GO) test -tags integration,examples -run '^TestExamples$$' -count=1 -parallel 4 -timeout 15m ./integration
