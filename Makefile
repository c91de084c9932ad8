# One command each: `make demo` runs the main job, `make test` the tests. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One more than there are cores: many tests wait for a disk, or for a process that they are about to kill.
WORKERS ?= $(shell echo $$(( $$(nproc 2>/dev/null || echo 2) + 1 )))

# Tests that fork thousands of times run first, by themselves: the fork of a process takes as long as the process is
# large, and one that has imported what all tests need is ten times as large as one that has imported what these need.
FORKING := tests/durability tests/formats/test_background.py tests/formats/test_hdf5_faults.py \
    $(wildcard tests/lifecycle/test_migration_*.py) \
    $(addprefix tests/lifecycle/checkpoints/test_,concurrency.py folder.py order.py signals.py) \
    tests/lifecycle/backups tests/encryption tests/cli tests/reliability

# What the proofs have counted (docs/reliability.md). A run in which one is missing, or too small, fails.
FIGURES := $(CURDIR)/.figures.jsonl
COUNT = $(BIN)/python -m tests.reliability.figures $(FIGURES)
PAGE := docs/reliability.md
PROOFS := tests/reliability tests/hostile tests/lifecycle/backups/test_checking.py tests/lifecycle/backups/test_repair.py \
    $(addprefix tests/cloud/test_,committers.py cloud_kills.py cloud_cuts.py cloud_flips.py full_disk.py)

# quimb would compile its functions anew in each process of a new environment, which takes longer than the tests.
export NUMBA_DISABLE_JIT := 1

# Not compiled ahead: most modules of large libraries are never imported. What is imported is compiled once, whatever the
# environment says, and not by each of the hundreds of processes that tests start.
unexport PYTHONDONTWRITEBYTECODE
PIP = $(BIN)/pip install --quiet --disable-pip-version-check --no-compile

PYTEST = $(BIN)/pytest -n $(WORKERS) --dist worksteal

.PHONY: demo test lint bench soak figures docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.base
	$(BIN)/qmem demo $(ARGS)

test: $(VENV)/.test
ifdef ARGS
	$(PYTEST) $(ARGS)
else
	rm -f $(FIGURES)
	QMEM_FIGURES=$(FIGURES) $(PYTEST) $(FORKING)
	QMEM_FIGURES=$(FIGURES) $(PYTEST) $(addprefix --ignore=,$(FORKING))
	$(COUNT)
endif

# Writes what the last run has counted into its page.
figures:
	$(COUNT) --write $(PAGE)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

# As root only: what cannot be mounted or cut off is not left out here.
soak: export QMS_REQUIRE_ROOT := 1
soak: export QMS_REQUIRE_POWERCUT := 1
soak: $(VENV)/.test
	rm -f $(FIGURES)
	QMEM_TIMES=10 QMEM_SEED=$${QMEM_SEED:-$$(date +%s)} QMEM_FIGURES=$(FIGURES) $(PYTEST) $(PROOFS) --timeout 7200 $(ARGS)
	QMEM_TIMES=10 $(COUNT)

# The pages as a site, in site/.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

clean:
	rm -rf $(VENV) qmem-demo site

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python pyproject.toml
	$(PIP) -e .
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) -e '.[test]'
	$(PIP) --no-deps --upgrade --target $(VENV)/oldest-numpy numpy==2.0.2
	touch $@

$(VENV)/.bench: $(VENV)/.base
	$(PIP) -e '.[bench]'
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(PIP) -e '.[docs]'
	touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) -e '.[test,lint]'
	touch $@
