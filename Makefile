# Two commands do all the set-up: `make demo` and `make test`. Everything is installed into .venv from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
# --no-compile: of 3 GB most is never imported, and Python compiles the rest when it is
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile

.PHONY: demo test check bench page clean
demo: .venv/run
	$(BIN)/diascope demo $(ARGS)

test: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder --durations=25 $(ARGS)

check: .venv/dev
	$(BIN)/ruff check src tests benchmarks tutorials
	$(BIN)/ruff format --check src tests benchmarks tutorials
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# Small forms of the benchmarks of speed and memory (about 10 minutes); docs/benchmarks.md has the full ones and what they gave.
bench: .venv/dev
	$(BIN)/python benchmarks/train_step.py --rounds 3 --warm-up 1
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/encode.py --latents 16384 65536 --rounds 3
	$(BIN)/python benchmarks/harvest.py --tokens 4096 --rounds 2
	$(BIN)/python benchmarks/suite.py --tokens 2048

# The explorer's page, from TypeScript (needs Node; the result is committed, so users do not).
page:
	cd src/diascope/explorer/web && npm ci --no-audit --no-fund && npm run check && npm run build

# torch is installed first and pinned: an open range would bring several GB of CUDA where there is no GPU.
.venv/torch: constraints.txt
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), f"diascope needs Python 3.11 to 3.13, this is {sys.version.split()[0]}: run make PYTHON=/path/to/python3.12"'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing torch (about a minute) ..."
	$(PIP) -c constraints.txt torch==2.13.0
	@touch $@

.venv/run: .venv/torch pyproject.toml
	@echo "installing diascope ..."
	$(PIP) -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/run
	@echo "installing the test tools ..."
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv workspace
