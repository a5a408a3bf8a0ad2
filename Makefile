# Everything here also works without make: README.md names the plain commands.

SHELL := /bin/bash
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
# Empty is off: containers often forbid bytecode, and then every command compiles torch and MLflow anew (10 s each).
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup repro ui test lint bench

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-7s %s\n", $$1, $$2}'

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "error: Python 3.11 to 3.13 is needed, $$($(PYTHON) --version) found; name another with make PYTHON=..."; exit 2; }
	@$(PYTHON) -m venv .venv \
		|| { echo "error: Python's venv module is missing; on Debian: apt install python3-venv"; exit 2; }
	pip install --quiet --disable-pip-version-check uv
	uv pip sync --quiet --require-hashes requirements.lock
	uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

setup: .venv/.installed ## Create .venv with the pinned packages and this project

data: | .venv/.installed
	dvc pull --quiet data.dvc || { rm -rf data; exit 1; }

repro: .venv/.installed data ## Run what has changed of the pipeline and print the comparison
	dvc repro
	@mitoscope compare
	@echo "Open the MLflow UI with: make ui"

ui: .venv/.installed ## Open the MLflow UI on the runs
	mitoscope ui

test: .venv/.installed ## Run the test suite
	pytest -n 2 --dist loadfile

lint: .venv/.installed ## Check style, documentation and types
	ruff check .
	ruff format --check .
	mypy

bench: .venv/.installed ## Measure the speed of training and scoring
	python benchmarks/throughput.py
