# Two commands do all the set-up: `make demo` and `make test`. Everything is installed into .venv from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet

.PHONY: demo test check page clean
demo: .venv/run
	$(BIN)/diascope demo $(ARGS)

test: .venv/dev
	$(BIN)/python -m pytest $(ARGS)

check: .venv/dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

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
