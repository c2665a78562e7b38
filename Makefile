# `make train` and `make test` set up everything that they need in $(VENV).
VENV ?= .venv
PYTHON ?= python3
ARGS ?=
BIN := $(VENV)/bin

.PHONY: train test lint format clean

train: $(VENV)/.installed
	$(BIN)/python scripts/train.py $(ARGS)

test: lint
	$(BIN)/pytest $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

# A stamp is newer than pyproject.toml exactly while the environment matches it.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $(VENV)/.installed $@
