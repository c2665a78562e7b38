# `make train` and `make test` set up everything that they need in $(VENV).
VENV ?= .venv
PYTHON ?= python3
ARGS ?=
BIN := $(VENV)/bin

.PHONY: train test lint format clean

train: $(VENV)/.installed
	$(BIN)/python scripts/train.py $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

# A stamp is newer than pyproject.toml, and names this folder, exactly while the environment fits.
$(VENV)/.installed: pyproject.toml | environment
	$(BIN)/python -m pip install --quiet -e .
	echo "$(CURDIR)" > $@

$(VENV)/.installed-dev: pyproject.toml | environment
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	echo "$(CURDIR)" | tee $(VENV)/.installed > $@

# An environment may be of an old Python, without pip, cut off, or moved here from another folder.
FITS := $(shell $(BIN)/python -m pip --version >/dev/null 2>&1 && \
	$(BIN)/python -c 'import sys; print(sys.version_info >= (3, 11))')
ifneq ($(FITS) $(shell cat $(VENV)/.installed 2>/dev/null),True $(CURDIR))
.PHONY: $(VENV)/.installed $(VENV)/.installed-dev
endif

.PHONY: environment
environment:
ifneq ($(FITS),True)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: PYTHON: expected Python 3.11 or later, found $$($(PYTHON) --version 2>&1);" \
		"name another, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: PYTHON: expected the modules venv and ensurepip in $(PYTHON), found none;" \
		"on Debian and Ubuntu, apt install python3-venv adds them" >&2; exit 2; }
	@test ! -e $(VENV) -o -e $(VENV)/pyvenv.cfg || { \
		echo "error: VENV: expected an environment or nothing at $(VENV), found something else" >&2; \
		exit 2; }
	rm -rf $(BIN)/python* $(VENV)/lib*/python3*/site-packages/pip $(VENV)/lib*/python3*/site-packages/pip-*
	$(PYTHON) -m venv $(VENV)
endif
