# `make help` lists the targets. Nothing but Go (see go.mod for the version), git,
# a POSIX shell and, for tests, redis-server is needed; what else a target uses, Go
# downloads.

CADDY_VERSION    := v2.11.9
GOLANGCI_VERSION := v2.15.0
TRAEFIK_VERSION  := v3.6.1
MODULE           := github.com/isekai-gateway/isekai
VERSION          ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# Caddy links drivers of databases for its internal CA unless these say not to.
TAGS := nobadger,nomysql,nopgx

# xcaddy's own flags, which it uses only if it is given none, and the version that
# `bin/caddy version` shows beside Caddy's.
XCADDY_FLAGS := -trimpath -tags=$(TAGS) -ldflags='-w -s -X github.com/caddyserver/caddy/v2.CustomVersion=isekai-$(VERSION)'

# The client for Redis is a package of this module, which xcaddy asks for by itself.
# Go first looks whether it is a module, and may only go on when a proxy has answered
# "not found"; behind a pipe instead of a comma, it goes on after any answer.
comma := ,
WITH = --with $(MODULE)@v0.0.0=. --with $(MODULE)/ratelimit/redis@v0.0.0
PROXIES = $(subst |direct,,$(subst $(comma),|,$(shell $(GO) env GOPROXY)))|off

# Set RACE=1 to run the tests of the gateway under the race detector.
RACE ?=
TEST_FLAGS := -tags=$(TAGS) $(if $(RACE),-race)

# How long `make fuzz` spends on each fuzz test.
FUZZTIME ?= 20s

# How often `make bench` and `make bench-limiter` measure everything.
ROUNDS ?= 5

CONFIG ?= Caddyfile.example
GO     ?= go
LINT   := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

.DEFAULT_GOAL := help
.PHONY: help build run validate servers test test-race test-go test-e2e soak upgrade fuzz bench bench-micro bench-compare bench-tail bench-tuning bench-limiter bench-propagation bench-requestlog bench-scale traefik lint libc-check fmt clean

help: ## Show this list.
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/caddy with xcaddy: Caddy and this module.
	GOPROXY="$(PROXIES)" XCADDY_GO_BUILD_FLAGS="$(XCADDY_FLAGS)" $(GO) tool xcaddy build $(CADDY_VERSION) $(WITH) --output bin/caddy

run: build ## Build, and run Caddyfile.example (HTTP 8080, HTTPS 8443, admin 2019) with .env, if any.
	bin/caddy run --config $(CONFIG) --adapter caddyfile $(if $(wildcard .env),--envfile .env)

validate: build ## Check that Caddyfile.example is formatted and valid.
	bin/caddy fmt $(CONFIG) >/dev/null
	bin/caddy validate --config $(CONFIG) --adapter caddyfile

test: test-go test-e2e ## Run all tests. PostgreSQL is found or downloaded; redis-server and pgbouncer are found, or installed on Debian as root.

