# `make` lists the targets. Each one sets up what it needs; set PYTHON to use an interpreter other than python3.11.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO_DIR ?= demo-output
PARALLEL := --numprocesses logical --dist worksteal

# Every process that a test starts would compile all modules again, where the environment forbids to keep them.
test test-peers test-clients test-containers coverage: export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage mutation test-peers test-clients test-containers lint format proto bench clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.dev ## make .venv with everything that developing needs

demo: .venv/.local ## traces -> dataset -> Tunix SFT -> base and candidate evaluation -> report, on SmolLM2-135M
	$(BIN)/tunix-rt demo --output $(DEMO_DIR)

test: .venv/.dev ## run all tests, on SQLite and on a PostgreSQL that comes as a wheel
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

coverage: .venv/.dev ## run all tests as `make test` does, and measure their coverage: 40% more processor time
	$(BIN)/python -m coverage erase
	$(MAKE) test PYTEST_ARGS="--cov --cov-report=term $(PYTEST_ARGS)"

mutation: .venv/.mutation ## how many small changes of what carries the promises the tests notice; MUTATION_ARGS="--only splits" chooses
	$(BIN)/python tests/mutation.py $(MUTATION_ARGS)

test-peers: .venv/.peers ## tests with torch: datasets and trl take the exports as they are, Tunix computes what transformers does
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile tests/peers $(PYTEST_ARGS)

test-clients: .venv/.clients ## the examples in JavaScript and TypeScript, with a Node that comes as a wheel
	$(BIN)/python -m pytest tests/clients $(PYTEST_ARGS)

test-containers: .venv/.dev ## what the contract suite does on PostgreSQL, on version 15 in Docker; then images, compose and a loop from the host
	TUNIX_RT_TEST_POSTGRES=testcontainers TESTCONTAINERS_RYUK_DISABLED=true \
	  $(BIN)/python -m pytest $(PARALLEL) tests/contract -k "postgresql or databases" $(PYTEST_ARGS)
	$(BIN)/python -m pytest tests/containers $(PYTEST_ARGS)

lint: .venv/.dev ## ruff, mypy --strict, import contracts, buf lint, buf breaking, generated code and reference up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/build.py check
	$(BIN)/python clients/build.py check
	$(BIN)/python docs/generate.py check

format: .venv/.dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: .venv/.dev ## generate clients/tunix_rt/v1, the synchronous client and docs/reference
	$(BIN)/python protos/build.py generate
	$(BIN)/python clients/build.py generate
	$(BIN)/python docs/generate.py

bench: .venv/.bench ## run the benchmarks and print their figures; BENCH_ARGS="trace-import --data FILE" chooses
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean: ## remove what make built: .venv, caches, the demo's output
	rm -rf .venv $(DEMO_DIR) .coverage .coverage.* .mypy_cache .ruff_cache .hypothesis .import_linter_cache .jax_cache

# The stamps are newer than what they were made from, so that a second run starts at once.
.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not there; set PYTHON to a Python 3.11, 3.12 or 3.13" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.local: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[local]'
	@touch $@

.venv/.bench: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ .venv/.local

.venv/.mutation: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[mutation]'
	@touch $@ .venv/.dev .venv/.local

.venv/.peers: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[peers]'
	@touch $@ .venv/.dev .venv/.local

CLIENTS := examples/clients
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" npm --no-audit --no-fund --loglevel=error --fetch-retries=1 --fetch-timeout=60000

# What comes from PyPI and npm, and what is made of the protos.
.venv/.node: pyproject.toml constraints.txt $(wildcard $(CLIENTS)/*/package*.json) | .venv/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[clients]'
	cd $(CLIENTS)/node && $(NPM) ci
	cd $(CLIENTS)/typescript && $(NPM) ci
	@touch $@ .venv/.dev .venv/.local

.venv/.clients: .venv/.node $(wildcard $(CLIENTS)/typescript/*.* protos/*/*/*.proto)
	cd $(CLIENTS)/typescript && $(NPM) run build
	@touch $@
