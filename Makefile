# make demo   the whole pipeline on synthetic data          make test   all tests
# make lint   formatting, types, Snakemake's own linter     make clean  delete the demo's results and the environment
PYTHON ?= $(shell command -v python3.11 2>/dev/null || command -v python3)
VENV := .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)
# Snakemake and others want a home that they can write, and the user of a container may have none.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export HOME := $(abspath .snakemake/home)
endif

.PHONY: demo test lint docs lock clean

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(VENV)/installed
	@snakemake --profile profiles/local --configfile config/demo.yaml

# Tests start thousands of programs: each has one thread, and finds bytecode.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= pytest -q -n 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow/rules
	mypy
	PYTHONPATH=workflow lint-imports
	snakemake --lint --configfile config/demo.yaml
	snakemake --lint

docs: $(VENV)/installed
	python -m medmim.config.generate_docs config

# Pins for a CPU-only torch lack CUDA's packages, which pip adds for the torch pinned here where there is a GPU.
lock: $(VENV)/installed
	$(VENV)/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) results/demo .snakemake