# Where Redis can't be had so, the tests that need it fail and say what to do; without
# PgBouncer, the test through it is left out.
servers:
	@missing=$$(for program in redis-server pgbouncer; do command -v $$program >/dev/null || echo $$program; done); \
	if [ -n "$$missing" ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -q >/dev/null || true; \
		for program in $$missing; do \
			echo "installing $$program, which tests use"; \
			DEBIAN_FRONTEND=noninteractive apt-get install -q -y $$program >/dev/null || true; \
		done; \
	fi

test-race: ## Run all tests, those of the packages under the race detector (needs a C compiler).
	$(MAKE) test RACE=1

test-go: servers ## Run the tests of the packages, and those of what measures them.
	$(GO) test $(TEST_FLAGS) -timeout 20m ./...
	cd bench && $(GO) test $(TEST_FLAGS) ./...

test-e2e: servers ## Run the tests that drive a built binary: ISEKAI_E2E_BINARY, or one they build.
	cd e2e && $(GO) test -tags=$(TAGS) -count=1 -timeout 20m ./...
	cd deploy/test && $(GO) test -tags=$(TAGS) -count=1 ./...

soak: ## Run the long tests of e2e (an hour; as root, since one mounts a small disk). ISEKAI_SOAK_MINUTES shortens one.
	cd e2e && $(GO) test -tags=$(TAGS),soak -count=1 -timeout 2h -v -run '^TestSoak' .

# The earlier program is built from that commit, and both serve from one database.
upgrade: ## Test that FROM, a release or commit (the last tag), and this version work side by side.
	@from='$(or $(FROM),$(shell git describe --tags --abbrev=0 2>/dev/null))'; \
	[ -n "$$from" ] || { echo "there is no release yet: name a commit, as in make upgrade FROM=main~10" >&2; exit 1; }; \
	work=$$(mktemp -d) && trap 'git worktree remove --force "$$work/from"; rm -rf "$$work"' EXIT && \
	git worktree add --detach "$$work/from" "$$from" && \
	(cd "$$work/from" && $(GO) build -tags=$(TAGS) -o "$$work/previous" ./cmd/caddy) && \
	cd e2e && ISEKAI_E2E_PREVIOUS="$$work/previous" $(GO) test -tags=$(TAGS),upgrade -count=1 -v -run '^TestUpgrade$$' .

fuzz: ## Run every fuzz test for FUZZTIME (20s).
	@for package in $$($(GO) list ./...); do \
		for name in $$($(GO) test -tags=$(TAGS) -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$name"; \
			$(GO) test -tags=$(TAGS) -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

# Where make traefik has put that.
bench bench-tail: export PATH := $(CURDIR)/bin:$(PATH)

bench: ## Measure forwarding against Caddy and, if installed, nginx, HAProxy and Traefik into bench/RESULTS.md (under 15 minutes).
	cd bench && $(GO) run -tags=$(TAGS) ./forward -rounds $(ROUNDS)

# From the module's own folder, since it replaces some of what it needs. The module is
# without the pages of the dashboard, which are not needed.
traefik: ## Build Traefik, for make bench and bench-tail, into bin/traefik (some minutes, 2 GB).
	@work=$$(mktemp -d) && trap 'chmod -R u+w "$$work"; rm -rf "$$work"' EXIT && cd "$$work" && \
	$(GO) mod download github.com/traefik/traefik/v3@$(TRAEFIK_VERSION) && \
	cp -r "$$($(GO) env GOMODCACHE)/github.com/traefik/traefik/v3@$(TRAEFIK_VERSION)" traefik && chmod -R u+w traefik && cd traefik && \
	$(GO) build -trimpath -ldflags='-s -w' -o "$(CURDIR)/bin/traefik" ./cmd/traefik

bench-micro: ## Run the benchmarks of the packages.
	$(GO) test -tags=$(TAGS) -run '^$$' -bench . -benchmem ./...

bench-compare: ## Compare routing table, cache, log queue and pipeline with libraries, by benchstat, into bench/RESULTS.md (some minutes).
	cd bench && $(GO) run -tags=$(TAGS) ./micro

bench-tail: ## Measure p99 and p99.9 of all proxies at one rate into bench/RESULTS.md (under 10 minutes).
	cd bench && $(GO) run -tags=$(TAGS) ./tail

bench-tuning: ## Measure what GOGC, PGO and settings change into docs/tuning.md (about 15 minutes).
	cd bench && $(GO) run -tags=$(TAGS) ./tuning

bench-limiter: ## Measure the rate limiter against others into bench/RESULTS.md (some minutes).
	cd bench && $(GO) run -tags=$(TAGS) ./limiter -rounds $(ROUNDS)

bench-requestlog: ## Measure the request log on PostgreSQL into bench/RESULTS.md (some minutes).
	cd bench && $(GO) run -tags=$(TAGS) ./requestlog

bench-propagation: ## Measure from commit to served on three gateways into bench/RESULTS.md (a minute).
	cd bench && $(GO) run -tags=$(TAGS) ./propagation

bench-scale: ## Measure 100,000 and 1,000,000 routes into bench/RESULTS.md (some minutes, 4 GB).
	cd bench && $(GO) run -tags=$(TAGS) ./scale

lint: libc-check ## Run go vet and golangci-lint, which is compiled on first use.
	$(GO) vet -tags=$(TAGS) ./...
	cd e2e && $(GO) vet -tags=$(TAGS),soak,upgrade ./...
	cd bench && $(GO) vet -tags=$(TAGS) ./... && $(GO) build -tags=$(TAGS) ./...
	cd deploy/test && $(GO) vet -tags=$(TAGS) ./...
	$(LINT) run ./...
	cd e2e && $(LINT) run --config ../.golangci.yml ./...
	cd bench && $(LINT) run --config ../.golangci.yml ./...
	cd deploy/test && $(LINT) run --config ../../.golangci.yml ./...

# SQLite is C compiled to Go against one version of its C library and is known to
# crash with any other.
libc-check: ## Check that modernc.org/libc is the version that modernc.org/sqlite asks for.
	@asked=$$(awk '$$1 == "modernc.org/libc" { print $$2 }' "$$($(GO) list -m -f '{{.GoMod}}' modernc.org/sqlite)"); \
	taken=$$($(GO) list -m -f '{{.Version}}' modernc.org/libc); \
	built=$$taken; \
	if [ -x bin/caddy ]; then built=$$($(GO) version -m bin/caddy | awk '$$2 == "modernc.org/libc" { print $$3 }'); fi; \
	if [ -z "$$asked" ] || [ "$$asked" != "$$taken" ] || [ "$$asked" != "$$built" ]; then \
		echo "modernc.org/libc: sqlite asks for '$$asked', go.mod has '$$taken', bin/caddy has '$$built'" >&2; exit 1; \
	fi

fmt: ## Format the Go code, and Caddyfile.example if there is a bin/caddy.
	gofmt -w $$(git ls-files '*.go')
	@if [ -x bin/caddy ]; then bin/caddy fmt --overwrite $(CONFIG); fi

clean: ## Remove what build and tests leave behind; data/ stays.
	rm -rf bin dist coverage.out
