# Every target sets up what it needs in .venv, with the versions of constraints.txt.
# Needed beforehand: Python 3.11 or newer, make, a C compiler and a package registry.

PYTHON ?= python3
WORKERS ?= 2
BENCH_OPTIONS ?=

VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e
RUNTIME := $(VENV)/runtime-is-installed
DEV := $(VENV)/dev-is-installed
BENCH := $(VENV)/bench-is-installed
DOCS := $(VENV)/docs-is-installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench nightly clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile

demo: $(RUNTIME) ## clear a shipped day, write pictures to build/demo, tell a story in build/story, ready a console
	$(VENV)/bin/dlmp demo --out build/demo
	@echo
	$(VENV)/bin/dlmp story goleta16 --also goleta16_spring --out build/story
	@echo
	@rm -rf build/console
	$(VENV)/bin/dlmp simulate --feeder goleta16 --as-shipped --keep build/console --quiet

test: lint ## lint, then all tests but the slow ones
	OPENBLAS_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS)

lint: $(DEV) ## ruff, mypy and import-linter
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-logo

docs: $(DOCS) ## build the pages of docs in build/docs; every warning is an error
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

bench: $(BENCH) ## compare the engine with its peers (BENCH_OPTIONS=--quick: minutes), and time the service under load
	OPENBLAS_NUM_THREADS=1 $(RUN) -m benchmarks $(BENCH_OPTIONS)
	OPENBLAS_NUM_THREADS=1 $(RUN) -m benchmarks.service

nightly: lint $(BENCH) ## all tests with their coverage, the slow ones too, then the pages and the benchmarks
	DLMP_EXAMPLES=500 OPENBLAS_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) --cov --cov-report=term -m "nightly or not nightly"
	$(MAKE) docs
	$(MAKE) bench BENCH_OPTIONS=--quick

clean: ## remove everything that was made here
	rm -rf $(VENV) build dist .coverage .hypothesis .*_cache
	find api dlmp tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@command -v "$(PYTHON)" > /dev/null || { \
		echo 'There is no command $(PYTHON). Name a Python 3.11 or newer: make PYTHON=/path/to/python3' >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "dlmp needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1)." \
			'Name another: make PYTHON=/path/to/python3' >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2> /dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: its modules venv and ensurepip are missing." \
			'On Debian and Ubuntu they are in a package of their own: apt-get install python3-venv' >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(RUNTIME): $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	$(INSTALL) .
	@touch $@

$(DEV): $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	$(INSTALL) '.[dev]'
	@touch $@ $(RUNTIME)

$(BENCH): $(DEV)
	$(INSTALL) '.[dev,bench]'
	@touch $@

$(DOCS): $(RUNTIME)
	$(INSTALL) '.[docs]'
	@touch $@
