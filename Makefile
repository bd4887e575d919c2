# `make demo` or `make test` on a fresh machine is the whole set-up: both install first, once.
#
# Without a network, from a folder of wheels that `make wheels` filled on a machine that has one:
#     PIP_NO_INDEX=1 PIP_FIND_LINKS=/path/to/wheels make test

SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
WHEELS ?= dist/wheels
WORLD ?= build/world
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

DEMO = $(BIN)/diffalign find "a blue car on the moon" --out runs/demo --overwrite

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test nightly lint format install wheel wheels world clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(INSTALLED) ## align a prompt on the embedded world; pictures and figures in runs/demo
	$(DEMO)

# One thread a worker: the workers share the cores. No hub: a test that reaches for one has a fault.
test: $(INSTALLED) ## run the tests (more arguments: make test ARGS="-k find")
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

nightly: $(INSTALLED) ## damage a file of every kind 10,000 times instead of 500, and read it
	DAMAGE_EXAMPLES=10000 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) \
	  tests/damage/test_damage.py $(ARGS)

lint: $(INSTALLED) ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m mypy

format: $(INSTALLED) ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

install: $(INSTALLED) ## install into .venv, if pyproject.toml or constraints.txt changed

# What an earlier build left in build/lib would go into the wheel, deleted modules too.
wheel: $(INSTALLED) ## build the package's wheel in dist
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist .
	@ls dist/diffalign-*.whl

wheels: $(INSTALLED) ## download every wheel that an offline install needs (WHEELS=folder)
	$(BIN)/python -m pip download --no-build-isolation -d $(WHEELS) -c constraints.txt setuptools '.[dev]'

world: $(INSTALLED) ## train the embedded world from nothing (hours on a CPU; resumes where it stopped)
	$(BIN)/python -m recipes.world.train --out $(WORLD)

clean: ## remove caches and demo runs; keeps .venv, build and dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache runs/demo src/*.egg-info
	find src tests recipes benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The build backend is installed first and used in place (no build isolation), so that pip asks the
# index only for what is missing and for nothing once everything is there.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install -q -c constraints.txt setuptools
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# pip is the last thing that venv writes: where it is, the environment is whole
$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "no '$(PYTHON)' here: install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "diffalign needs Python 3.11 or newer and '$(PYTHON)' is $$($(PYTHON) --version 2>&1);" \
	       "name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
