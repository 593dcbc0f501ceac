# `make` lists the targets. Needs GNU make and Python 3.11 or newer, nothing else.

PYTHON ?= python3
CONFIG ?=
# Processes that share the tests, each file whole: a gateway of a group of tests is started once.
WORKERS ?= 2
ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
STAMP := .venv/.installed
PURE := sidecar/domain/*,sidecar/protocol/*,sidecar/policy/*,sidecar/errors.py
PURE_TESTS := tests/domain tests/protocol tests/policy
LOCK := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url
# pip says this of each package that is there already.
BRIEF := { grep -v '^Requirement already satisfied' || true; }
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1

say = @printf '\033[1m== %s\033[0m\n' "$(1)"

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## make .venv with everything that the locks name

$(STAMP): requirements-dev.txt pyproject.toml
	$(call say,making .venv with $(PYTHON))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --require-hashes --progress-bar off -r requirements-dev.txt | $(BRIEF)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: lint
lint: setup ## ruff (rules and format) and the layering contract
	$(call say,lint)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

.PHONY: types
types: setup ## strict mypy over code and tests
	$(call say,types)
	$(BIN)/mypy

.PHONY: fmt
fmt: setup ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: test-pure
test-pure: setup ## tests of the pure rooms, which must reach every branch of them
	$(call say,pure rooms: every branch)
	COVERAGE_FILE=.coverage.pure $(BIN)/coverage run -m pytest -q $(PURE_TESTS) $(ARGS)
	COVERAGE_FILE=.coverage.pure $(BIN)/coverage report --include='$(PURE)' --show-missing --skip-covered --fail-under=100

.PHONY: browser
browser: setup ## Chromium for the tests; installed where it is missing and this is root on Debian
	@$(BIN)/python -m tests.stack.chromium

.PHONY: test
test: setup ## everything that a change has to pass
	@$(MAKE) --no-print-directory -j4 -O lint types test-pure browser
	$(call say,the rest)
	$(BIN)/pytest -m 'not deep and not alone' -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(addprefix --ignore=,$(PURE_TESTS)) $(ARGS)
	$(call say,many users at once)
	$(BIN)/pytest -m 'alone and not deep' $(ARGS)

.PHONY: test-fast
test-fast: setup browser ## all tests but those with a real gateway
	$(BIN)/pytest -q -m 'not live and not deep' $(ARGS)

.PHONY: test-deep
test-deep: setup ## the long runs
	HYPOTHESIS_PROFILE=deep $(BIN)/pytest -m deep --timeout=3600 $(ARGS)

.PHONY: watch
watch: setup ## twenty users at random for five minutes; WATCH_SEED repeats one
	WATCH_USERS=$${WATCH_USERS:-20} WATCH_SECONDS=$${WATCH_SECONDS:-300} $(BIN)/pytest -s tests/live/test_crowd.py $(ARGS)

.PHONY: exact
exact: setup ## ten people, hundreds of turns, and everything killed meanwhile: each token is billed once; EXACT_SEED repeats one
	EXACT_RUNS=$${EXACT_RUNS:-320} EXACT_KILLS=$${EXACT_KILLS:-12} $(BIN)/pytest -s tests/live/test_exactness.py $(ARGS)

.PHONY: fuzz
fuzz: setup ## property tests of the pure rooms, with many more examples
	HYPOTHESIS_PROFILE=deep $(BIN)/pytest --timeout=3600 $(PURE_TESTS) $(ARGS)

.PHONY: demo
demo: setup ## a gateway, an identity provider and the sidecar, to try; Ctrl-C ends all of it
	@exec $(BIN)/python -m tests.stack.demo $(ARGS)

.PHONY: run
run: setup ## the sidecar alone: make run CONFIG=my.toml
	@exec $(BIN)/sidecar run $(if $(CONFIG),--config $(CONFIG)) $(ARGS)

.PHONY: loadtest
loadtest: setup ## frames per second and added latency
	$(BIN)/python -m loadtest $(ARGS)

.PHONY: reference
reference: setup ## write config/reference.md
	$(BIN)/sidecar config reference > .reference.new
	mv .reference.new config/reference.md

.PHONY: check-reference
check-reference: setup
	@$(BIN)/sidecar config reference | diff -u config/reference.md - || { echo 'run: make reference' >&2; exit 1; }

.PHONY: lock
lock: setup ## write the requirement locks again; newer versions with ARGS=--upgrade
	$(LOCK) --extra embedded --extra dev -o requirements-dev.txt $(ARGS) > /dev/null
	$(LOCK) --extra embedded -c requirements-dev.txt -o requirements.txt $(ARGS) > /dev/null

.PHONY: clean
clean: ## remove everything that was made here, but not the data in var/
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info .coverage .coverage.*
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
