# Everything here also works without make; README.md has the plain commands.

SHELL := /bin/bash
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# uv would otherwise install into the active environment.
export VIRTUAL_ENV := $(CURDIR)/.venv
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
# Empty means off: containers often set it, and then every command compiles torch and MLflow again (10 s each).
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup page shared repro ui test lint docs bench

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-7s %s\n", $$1, $$2}'

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "error: Python 3.11 to 3.13 is needed, $$($(PYTHON) --version) found; name another with make PYTHON=..."; exit 2; }
	@$(PYTHON) -m venv .venv \
		|| { echo "error: Python's venv module is missing; on Debian: apt install python3-venv"; exit 2; }
	pip install --quiet --disable-pip-version-check uv
	uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
	uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

web/node_modules/.installed: web/package.json web/package-lock.json | .venv/.installed
	@python scripts/npm.py ci --silent
	@touch $@

# The page of `mitoscope page`, with the Node of .venv. One that was brought from another machine needs no packages.
src/mitoscope/site/index.html: web/index.html web/package-lock.json web/vite.config.ts \
		$(shell find web/src web/public -type f) | .venv/.installed
	@$(MAKE) --no-print-directory web/node_modules/.installed
	python scripts/npm.py run --silent build -- --logLevel error
	@touch $@

page: src/mitoscope/site/index.html

setup: .venv/.installed page ## Create .venv with the pinned packages and this project, and build the web page

# MITOSCOPE_REMOTE: a DVC remote, such as a folder shared by several machines. Results in it are fetched, not computed,
# and new results are pushed to it. Its URL is stored in .dvc/config.local, which git ignores.
shared: .venv/.installed
ifdef MITOSCOPE_REMOTE
	@dvc config --local remote.shared.url "$$MITOSCOPE_REMOTE"
	@dvc config --local remote.shared.verify true
	@dvc config --local core.remote shared
endif

data: | shared
	dvc pull --quiet data.dvc || { rm -rf data; exit 1; }

repro: shared data ## Run the stages that have changed, promote the best detector, and print the comparison
	@$(MAKE) --no-print-directory page || echo "note: the web page is not built, which only \`mitoscope page\` needs"
	dvc repro $(if $(MITOSCOPE_REMOTE),--pull)
	mitoscope promote
	$(if $(MITOSCOPE_REMOTE),dvc push --run-cache)
	@mitoscope compare
	@echo "Open the MLflow UI with: make ui"

ui: .venv/.installed ## Open the MLflow UI
	mitoscope ui

test: setup web/node_modules/.installed ## Run the test suite
	pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: setup web/node_modules/.installed ## Check style, types, the dependencies of each stage, the web page, the container, and the docs site
	ruff check .
	ruff format --check .
	mypy
	python scripts/check_stage_deps.py
	python scripts/npm.py run --silent lint
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	zizmor --quiet --offline .github/workflows
	hadolint Dockerfile
	sphinx-build -q -E -W --keep-going docs docs/_build

docs: .venv/.installed ## Build the docs site and serve it on port 8000
	sphinx-build -q -E -W --keep-going docs docs/_build
	@echo "Open http://127.0.0.1:8000; Ctrl-C stops it"
	@python -m http.server --bind 127.0.0.1 --directory docs/_build 8000

bench: .venv/.installed ## Measure the speed of everything, or of ROWS="training scoring", beside other ways
	python -m benchmarks $(ROWS)
