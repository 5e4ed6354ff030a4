# Every target does its own set-up in .venv and is quick when nothing changed.
.PHONY: help demo check format test quick deep bench docs fuzz clean
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
MINUTES ?= 1
TARGET ?= codec
# One process for each core. A core that has run its own tests takes some of another's, in the files' order,
# so that what a file sets up is set up twice at most.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

help:  ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.venv/bin/python:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv)
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "heartline needs Python 3.11 or newer"'
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[demo]'
	@touch $@

# Dependency groups take a newer pip than the one with which a venv of Debian 12 begins.
.venv/.dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check 'pip>=25.1'
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[demo]' --group dev
	@touch $@ .venv/.demo .venv/.docs

# What the documentation needs, and nothing else: Sphinx imports heartline with NumPy for the reference.
.venv/.docs: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check 'pip>=25.1'
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[federated]' --group docs
	@touch $@

demo: .venv/.demo  ## train a federation on real data and draw its learning curve
	$(BIN)/python examples/federated_digits.py

check: .venv/.dev  ## lint, types, layers, public names
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/check_public_types.py

format: .venv/.dev  ## format the code, and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: check  ## everything that must hold, with branch coverage
	$(PYTEST) --cov --cov-report=term $(ARGS)

quick: .venv/.dev  ## the fast tests, while you work: make quick ARGS="-k push"
	$(PYTEST) -q -m "not slow" --hypothesis-profile=quick $(ARGS)

deep: .venv/.dev  ## every property on a hundred times the examples, for hours: make deep ARGS=tests/wire
	$(PYTEST) -m hypothesis --hypothesis-profile=deep --timeout=0 $(ARGS)

bench: .venv/.dev  ## measure against peers in one run
	$(BIN)/python -m tests.benchmarks all

docs: .venv/.docs  ## build the documentation, warnings are errors
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

fuzz: .venv/.dev  ## run one fuzz target: make fuzz TARGET=codec MINUTES=10
	$(BIN)/python -m fuzz $(TARGET) --minutes $(MINUTES)

clean:  ## remove what the targets made
	rm -rf .venv docs/_build out .coverage
