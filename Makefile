# Everything here needs git, make and a Python >= 3.11 with venv and pip; `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help run test test-all lint docs bench lock install install-dev clean

BOOTSTRAP := sh deploy/bootstrap.sh
PYTHON_OF_VENV := .venv/bin/python
# Test processes: one more than cores, because many tests wait for leases and processes; at most 8.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
JOBS ?= $(shell n=$$(( $(CORES) + 1 )); echo $$(( n < 8 ? n : 8 )))

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | awk -F '\t' '{printf "  make %-10s %s\n", $$1, $$2}'

run: install ## Run the gateway here and make a first song; ARGS=--exit stops after it.
	@exec $(PYTHON_OF_VENV) -P -m gateway.cli up --demo $(ARGS)

test: install-dev ## Run every test that needs no GPU, on a real Postgres.
	@$(PYTHON_OF_VENV) -m pytest -m "not slow" -n $(JOBS) $(ARGS)

test-all: install-dev ## Run the slow proofs as well.
	@$(PYTHON_OF_VENV) -m pytest -n $(JOBS) $(ARGS)

lint: install-dev ## Check style, types, import directions and the docs.
	@$(PYTHON_OF_VENV) -m ruff check .
	@$(PYTHON_OF_VENV) -m ruff format --check .
	@$(PYTHON_OF_VENV) -m mypy
	@.venv/bin/lint-imports
	@$(PYTHON_OF_VENV) -m pytest -q tests/architecture

docs: install-dev ## Make anew what the docs take from the code.
	@$(PYTHON_OF_VENV) docs/generate_errors.py
	@$(PYTHON_OF_VENV) docs/generate_api.py
	@$(PYTHON_OF_VENV) docs/generate_memory.py
	@$(PYTHON_OF_VENV) docs/generate_index.py

bench: install-dev ## Measure: about fifteen minutes; ARGS=--quick only shows that everything runs.
	@$(PYTHON_OF_VENV) -m benchmarks $(ARGS)

lock: ## Resolve pyproject.toml anew into both locks.
	@$(BOOTSTRAP) lock

install: ## Make .venv with what running needs.
	@$(BOOTSTRAP) run

install-dev: ## Make .venv with what tests need.
	@$(BOOTSTRAP) dev

clean: ## Remove .venv and caches; state, keys and songs stay.
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
