# kvtwisted: `make run` starts the server, `make test` proves it. `make help` lists the rest.

# The interpreter that makes the environment, and the folder of the environment.
PYTHON ?= python3
VENV ?= .venv
# More arguments of the server, and of pytest.
ARGS ?=
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PACKAGE := setup.cfg pyproject.toml kvtwisted/__init__.py

.PHONY: help run test lint pytest tools bench bench-grpc proto dist clean
.DEFAULT_GOAL := help

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 10
	@echo 'Variables: PYTHON=$(PYTHON) VENV=$(VENV) ARGS=... (server) PYTEST_ARGS=... (pytest)'

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

test: lint tools ## Lint, types, and all tests with branch coverage: make test PYTEST_ARGS=tests/core.
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report $(if $(PYTEST_ARGS),--fail-under=0)

lint: $(VENV)/.test-installed ## Style, types, and which module may import which.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

pytest: $(VENV)/.test-installed tools ## The tests alone.
	$(BIN)/python -m pytest $(PYTEST_ARGS)

tools: ## Install or name the programs that the tests run.
	@scripts/test-tools

bench: $(VENV)/.test-installed ## Measure the service layer: make bench ARGS="--only set".
	$(BIN)/python -m bench.service $(ARGS)

bench-grpc: $(VENV)/.test-installed tools ## Measure gRPC under load, both transports: make bench-grpc ARGS="--only Get".
	$(BIN)/python -m bench.grpc $(ARGS)

proto: ## Generate kvtwisted/rpc/generated from proto/keyvalue.proto.
	scripts/generate-proto $(PYTHON) .venv-proto

dist: $(VENV)/.run-installed ## Build a wheel in dist/.
	@rm -rf build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@rm -rf build

clean: ## Remove environments, builds and caches, but no data.
	rm -rf .venv .venv39 .venv-proto build dist *.egg-info .coverage .coverage.* .hypothesis \
	    .import_linter_cache .mypy_cache .pytest_cache .ruff_cache _trial_temp*
	find kvtwisted tests twisted -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache
