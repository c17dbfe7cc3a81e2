# make help          what there is
PYTHON ?= python3.11
BIN := .venv/bin
PHOTOGRAPHS := .cache/photographs
RUN ?= runs/demo
PYTEST_ARGS ?=
export GX_ANALYTICS_ENABLED = false
export DVC_NO_ANALYTICS = true
export DO_NOT_TRACK = 1
export PIXCLIP_HOME = $(CURDIR)

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-vllm test lint airflow lock golden clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.installed $(PHOTOGRAPHS)/.complete  ## the virtual environment and the photographs

.venv/.installed: locks/laptop.txt pyproject.toml scripts/install.py
	$(PYTHON) scripts/install.py --venv .venv --lock locks/laptop.txt
	@touch $@

$(PHOTOGRAPHS)/.complete: | .venv/.installed
	$(BIN)/python -m components.sample_grit.photographs --into $(PHOTOGRAPHS)
	@touch $@

test: lint  ## lint and all tests that need neither GPU nor network
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: setup  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean:  ## remove runs and caches, keep environments and photographs
	rm -rf runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
