# The front door. `make demo` and `make test` do everything on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: setup demo report results-page test-fast test test-all lint types docs docs-site docs-serve docs-pictures bench bench-full gpu-check clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	touch $@

# Set up, pretrain on the embedded images, probe, and print a summary with the paths of the results. A second call resumes.
demo: setup
	$(BIN)/cnnjepa train --preset demo --out runs/demo --resume

# Report the studies: tables, statistics, pictures, and a page to open in a browser.
report: setup
	$(BIN)/cnnjepa report

# The same from the evidence in results/: the page is results/photos/report/report.html, which git ignores.
results-page: setup
	$(BIN)/cnnjepa report --root results/photos

# JOBS processes, each of which runs whole test files; JOBS=1 runs one. pyproject.toml describes the markers.
JOBS   ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# What starts no process and takes no seconds; under 90 s on two cores.
test-fast: setup
	$(PYTEST) -m "not (medium or slow or processes or kills or ray or browser)"

# All but the slow tests.
test: setup
	$(PYTEST) -m "not slow"

# Everything; the CI runs this.
test-all: setup
	$(PYTEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# The generated references and the tables from results/; a test fails when they are stale.
docs: setup
	$(BIN)/python docs/generate.py

# The documentation site, in build/site; a warning is an error.
docs-site: setup
	$(BIN)/zensical build --clean --strict

# The same at localhost:8000, rebuilt when a page changes.
docs-serve: setup
	$(BIN)/zensical serve

# The pictures of the documentation, from the run of `make demo`.
docs-pictures: demo
	$(BIN)/python docs/draw.py runs/demo

# Every speed next to its target, in under five minutes on two cores; writes benchmarks/out/*.json.
bench: setup
	$(BIN)/python benchmarks/all.py --quick

# The same with all rounds and full sizes, in about ten minutes.
bench-full: setup
	$(BIN)/python benchmarks/all.py

# What is to be shown on a GPU, tests first, within MINUTES; writes benchmarks/out/gpu. Needs a CUDA GPU, and no Ray.
MINUTES ?= 10
gpu-check: setup
	$(BIN)/python benchmarks/gpu_check.py --minutes $(MINUTES)

clean:
	rm -rf results/*/report results/*/studies/*/report build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/out
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
