# make demo  the main job on an embedded phantom     make test  the whole suite
# make test-hpc  on a SLURM of one node, docs/hpc.md says what that needs     make docs  the site, in build/docs
# make test-faults  kills, fuzz and mutants, half an hour     make test-lowest  with the oldest libraries
# make coverage  lines that the suite runs, half an hour
# All build .venv first. They need Python 3.11 or newer, make, and a pip that reaches an index.
.DELETE_ON_ERROR:
.PHONY: env demo test test-hpc test-faults test-lowest coverage lint docs clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := demo

# Two test processes share the cores: one thread each.
SINGLE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
	ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1 NO_ET=1 MPLBACKEND=Agg

env: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt version
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
		"harmony-app needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: $(DEMO)/bids/dataset_description.json
	$(BIN)/harmony-app $(DEMO)/bids $(DEMO)/derivatives participant
	@echo
	@echo 'The scans of one head at two sites are in $(DEMO)/bids, the harmonized ones in $(DEMO)/derivatives.'
	@echo 'Look first at the report, $(DEMO)/derivatives/sub-01.html, then at docs/outputs.md.'

# Made once. A half-written one is no start: harmony-phantom wants a new folder.
$(DEMO)/bids/dataset_description.json: | $(INSTALLED)
	rm -rf $(DEMO)/bids
	NO_ET=1 $(BIN)/harmony-phantom $(DEMO)/bids --subjects 1 --sites siteA,siteD --contrasts T1w,T2w

lint: env
	$(BIN)/ruff check
	$(BIN)/ruff format --check

test: lint
	$(SINGLE) $(BIN)/python -m pytest -n 2 --dist loadfile --durations 10 -m 'not hpc and not faults'

test-hpc: env
	$(SINGLE) $(BIN)/python -m pytest tests/hpc -m hpc -rs

test-faults: env
	$(SINGLE) $(BIN)/python -m pytest tests/faults -m faults --durations 10

# The oldest versions that pyproject.toml promises to work with, in an environment of its own.
LOWEST := .venv-lowest
test-lowest: $(LOWEST)/.installed
	$(SINGLE) $(LOWEST)/bin/python -c 'import harmony_app.cli, harmony_app.app, harmony_app.workflows.harmony'
	$(SINGLE) $(LOWEST)/bin/python -m pytest tests/bids tests/imaging tests/methods tests/test_cli.py tests/test_app.py -m 'not slow'

$(LOWEST)/.installed: pyproject.toml tests/lowest.py
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) tests/lowest.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/lowest.txt --editable . pytest hypothesis
	@touch $@

coverage: env
	$(SINGLE) $(BIN)/python -m coverage run --parallel-mode -m pytest -n 2 --dist loadfile -m 'not hpc and not faults'
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --skip-covered --fail-under 90

# The pages of the interface are written below docs/_build, which git does not see.
docs: env
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo 'Open build/docs/index.html'

clean:
	rm -rf $(VENV) $(LOWEST) $(DEMO) build docs/_build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage*
