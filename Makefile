# make demo, make test: all that a fresh machine with Python 3.10+ needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check bench bench-speed sandbox-model build clean

demo: $(INSTALLED)
	@$(BIN)/ttt demo

test: check
	$(BIN)/python -m pytest

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What adapting is worth (an hour on 2 cores); results/ keeps what is done.
bench: $(INSTALLED)
	$(BIN)/python -m bench.sandbox

# What everything costs: the tables of docs/performance.md (each under 10 minutes on 2 idle cores).
bench-speed: $(INSTALLED)
	$(BIN)/python -m bench.questions
	$(BIN)/python -m bench.adaptation
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.scaling
	$(BIN)/python -m bench.store

# Trains the bundled model again, from nothing (at most 30 minutes on 2 cores).
sandbox-model: $(INSTALLED)
	$(BIN)/python -m ttt_core.sandbox.recipe --output core/ttt_core/sandbox/model

build: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt build
	$(BIN)/python -m build

# The constraints file names what was tested; without it, pip would pick other versions.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 10) else \
		f"Python 3.10 or newer is needed, this is {v.major}.{v.minor}; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	@touch $@

clean:
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
