# make help lists the targets. Everything they need beyond Go is found, or on Debian installed,
# by scripts/setup.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

GO ?= go
TOOLS ?= $(CURDIR)/bin/tools
GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION)

# What is handed on to the programs: DEMOFLAGS='--seed 7', TESTFLAGS='-run Ending', BENCHFLAGS=-quick.
DEMOFLAGS ?=
SCENE ?=
N ?= 100
FAMILY ?= both
FUZZTIME ?= 20s
TESTFLAGS ?=
BENCHFLAGS ?=

# Where install puts things: below DESTDIR, for a package or a try.
DESTDIR ?=
PREFIX ?= /usr
ARCHES ?= amd64 arm64

.PHONY: help build demo test check campaign bench fmt lint vet generate fuzz install dist setup clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/holdfast: one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/holdfast ./cmd/holdfast

demo: ## the main job, shown in a laboratory of network namespaces (root; under a minute)
	@scripts/setup demo
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/holdfast ./cmd/holdfast
	@bin/holdfast demo --short $(DEMOFLAGS)

# One package at a time: what one test does to the machine must not be what another one measures.
# The seeds are fixed, so that a failure is the same failure for everybody.
test: ## every test once, as root with nothing left out; ends with what was left out and why
	@scripts/setup test
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/holdfast ./cmd/holdfast
	RAPID_SEED=1 $(GO) test -json -race -count=1 -p 1 -timeout 15m $(TESTFLAGS) ./... | $(GO) run ./scripts/testreport

check: ## what a change must pass before it is sent: fmt, vet, lint, generated files, tests
	.ci/run

campaign: ## SCENE=name [N=100] [FAMILY=4|6|both]: a scene at N random moments, as distributions
	@[ -n "$(SCENE)" ] || { echo "usage: make campaign SCENE=name [N=100] [FAMILY=4|6|both]"; exit 2; }
	@scripts/setup test
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/holdfast ./cmd/holdfast
	@bin/holdfast demo $(SCENE) --runs $(N) --family $(FAMILY) $(DEMOFLAGS)

bench: ## the relay beside direct, HAProxy, HAProxy with splice and nginx stream: table, and bin/bench.json
	@scripts/setup bench
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/holdfast ./cmd/holdfast
	@$(GO) run ./internal/bench -json bin/bench.json $(BENCHFLAGS)

fmt: $(GOLANGCI_LINT) ## format every file
	@$(GOLANGCI_LINT) fmt

vet:
	$(GO) vet ./...

lint: $(GOLANGCI_LINT) ## the linters of .golangci.yml
	@$(GOLANGCI_LINT) run

generate: ## write the generated files again
	$(GO) generate ./...

fuzz: ## [FUZZTIME=20s]: every fuzz target for that long
	@failed=0; for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg || failed=1; \
		done; \
	done; exit $$failed

# The program is built first, by whoever may; root needs no Go to install it. A configuration that
# is there stays.
install: | bin/holdfast ## [DESTDIR=] [PREFIX=/usr]: program, man pages, completion, systemd unit, example
	@install -D -m 0755 bin/holdfast '$(DESTDIR)$(PREFIX)/bin/holdfast'
	@$(MAKE) --no-print-directory install-rest COMPLETE=bin/holdfast

.PHONY: install-rest
install-rest:
	@install -d '$(DESTDIR)$(PREFIX)/share/man/man1' '$(DESTDIR)$(PREFIX)/share/man/man5'
	@install -m 0644 docs/man/*.1 '$(DESTDIR)$(PREFIX)/share/man/man1/'
	@install -m 0644 docs/man/*.5 '$(DESTDIR)$(PREFIX)/share/man/man5/'
	@install -d '$(DESTDIR)$(PREFIX)/share/bash-completion/completions' '$(DESTDIR)$(PREFIX)/share/zsh/site-functions' \
		'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d'
	@$(COMPLETE) completion bash >'$(DESTDIR)$(PREFIX)/share/bash-completion/completions/holdfast'
	@$(COMPLETE) completion zsh >'$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_holdfast'
	@$(COMPLETE) completion fish >'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/holdfast.fish'
	@install -d '$(DESTDIR)$(PREFIX)/lib/systemd/system'
	@sed 's|/usr/bin/holdfast|$(PREFIX)/bin/holdfast|' packaging/systemd/holdfast.service >'$(DESTDIR)$(PREFIX)/lib/systemd/system/holdfast.service'
	@install -D -m 0644 packaging/systemd/holdfast.service.d/addresses.conf '$(DESTDIR)$(PREFIX)/share/doc/holdfast/addresses.conf'
	@install -D -m 0644 packaging/sysusers.d/holdfast.conf '$(DESTDIR)$(PREFIX)/lib/sysusers.d/holdfast.conf'
	@install -d '$(DESTDIR)/etc/logrotate.d'
	@sed 's|/usr/bin/holdfast|$(PREFIX)/bin/holdfast|' packaging/logrotate.d/holdfast >'$(DESTDIR)/etc/logrotate.d/holdfast'
	@install -D -m 0644 packaging/prometheus/holdfast.rules.yaml '$(DESTDIR)$(PREFIX)/share/doc/holdfast/holdfast.rules.yaml'
	@install -D -m 0644 packaging/holdfast.yaml '$(DESTDIR)$(PREFIX)/share/doc/holdfast/holdfast.yaml'
	@[ -e '$(DESTDIR)/etc/holdfast/holdfast.yaml' ] || install -D -m 0644 packaging/holdfast.yaml '$(DESTDIR)/etc/holdfast/holdfast.yaml'
	@chmod 0644 '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/holdfast' '$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_holdfast' \
		'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/holdfast.fish' \
		'$(DESTDIR)$(PREFIX)/lib/systemd/system/holdfast.service' '$(DESTDIR)/etc/logrotate.d/holdfast'

# The same commit gives the same bytes.
dist: build ## [ARCHES="amd64 arm64"]: bin/holdfast-linux-ARCH.tar.gz of what install installs, and their sums
	@for arch in $(ARCHES); do \
		tree=$$(mktemp -d); \
		mkdir -p $$tree/usr/bin; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags='-s -w' -o $$tree/usr/bin/holdfast ./cmd/holdfast; \
		$(MAKE) --no-print-directory install-rest COMPLETE=bin/holdfast DESTDIR=$$tree PREFIX=/usr; \
		tar -C $$tree --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$$(git log -1 --format=%ct) --mode=u=rwX,go=rX -cf - . | \
			gzip -9n >bin/holdfast-linux-$$arch.tar.gz; \
		rm -rf $$tree; \
	done; cd bin; sha256sum holdfast-linux-*.tar.gz | tee SHA256SUMS

bin/holdfast:
	@$(MAKE) --no-print-directory build

setup: ## install what the tests need, and nothing else (Debian, root)
	@scripts/setup test

clean: ## remove what was built here
	rm -rf bin

$(GOLANGCI_LINT):
	@mkdir -p $(TOOLS)
	@echo "building golangci-lint $(GOLANGCI_LINT_VERSION) once (some minutes)"
	@GOBIN=$(TOOLS)/new CGO_ENABLED=0 $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv $(TOOLS)/new/golangci-lint $@ && rmdir $(TOOLS)/new
