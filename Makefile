# make run and make test are all the set-up a fresh machine needs: Python 3.11 and the package registries.
# ARGS goes through: make run ARGS="devices=2 steps=8", make test ARGS="-k ring".
# PIP_ARGS too, to choose another build of torch, say: make run PIP_ARGS="--index-url ..."

PYTHON ?= $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
ARGS ?=
JOBS ?= 2
PIP_ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1
unexport PYTHONDONTWRITEBYTECODE # the tests start processes by the hundred, each would compile what it imports

.PHONY: help run test slow lint format typecheck report train clean lock

help:            ## what each target does
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## */  make \1\t/' | expand -t 20

run: $(STAMP)    ## every parallel method on the shipped model, four ranks
	$(BIN)/python run.py experiment=quickstart $(ARGS)

test slow: export OMP_NUM_THREADS = 1 # a process a core

test: $(STAMP)   ## all but the slow tests, in two processes (JOBS): the tests start ranks of their own
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(ARGS)

slow: $(STAMP)   ## the slow tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m slow --timeout 900 $(ARGS)

lint: $(STAMP)   ## ruff, check only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## ruff, in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(STAMP) ## mypy
	$(BIN)/mypy

report: $(STAMP) ## tables and figures again, from committed records alone, then all of it as results/report.html
	$(BIN)/python -m analysis $(ARGS)
	$(BIN)/python -m analysis report

train: $(STAMP)  ## train the shipped model
	$(BIN)/python run.py experiment=train_emoji $(ARGS)

clean:           ## caches, runs and the environment
	rm -rf .venv results/runs outputs multirun wandb build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock: $(STAMP)   ## write the versions installed now to constraints.txt
	{ sed -n 1p constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' | grep -v '@'; } > constraints.tmp
	mv constraints.tmp constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing pinned versions into .venv: some minutes the first time"
	@$(BIN)/python -m pip install -qq -c constraints.txt $(PIP_ARGS) -e '.[lab,test,dev]'
	@touch $@
