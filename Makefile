# `make demo` and `make test` work as the first command in a fresh clone: each installs into .venv first, once.

.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
JOBS ?= 2
TORCH_INDEX ?=
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3.14 python3 python,$(shell \
	command -v $(name) >/dev/null 2>&1 && $(name) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))

.PHONY: help install demo test lint types tests warm-start format bench ablations results clean

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

install: $(STAMP)  ## install Forage into .venv (TORCH_INDEX=<PyTorch's CPU wheel index> takes the CPU build)

$(STAMP): pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "Forage needs Python 3.11 or newer with venv (on Debian: the package python3-venv)."; \
		echo "None was found; install one, or name it: make PYTHON=/path/to/python3.12 install"; exit 1; }
	@if [ "$$(uname)" = Linux ] && [ -z "$(TORCH_INDEX)" ] && ! command -v nvidia-smi >/dev/null 2>&1; then \
		echo "No GPU was found here. PyTorch's default Linux wheel carries gigabytes of CUDA;"; \
		echo "  make install TORCH_INDEX=<PyTorch's CPU wheel index>"; \
		echo "takes the much smaller CPU build (pytorch.org, Get Started, Compute Platform: CPU, shows its address)."; \
		echo "Going on with the build that pip is set up to find."; fi
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet -c constraints.txt --index-url $(TORCH_INDEX) torch)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,fast]'
	@touch $(STAMP)

demo: install  ## train a small model on this machine, and see what it learned
	$(BIN)/forage demo

test: lint types tests  ## lint, type-check, test

lint: install  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## check types, strictly
	$(BIN)/mypy

tests: install  ## run the tests (WORKERS=2 processes, one thread each)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

warm-start: install  ## make the packaged small model anew, from nothing (half an hour on one core)
	$(BIN)/forage sft warm-start run.threads=1
	$(BIN)/forage export runs/warm-start forage/assets/tiny --dtype bfloat16

format: install  ## format, and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## run the benchmarks that need nothing else (benchmarks/README.md: the one against TRL)
	@for name in decode_limit rollout update; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

ablations: install  ## run benchmarks/ablations.toml into results/ablations.json: hours, and it goes on where it stopped (JOBS=2)
	$(BIN)/python benchmarks/ablations.py --jobs $(JOBS)

results: install  ## write docs/results.md from results/ablations.json
	$(BIN)/python docs/make_results.py

clean:  ## remove .venv and caches (runs stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
