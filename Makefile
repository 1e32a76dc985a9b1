# Two commands for a fresh machine: `make demo`, `make test`. Both install into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test e2e lint types layers bench clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[capture]" --group dev
	touch $@

## analyse the shipped sample to a table and an HTML report
demo: $(STAMP)
	$(BIN)/nsyskit analyze traces/demo/trace.sqlite --html demo.html --force
	@echo && echo "HTML report: demo.html"

test: $(STAMP)
	$(BIN)/python -m pytest

## the real nsys 2023.4 and the real llama.cpp, in the root that NSYSKIT_E2E_ROOT names
e2e: $(STAMP)
	$(BIN)/python -m pytest tests/e2e

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) demo.html
