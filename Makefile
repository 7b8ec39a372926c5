# One door for contributors; CI calls the same targets. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
ARGS ?=

.PHONY: help setup demo test test-fast lint format bench docs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## make .venv with everything that development needs

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	PYTHON=$(PYTHON) VENV=$(VENV) bash scripts/setup.sh
	@touch $@

demo: $(STAMP) ## every part with real models on this machine; ARGS="--once --json" for scripts
	@$(BIN)/lattice demo $(ARGS)

test: $(STAMP) lint ## lint, types and every test but the hardware ones
	$(BIN)/lattice-ctl models fetch
	$(BIN)/python -m pytest $(ARGS)

test-fast: $(STAMP) ## unit and contract tests only
	$(BIN)/python -m pytest tests/unit tests/contract $(ARGS)

lint: $(STAMP) ## ruff and strict mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## the figures in docs/benchmarks.md, as JSON; run it with nothing else running
	$(BIN)/lattice-ctl models fetch
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(STAMP) ## write the generated reference pages anew
	$(BIN)/python -m scripts.generate_docs

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis out
