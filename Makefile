# meshnode: `make run` shows the product on this machine, `make test` runs the whole test suite.
# Needs python3.11 or newer, make and a package registry; everything else goes into a virtual environment.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

WHEELS ?= .wheels
ENGINE := $(shell sed -n 's/^ *"llama-cpp-python==\([^"]*\)".*/\1/p' pyproject.toml)
ENGINE_VENV := .venv-engine
ENGINE_CMAKE := -DGGML_RPC=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON -DLLAVA_BUILD=OFF \
	-DLLAMA_USE_PREBUILT_UI=OFF -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON
# Another version, or a build with other options, is another folder.
BUILT := $(WHEELS)/llama.cpp-$(ENGINE)-$(shell echo '$(ENGINE_CMAKE)' | cksum | cut -d' ' -f1)
PROGRAMS := $(BUILT)/bin

.PHONY: run test engine-programs test-engine test-page test-long lint bench bench-engine docs clean help

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

# One build of llama.cpp, as the package's sources carry it, gives both: the package's libraries with the RPC backend, and
# the programs rpc-server and llama-server. Away from here, since it takes 0.5 GB; what is kept is $(WHEELS).
# A newer environment is no reason to build again.
$(BUILT)/.built: | $(VENV)/.made
	@echo "building llama-cpp-python $(ENGINE) and llama.cpp's programs: about seven minutes on two idle cores, once"
	@mkdir -p $(PROGRAMS)
	@set -e; place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; \
	$(PIP) download --no-deps --no-binary llama-cpp-python --dest "$$place" llama-cpp-python==$(ENGINE); \
	tar -xzf "$$place"/llama_cpp_python-$(ENGINE).tar.gz -C "$$place"; \
	CMAKE_ARGS="$(ENGINE_CMAKE)" $(PIP) wheel --no-deps --wheel-dir $(BUILT) --config-settings=build-dir="$$place/build" \
		--config-settings="build.targets=llama;ggml;llama-server;ggml-rpc-server" "$$place/llama_cpp_python-$(ENGINE)"; \
	cp -a "$$place"/build/bin/. $(PROGRAMS)
	@touch $@

# An environment of its own on top of the other: the rest of the suite runs as on a machine without an engine.
$(ENGINE_VENV)/.installed: $(VENV)/.installed-dev $(BUILT)/.built
	@$(PYTHON) -m venv $(ENGINE_VENV)
	@base=$$(echo $(abspath $(VENV))/lib/python*/site-packages) && own=$$(echo $(ENGINE_VENV)/lib/python*/site-packages) \
		&& echo "import site; site.addsitedir('$$base')" > "$$own/base.pth"
	$(ENGINE_VENV)/bin/python -m pip --disable-pip-version-check --quiet install $(BUILT)/*.whl
	@touch $@

engine-programs: $(BUILT)/.built  ## build llama.cpp's own programs, and the package's wheel with the same

test-engine: $(ENGINE_VENV)/.installed  ## real inference over real nodes, both engines; builds llama.cpp the first time
	ENGINE_PROGRAMS=$(abspath $(PROGRAMS)) $(ENGINE_VENV)/bin/python -m pytest -m engine --timeout=300 -rs

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
