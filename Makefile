# Everything a newcomer needs is `make demo` and `make test`; both build .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export ACCORD_DATA ?= $(wildcard $(abspath ../shared/data))
JOBS ?= 2

.PHONY: demo test check bench docs format clean

$(BIN)/accord: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(BIN)/accord
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(BIN)/accord  ## train on the built-in digits, evaluate, write the report
	$(BIN)/accord demo

test: $(VENV)/.dev  ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

check: $(VENV)/.dev  ## formatting, lint, types, architecture, documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_architecture.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/docs

bench: $(VENV)/.dev  ## benchmarks; figures depend on the machine, ratios much less
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/losses.py

docs: $(VENV)/.dev  ## docs/ as HTML in build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/docs

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build
