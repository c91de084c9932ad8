# One command each: `make demo` runs the main job, `make test` the tests. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

# Tests that fork thousands of times run first, by themselves: the fork of a process takes as long as the process is
# large, and one that has imported what all tests need is ten times as large as one that has imported what these need.
FORKING := tests/durability tests/formats/test_background.py tests/formats/test_hdf5_faults.py \
    $(wildcard tests/lifecycle/test_migration_*.py) \
    $(addprefix tests/lifecycle/checkpoints/test_,concurrency.py crashes.py folder.py order.py signals.py) \
    tests/lifecycle/backups tests/encryption tests/cli

PYTEST = $(BIN)/pytest -n $(WORKERS) --dist worksteal

.PHONY: demo test lint bench soak clean
.DELETE_ON_ERROR:

demo: $(VENV)/.base
	$(BIN)/qmem demo $(ARGS)

test: $(VENV)/.test
ifdef ARGS
	$(PYTEST) $(ARGS)
else
	$(PYTEST) $(FORKING)
	$(PYTEST) $(addprefix --ignore=,$(FORKING))
endif

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.test
	$(BIN)/pytest -m soak -s $(ARGS)

clean:
	rm -rf $(VENV) qmem-demo

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/oldest-numpy numpy==2.0.2
	touch $@

$(VENV)/.bench: $(VENV)/.base
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,lint]'
	touch $@
