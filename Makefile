# make demo, make test: all that a fresh machine with Python 3.10+ needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check evidence bench-speed sandbox-model build clean

demo: $(INSTALLED)
	@$(BIN)/ttt demo

test: check
	$(BIN)/python -m pytest

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What adapting is worth: the tables of docs/evidence.md (hours on 2 cores). Stopped, it goes on where
# it was; each folder in results/ has a report of its own.
COMMON := in-context qttt qttt:parametrization=full bm25 bm25-only lr-zero chance
ABLATIONS := in-context qttt qttt:gate=false qttt:early_stopping=false \
	qttt:steps=8 qttt:steps=16 qttt:steps=128 qttt:clozes_per_step=6 qttt:clozes_per_step=96 \
	qttt:r=1 qttt:r=4 qttt:r=64 \
	qttt:layers_to_transform=0 qttt:layers_to_transform=1 qttt:layers_to_transform=2 \
	qttt:learning_rate=0.0003 qttt:learning_rate=0.001 qttt:learning_rate=0.01 \
	qttt:optimizer=sgd,learning_rate=0.3 \
	qttt:supervision=mixture qttt:supervision=mixture,gate=false \
	qttt:supervision=recurrence,gate=false qttt:supervision=random_span,gate=false \
	qttt:supervision=high_loss,gate=false qttt:supervision=high_entropy,gate=false \
	qttt:supervision=self_study,gate=false
IN_PLACE := in-context qttt:supervision=random_span,gate=false qttt:supervision=recurrence,gate=false
QUESTION := in-context qttt qttt:supervision=retrieved qttt:supervision=retrieved,gate=false \
	qttt:supervision=retrieved,gate=false,warm_start=false qttt:supervision=evidence,gate=false \
	qttt:supervision=retrieved,objective=attention \
	qttt:supervision=retrieved,objective=attention,gate=false
COMPUTE := in-context thinking self-consistency qttt qttt+thinking
# $(call eval-on,TASK,LENGTHS,ARMS,FOLDER)
eval-on = $(BIN)/ttt eval --seeds 5 --examples 2 --task $(1) --output results/$(4) \
	$(foreach length,$(2),--length $(length)) $(foreach arm,$(3),--arm $(arm))

evidence: $(INSTALLED)
	$(call eval-on,registry,64 128 256 512 1024 2048,$(COMMON),registry)
	$(call eval-on,ledger,64 128 256 512 1024,$(COMMON),ledger)
	$(call eval-on,ledger,256,$(ABLATIONS),ablations)
	$(call eval-on,registry,64 256 1024 2048,$(IN_PLACE),in-place)
	$(call eval-on,ledger,256,$(QUESTION),question)
	$(call eval-on,ledger,256,$(COMPUTE),compute)
	$(BIN)/python -m bench.attention --lines 64 1024 2048 --seeds 6 --questions 16

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
