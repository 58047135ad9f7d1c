# meshnode: `make run` shows the product on this machine, `make test` runs the whole test suite.
# Needs python3.11 or newer, make and a package registry; everything else goes into a virtual environment.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

WHEELS ?= .wheels
ENGINE := $(shell sed -n 's/^ *"llama-cpp-python==\([^"]*\)".*/\1/p' pyproject.toml)
ENGINE_VENV := .venv-engine

.PHONY: run test test-engine test-page test-long lint bench bench-engine docs clean help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 20

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "meshnode needs python3.11 or newer on PATH (or: make PYTHON=/path/to/python3.11)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"meshnode needs Python 3.11 or newer, found {v.major}.{v.minor}: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) can't make a virtual environment: Debian and Ubuntu keep that in a package of its own (apt install python3-venv); or name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(PIP) install -e .
	@$(BIN)/python -m compileall -q meshnode planner proto
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed pyproject.toml
	$(PIP) install -e '.[dev]'
	@touch $@

run: $(VENV)/.installed  ## install, then run the demo: real nodes, a shortfall, then a plan
	$(BIN)/meshnode demo

lint: $(VENV)/.installed-dev  ## ruff, mypy --strict and the import contract
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.installed-dev  ## the whole test suite (some minutes)
	$(BIN)/pytest -m 'not long and not browser and not engine'

$(WHEELS)/.llama-cpp-python-$(ENGINE): $(VENV)/.made
	@mkdir -p $(WHEELS)
	@echo "building llama-cpp-python $(ENGINE) with its RPC backend: about seven minutes on two cores, once"
	CMAKE_ARGS="-DGGML_RPC=ON" $(PIP) wheel --no-deps --wheel-dir $(WHEELS) llama-cpp-python==$(ENGINE)
	@touch $@

# An environment of its own on top of the other: the rest of the suite runs as on a machine without an engine.
$(ENGINE_VENV)/.installed: $(VENV)/.installed-dev $(WHEELS)/.llama-cpp-python-$(ENGINE)
	@$(PYTHON) -m venv $(ENGINE_VENV)
	@base=$$(echo $(abspath $(VENV))/lib/python*/site-packages) && own=$$(echo $(ENGINE_VENV)/lib/python*/site-packages) \
		&& echo "import site; site.addsitedir('$$base')" > "$$own/base.pth"
	$(ENGINE_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --find-links $(WHEELS) llama-cpp-python==$(ENGINE)
	@touch $@

test-engine: $(ENGINE_VENV)/.installed  ## real inference over real nodes; builds llama.cpp the first time
	$(ENGINE_VENV)/bin/python -m pytest -m engine --timeout=300

bench-engine: $(ENGINE_VENV)/.installed  ## tokens per second: one process, split over plain TCP, split over the mesh
	PYTHONPATH=tests $(ENGINE_VENV)/bin/python -m bench.engine

test-page: $(VENV)/.installed-dev  ## the live page in a real browser (needs chromium on PATH)
	$(BIN)/pytest -m browser

test-long: $(VENV)/.installed-dev  ## 1,000-node simulations and full oracle comparisons
	$(BIN)/pytest -m long --timeout=1800

bench: $(VENV)/.installed-dev  ## print the figures the README quotes
	PYTHONPATH=tests $(BIN)/python -m bench $(NAMES)

docs: $(VENV)/.installed-dev  ## make the reference pages from the code
	$(BIN)/python -m meshnode.reference .

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) $(ENGINE_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
