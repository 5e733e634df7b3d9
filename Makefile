# Every target bootstraps the environment it needs: the README's commands work on a fresh machine.
PYTHON ?= python3
PAPER  ?= digits
VENV   := .venv
UV     := .tools/bin/uv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.synced

# Tests that need a cluster, real data, a GPU or much time are asked for by name.
QUICK := not slow and not real and not gpu and not slurm
# The library's own tests, which `make test-versions` runs; those of the experiments run on the locked versions.
CORE  := tests --ignore=tests/experiments

export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help setup demo reproduce-paper test coverage test-slow test-real test-slurm \
  test-versions test-oldest test-newest lint format bench gpu sweep docs lock clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(STAMP)  ## Make .venv from requirements.lock (a second call does nothing)

$(UV):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; ok = (3, 11) <= v <= (3, 13); \
	  sys.exit(0 if ok else f"cpath needs Python 3.11, 3.12 or 3.13; {sys.executable} is {v[0]}.{v[1]}. Try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check uv

$(STAMP): requirements.lock pyproject.toml | $(UV)
	test -x $(PY) || $(UV) venv --quiet --python .tools/bin/python $(VENV)
	$(UV) pip sync --quiet --python $(PY) --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@touch $@

reproduce-paper: setup  ## Run every experiment of the paper (PAPER=digits) and write its report
	$(PY) -m experiments experiment=reproduce_paper paper=$(PAPER)

demo: setup  ## Find pathways of a real ImageNet network on real photographs: two minutes, a gallery and an explorer
	$(PY) -m experiments.demo outputs/demo

test: setup  ## Run the test suite
	$(PY) -m pytest -n 2 --dist worksteal -m "$(QUICK)"

coverage: setup  ## The same, and the lines of cpath that it does not reach; fails below 95 %
	$(PY) -m pytest -n 2 --dist worksteal -m "$(QUICK)" \
	  --cov=cpath --cov-report=term-missing:skip-covered --cov-fail-under=95

test-slow: setup  ## Run the slow checks (sweeps, subprocesses, long training)
	$(PY) -m pytest -m "slow and not real and not slurm"

test-real: setup  ## Run the checks on real weights and images (CPATH_REAL_DATA names their folder)
	$(PY) -m pytest -m "real and not slurm"

# Needs Debian's packages slurm-wlm and munge (apt install slurm-wlm munge); it starts and stops its own daemons.
test-slurm: setup  ## Run sweeps on a real Slurm of one node, on this machine
	$(PY) -m pytest -m slurm

# Each in an environment of its own, .tools/versions/NAME, with the versions in .tools/versions/NAME.txt.
test-versions: test-oldest test-newest  ## Run the library's tests on the oldest and newest versions admitted (10 GB)

test-oldest:  ## The same on the oldest alone (torch 2.11: 5 GB to fetch)
test-newest:  ## The same on the newest alone
test-oldest: RESOLUTION := lowest-direct
test-newest: RESOLUTION := highest
test-oldest test-newest: test-%: | $(UV)
	@mkdir -p .tools/versions
	@echo "$* versions, 1 of 3: choosing them from pyproject.toml"
	test -x .tools/versions/$*/bin/python || $(UV) venv --quiet --python .tools/bin/python .tools/versions/$*
	$(UV) pip compile pyproject.toml --quiet --extra dev --resolution $(RESOLUTION) --upgrade \
	  --python .tools/versions/$*/bin/python --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  -o .tools/versions/$*.txt
	@echo "$* versions, 2 of 3: installing torch, $$(grep -c == .tools/versions/$*.txt) packages in all"
	$(UV) pip sync --python .tools/versions/$*/bin/python .tools/versions/$*.txt
	@echo "$* versions, 3 of 3: testing on $$(grep -E '^(numpy|torch|torchvision)==' .tools/versions/$*.txt | xargs)"
	.tools/versions/$*/bin/python -m pytest $(CORE) -n 2 --dist worksteal -m "$(QUICK)"

lint: setup  ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: setup  ## Put the code into the project's style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: setup  ## Measure speed and memory (CPU, or the GPU where there is one)
	$(PY) -m experiments experiment=benchmark redo=true

gpu: setup  ## Run tests, benchmark, VGG-16 and ROAR tables on a GPU in ten minutes; GPU="--cifar10 FILE" or --dry-run
	$(PY) -m experiments.gpu outputs/gpu $(GPU)

sweep: setup  ## An example sweep, methods × sparsities × seeds; SWEEP=hydra/launcher=joblib runs jobs side by side
	$(PY) -m experiments -m experiment=path_analysis experiment.by_site=false \
	  method=neuron_mct,neuron_intgrad,random sparsity=80,90,99 seed=0,1,2 $(SWEEP)

lock: $(UV)  ## Renew requirements.lock from pyproject.toml
	$(UV) pip compile pyproject.toml --quiet --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements.lock

docs: setup  ## Make the documentation's site in docs/_build/html; a warning is an error
	$(PY) -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

clean:  ## Remove the environment and caches (never results)
	rm -rf $(VENV) .tools docs/_build docs/reference *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
