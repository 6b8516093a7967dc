# Sealant. Each target installs what it needs: Debian packages by apt, Go modules by go.
#
#   make demo            the whole story on a pretend device, in about a minute (root)
#   make demo-openssl    the same on two versions of Debian's libssl3 (root)
#   make test            every test but the slow ones (root)
#   make test-vm         the device in virtual machines, in a quarter of an hour (root)
#   make test-peers      patches of all kinds of files, none much above the best peer, in some minutes
#   make test-all        all of these, and the slow ones
#   make bench           figures against the peers
#   make bench-patch     patches of real updates beside the peers' (PAIRS=libs|go|node|big|all)
#   make build           the programs, in bin/
#   make example         the worked example: a Debian image, improved in a virtual machine (root)
#   make packages        deb and rpm for amd64 and arm64, in build/packages
#   make lint            formatting, vet, staticcheck
#   make docs            man pages and completion, made from the commands, in build/

SHELL    := /bin/bash
GO       ?= go
BIN      := $(CURDIR)/bin
PROGRAMS := sealant sealant-boot sealpub sealsrv sealant-lab
HIDDEN   := sealant-launch
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X github.com/sealant-os/sealant/internal/cli.Version=$(VERSION)

GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: all build packages example demo demo-openssl test test-vm test-peers test-all test-lab bench bench-patch lint docs clean root

all: build

build:
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ $(addprefix ./cmd/,$(PROGRAMS) $(HIDDEN))
	@for release in base a b; do CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -tags $$release -o $(BIN)/reader/$$release ./test/reader || exit 1; done

root:
	@test "$$(id -u)" = 0 || { echo "this needs root: it mounts sealed images in a private mount namespace (try: sudo make ...)" >&2; exit 1; }

demo: root build
	@test/need util-linux
	@$(BIN)/sealant-lab demo

demo-openssl: root build
	@test/need util-linux openssl
	@apt-cache madison libssl3 | grep -q . || apt-get update -qq
	@$(BIN)/sealant-lab demo --story openssl

test: root build
	@test/need $$(cat test/packages)
	@command -v npm >/dev/null || test/need nodejs npm
	$(GO) vet ./...
	set -o pipefail; $(GO) test -v -timeout 80m $(TAGS) ./... 2>&1 | test/told
	cd cmd/sealant-signer-pkcs11 && $(GO) test ./...
	$(BIN)/sealant-lab test --story refusals
	$(BIN)/sealant-lab test --story reader

# What takes longer in a machine is a slow test.
test-vm: root build
	@test/need $$(cat test/packages)
	set -o pipefail; $(GO) test -v -count 1 -p 1 -timeout 60m -tags vm ./test/vm/... 2>&1 | test/told

test-peers:
	@test/need $$(cat test/packages)
	set -o pipefail; $(GO) test -v -timeout 60m -tags slow -run 'TestPeers$$' ./test/corpus 2>&1 | test/told

test-all: TAGS := -tags slow
test-all: test

bench: root build
	@test/need $$(cat test/packages)
	$(GO) test -run '^$$' -bench . -benchtime 1s ./...
	$(MAKE) bench-patch

bench-patch: root build
	@test/need bsdiff xdelta3 zstd time $$(cat test/packages)
	@command -v npm >/dev/null || test/need nodejs npm
	test/corpus/bench $(PAIRS)

lint:
	@out=$$($(GO) run $(GOFUMPT) -l . 2>&1); test -z "$$out" || { echo "gofumpt would change:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

packages:
	@packaging/build $(ARCH)

example: root
	@test/need $$(cat test/packages)
	$(GO) test -tags slow -timeout 40m -count 1 -run TestExample -v ./test/packaging

docs:
	@mkdir -p build/man build/completion
	@for p in $(PROGRAMS); do $(GO) run -tags mangen ./cmd/$$p mangen build/man || exit 1; done
	@for p in $(filter-out sealant-boot,$(PROGRAMS)); do for s in bash zsh fish; do \
		$(GO) run ./cmd/$$p completion $$s > build/completion/$$p.$$s || exit 1; done; done
	@echo "man pages in build/man, completion in build/completion"

clean:
	rm -rf $(BIN) build
