# kvtwisted: `make run` starts the server, `make test` proves it. `make help` lists the rest.

# The interpreter that makes the environment, and the folder of the environment.
PYTHON ?= python3
VENV ?= .venv
# Processes that share the tests, each file in one of them; tests wait at times, so that three keep two cores busy.
# 0: all in one, whose output `-s` shows.
JOBS ?= 3
# More arguments of the server or the measurements, and of pytest; the revision that measurements compare with.
ARGS ?=
PYTEST_ARGS ?=
BASE ?=

BIN := $(VENV)/bin
PYTEST := -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
PACKAGE := setup.cfg pyproject.toml kvtwisted/__init__.py

.PHONY: help run test test-all lint pytest tools bench bench-compare proto dist clean
.DEFAULT_GOAL := help

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 16
	@echo 'Variables: PYTHON=$(PYTHON) VENV=$(VENV) ARGS=... (server, bench) PYTEST_ARGS=... JOBS=$(JOBS) (tests)'

# A change of the package's description reinstalls it; a change of code does not, since the installation is editable.
$(VENV)/.run-installed: $(PACKAGE)
	@scripts/environment $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.test-installed: $(PACKAGE)
	@scripts/environment $(PYTHON) $(VENV) dev
	@touch $@ $(VENV)/.run-installed

# No pid file: it would outlive a killed server, and the lock on the data folder already keeps a second server away.
run: $(VENV)/.run-installed ## Start the server: make run ARGS="--http-port 0".
	@exec $(BIN)/twistd -n --pidfile= kvtwisted $(ARGS)

test: lint tools ## Lint, types, and the tests of every change: make test PYTEST_ARGS=tests/core.
	$(BIN)/python $(PYTEST) $(PYTEST_ARGS)

# Measuring takes about as long as testing, so that it has its place here.
test-all: lint tools .foreign/.installed ## All tests, the long ones too, with branch coverage: before an issue is closed.
	@$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST) -m '' $(PYTEST_ARGS)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report $(if $(PYTEST_ARGS),--fail-under=0)

lint: $(VENV)/.test-installed ## Style, types, and which module may import which.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

pytest: $(VENV)/.test-installed tools ## The tests alone.
	$(BIN)/python $(PYTEST) $(PYTEST_ARGS)

tools: .venv-scan/.installed ## Install or name the programs that the tests run.
	@scripts/test-tools

.venv-scan/.installed: scripts/tls-scanner
	scripts/tls-scanner $(PYTHON) .venv-scan
	@touch $@

# For the long tests alone.
.foreign/.installed: scripts/foreign-clients proto/keyvalue.proto $(wildcard tests/e2e/foreign/*/*) $(VENV)/.test-installed
	scripts/foreign-clients $(BIN)/python .foreign
	@touch $@

# What needs wrk, a C compiler or libnghttp2 is left out with a line where they are not installed.
bench: $(VENV)/.test-installed ## Measure everything, in some 6 minutes: make bench ARGS="--only grpc".
	@$(BIN)/python -m bench $(ARGS)

bench-compare: $(VENV)/.test-installed ## Compare with another revision: make bench-compare BASE=HEAD~1.
	@$(if $(BASE),,echo 'Say which revision: make bench-compare BASE=HEAD~1' >&2; exit 2)
	@$(BIN)/python -m bench --base '$(BASE)' $(ARGS)

proto: ## Generate kvtwisted/rpc/generated from proto/keyvalue.proto.
	scripts/generate-proto $(PYTHON) .venv-proto

dist: $(VENV)/.run-installed ## Build a wheel in dist/.
	@rm -rf build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@rm -rf build

clean: ## Remove environments, builds and caches, but no data.
	rm -rf .venv .venv39 .venv-proto .venv-scan .foreign build dist *.egg-info .coverage .coverage.* .hypothesis \
	    .import_linter_cache .mypy_cache .pytest_cache .ruff_cache _trial_temp*
	find kvtwisted tests twisted -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache
