# Two commands matter: `make quickstart` builds a small language model, `make test` checks the package in some ten minutes
# on two cores; `make test-rest` runs the slower tests, and `make install` nothing. All set up .venv from constraints.txt by themselves, and can be run
# again at any time.
#
#   PYTHON=python3.12     another Python, 3.11 or later
#   TORCH=existing        use the PyTorch that PYTHON has (a CUDA or ROCm build, say) and install none;
#                         .venv keeps to it until it is told TORCH=pinned

PYTHON ?= python3
TORCH ?= $(if $(wildcard .venv/.torch-existing),existing,pinned)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile
PIN := $(shell grep '^torch==' constraints.txt)
# The stamp of a virtual environment with PyTorch in it, one for either choice.
MADE := .venv/.torch-$(TORCH)

.PHONY: quickstart install test test-rest check fix docs clean

quickstart: .venv/.core
	$(BIN)/lilliput run quickstart

install: .venv/.core
	@echo "installed into .venv; . .venv/bin/activate gives you the command lilliput"

test: check
	$(PYTEST) -m "not gpu and not slow"

test-rest: .venv/.dev
	$(PYTEST) -m "slow and not gpu"

check: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

fix: .venv/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The reference, from docstrings; the guides are docs/guides.
docs: .venv/.dev
	$(BIN)/pdoc lilliput '!lilliput.publish.remote' '!lilliput.__main__' -o dist/docs
	@echo "open dist/docs/index.html"

clean:
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache dist
	find lilliput tests -name __pycache__ -prune -exec rm -rf {} +

# Editable, so that a recipe one edits is the recipe that runs, and a run can record its commit.
.venv/.core: $(MADE) pyproject.toml constraints.txt
	@echo "installing Lilliput into .venv"
	@$(PIP) install -c .venv/constraints.txt -e .
	@touch $@

.venv/.dev: $(MADE) pyproject.toml constraints.txt
	@echo "installing Lilliput and its development tools into .venv"
	@$(PIP) install -c .venv/constraints.txt -e ".[dev,interop]"
	@touch $@ .venv/.core

# PyTorch first and alone: exactly the pinned version, never whatever build a range would bring.
.venv/.torch-pinned: constraints.txt
	@$(call fresh_venv,)
	@echo "installing $(PIN) into .venv"
	@$(PIP) install -c constraints.txt $(PIN)
	@cp constraints.txt .venv/constraints.txt
	@touch $@

# The packages of PYTHON are visible in .venv, even where PYTHON is itself in a virtual environment, and pip is held to
# the PyTorch among them.
.venv/.torch-existing: constraints.txt
	@$(PYTHON) -c "import torch" 2>/dev/null || \
		{ echo "TORCH=existing, but $(PYTHON) cannot import torch; name one that can, PYTHON=..." >&2; exit 1; }
	@$(call fresh_venv,--system-site-packages)
	@$(PYTHON) -c "import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])" \
		> "$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/existing-torch.pth"
	@grep -v -E '^(torch|triton)==' constraints.txt > .venv/constraints.txt # a build of PyTorch brings its own Triton
	@$(BIN)/python -c "import torch; print('torch==' + torch.__version__)" >> .venv/constraints.txt
	@echo "using $$(tail -n 1 .venv/constraints.txt) of $(PYTHON)"
	@touch $@

define fresh_venv
$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	{ echo "Lilliput needs Python 3.11 or later: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }; \
$(PYTHON) -m venv --clear $(1) .venv
endef
