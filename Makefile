# The two commands: `make up` and `make test`. The rest is for those who work on Model Sandbox itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help up down test test-nonroot check bench soak format clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

up: $(VENV)/.installed sandbox.yaml ## install into .venv, then start the models of sandbox.yaml
	@$(BIN)/sandbox up || [ $$? -eq 130 ] # Ctrl-C is how it ends

down: ## stop them
	@$(BIN)/sandbox down

test: $(VENV)/.installed-dev ## all tests; those that need a Docker engine say so where there is none
	@$(BIN)/pytest

test-nonroot: $(VENV)/.installed-dev ## the tests whose outcome depends on who runs them
	@SANDBOX_LOAD_SECONDS=10 SANDBOX_LOAD_EDITS=33 \
	    $(BIN)/pytest tests/contract tests/e2e tests/unit/control -m "docker or nonroot" \
	    $(addprefix --ignore=tests/e2e/load/test_,compose.py exits_under_load.py faults_under_load.py)

check: $(VENV)/.installed-dev ## what must hold of the code itself: ruff, mypy, import-linter, the documentation
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest -q tests/docs

bench: $(VENV)/.installed-dev ## measure, and write docs/benchmarks.md
	@$(BIN)/python -m tests.bench

soak: $(VENV)/.installed-dev ## the long tests
	@SANDBOX_TEST_LIBRARIES=all $(BIN)/pytest tests/libraries
	@SANDBOX_SOAK_SECONDS=$${SANDBOX_SOAK_SECONDS:-1800} $(BIN)/pytest -m soak

format: $(VENV)/.installed-dev ## put the code into our form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove what make made here
	rm -rf $(VENV)

sandbox.yaml:
	@cp sandbox.yaml.example $@
	@echo "wrote sandbox.yaml (a copy of sandbox.yaml.example)"

$(VENV)/bin/python:
	@command -v git >/dev/null || { echo "missing: git (apt install git)"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "missing: python3, 3.11 or newer (apt install python3)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "too old: $$($(PYTHON) --version), 3.11 or newer is needed (make PYTHON=python3.11 up)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "missing: python3-venv (apt install python3-venv)"; exit 1; }
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	@echo "installing model-sandbox into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev]'
	@touch $@
