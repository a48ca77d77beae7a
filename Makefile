# One command per intention, the same here and in CI. `make` alone lists them.
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
INSTALLED := .venv/installed
JOBS ?= 2
export HF_HUB_OFFLINE ?= 1
export OMP_NUM_THREADS ?= 1

.PHONY: help setup run demo check fix test bench docs screenshots migration
help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED) ## Virtual environment in .venv with the pinned dependencies

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "PanoLLaVA needs Python 3.11 or 3.12 on the PATH; set PYTHON=/path/to/it."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev,s3,wandb,tensorboard]'
	@touch $@

run: setup ## Dashboard and workers on this machine; prints the sign-in link
	$(BIN)/panollava up $(ARGS)

demo: setup ## The whole chain on demo data; ARGS=--headless stops when it is done
	$(BIN)/panollava demo $(ARGS)

check: setup ## Format, lint, types, imports, migrations against models
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/app/test_migrations.py

fix: setup ## Format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup ## All tests, in two processes; ARGS for pytest, JOBS=0 for one after the other
	$(BIN)/pytest --numprocesses=$(JOBS) --no-loadscope-reorder $(ARGS)

bench: setup ## How fast the engine is beside its peers, as a table; ARGS=--quick only shows that it runs
	$(BIN)/python -m tools.bench $(ARGS)

docs: setup ## Pages and pictures in docs/ that the code makes: settings, views
	$(BIN)/python -m tools.docs

screenshots: setup ## Pictures of the pages in docs/img, taken by the browser tests
	PANOLLAVA_PICTURES=docs/img $(BIN)/pytest tests/browser

migration: setup ## New migration from the models: make migration NAME="add a column"
	$(BIN)/alembic revision --autogenerate -m "$(NAME)"
