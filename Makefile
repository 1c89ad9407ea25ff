# make demo   the whole pipeline on synthetic data          make test   all tests
# make quick  lint and the tests of a minute                make lint   formatting, types, Snakemake's own linter
# make real   tests on real parts: a small language model, vocabularies, pictures
# make test-pythons  tests without torch on every Python    make clean  delete the demo's results and the environment
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Snakemake and others want a home that they can write, and the user of a container may have none.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/.snakemake/home
endif

# As in pyproject.toml. The first of these that starts and fits makes the environment (a shim of pyenv's may be there and not start).
PYTHONS := python3.11 python3.12 python3.13 python3
fits = $(shell "$(strip $1)" -c 'import sys; print((3, 11) <= sys.version_info < (3, 14) or "")' 2>/dev/null)
PYTHON ?= $(firstword $(foreach name,$(PYTHONS),$(if $(call fits,$(name)),$(name))))
unfit = Python 3.11, 3.12 or 3.13 is needed, and $(if $(PYTHON),$(PYTHON) is none of them,none of $(PYTHONS) is here): make PYTHON=/path/to/python3.12

.PHONY: demo test test-pythons real quick lint lint-quick docs lock clean

$(VENV)/installed: requirements.lock pyproject.toml
	$(if $(call fits,$(PYTHON)),,$(error $(unfit)))
	"$(PYTHON)" -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(VENV)/installed
	@snakemake --profile profiles/local --configfile config/demo.yaml

# Tests start thousands of programs: each has one thread, and finds bytecode.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= pytest -q --dist loadfile --no-loadscope-reorder
test: $(VENV)/installed
	$(PYTEST) -n 3

# The quick tests and those of what depends on the Python; with QUICK= all unit tests, a quarter of an hour for each.
QUICK := --quick
test-pythons: $(VENV)/installed
	PYTHONDONTWRITEBYTECODE= PYTHONPATH=tests/slurm python tests/each_python.py $(QUICK)

# In a folder of their own, as they bring much that the pipeline must not find; what they depend on is there already, or not used.
REAL := $(VENV)/real-parts
$(REAL)/installed: $(VENV)/installed requirements-real.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(REAL) -r requirements-real.lock
	touch $@

real: $(REAL)/installed
	PYTHONPATH="$(CURDIR)/$(REAL)$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTEST) tests/real

quick: lint-quick
	$(PYTEST) -n 2 tests/unit --quick

lint: lint-quick
	snakemake --lint --configfile config/demo.yaml
	snakemake --lint

lint-quick: $(VENV)/installed
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow/rules
	mypy
	PYTHONPATH=workflow lint-imports

docs: $(VENV)/installed
	python -m medmim.config.generate_docs config

# Pins for a CPU-only torch lack CUDA's packages, which pip adds for the torch pinned here where there is a GPU.
lock: $(VENV)/installed
	$(VENV)/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) $(VENV)-* results/demo .snakemake
