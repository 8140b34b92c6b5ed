# The two commands of a newcomer are `make demo` and `make test`. Both set up .venv by themselves.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The first interpreter on the PATH that is 3.11 or later.
PYTHON ?= $(shell for python in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; \
	done)
# Some machines tell Python to write no bytecode. Then each worker would compile the package anew, which adds a half to
# its start. pip compiles what it installs, but not what is installed as editable.
export PYTHONDONTWRITEBYTECODE :=
VENV := .venv
BIN := $(VENV)/bin
# The files in requirements/ name every package with its version and the hashes of its files. pip takes no other file,
# and asks for nothing that they do not name. It takes wheels alone: what it builds from sources may ask for more, which
# no hash holds. On 3.15 some packages that the tests need have no wheels yet; `make WHEELS=` builds elsewhere too.
WHEELS ?= $(shell $(BIN)/python -c 'import sys; print("" if sys.version_info >= (3, 15) else "--only-binary=:all:")')
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install --no-deps
INSTALL = $(PIP) --require-hashes $(WHEELS) --requirement
LOCK = $(BIN)/uv --quiet pip compile --universal --python-version=3.11 --fork-strategy=fewest --generate-hashes \
	--no-header --no-annotate --no-emit-package=snakepit-trio --no-emit-package=snakepit-trio-worker \
	--no-build-isolation
# ASYNC109: our calls take a timeout, one budget for queueing, wire and tool. ASYNC114 and ASYNC9xx are optional
# rules for code without fast paths; tests show where our calls are checkpoints.
ASYNC_OFF := ASYNC109,ASYNC114,ASYNC900,ASYNC910,ASYNC911,ASYNC912,ASYNC913
CODE := snakepit_command.py snakepit_trio bridge_py proto tests property_tests benchmarks docs/drawing docs/examples $(wildcard docs/*.py)

.PHONY: help demo test test-cluster quick check messages format docs links pictures bench chaos fuzz mutants requirements \
	changelog packages clean

help:
	@echo "make demo [ARGS=--chaos]   measure the standard library in worker processes"
	@echo "make test                  all checks and tests; ARGS=\"-m 'not slow'\" leaves the slowest out"
	@echo "make test-cluster          pools on a Ray cluster of three nodes on this machine, in some minutes"
	@echo "make quick                 tests that start no process, in a minute; ARGS='-k name' chooses some"
	@echo "make check                 the quick ones: format, lint, types, generated messages"
	@echo "make bench [ARGS=--quick]  compare with trio-parallel, ProcessPoolExecutor and grpc.aio"
	@echo "make chaos [ARGS='--only ends']  load while workers are killed and the host is in trouble, with a report"
	@echo "make fuzz [ROUNDS=10]      read INPUTS=1000000 broken inputs, then run the property tests on new examples"
	@echo "make mutants               put faults into the code; the property tests must find each"
	@echo "make requirements [UPGRADE=--upgrade]  lock the versions of packages and their hashes anew"
	@echo "make docs                  build the pages into docs/_build/html; make links tries the links to other sites"
	@echo "make pictures [ARGS=life]  make the pictures of the docs anew, from the code"
	@echo "make changelog [VERSION=0.2.0]  show what the next release says, or write it into CHANGELOG.md"
	@echo "make packages              build both wheels and both archives of sources into dist/"
	@echo "make messages | format | clean"

$(VENV)/bin/python:
	@if [ -z "$(PYTHON)" ]; then echo "snakepit-trio needs Python 3.11 or later on the PATH," \
		"or: make PYTHON=/path/to/python3.12" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
		f"snakepit-trio needs Python 3.11 or later; {sys.executable} is {v[0]}.{v[1]}")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml bridge_py/pyproject.toml requirements/run.txt
	$(INSTALL) requirements/run.txt
	$(PIP) --no-build-isolation --editable bridge_py --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	$(INSTALL) requirements/dev.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.run requirements/bench.txt
	$(INSTALL) requirements/bench.txt
	@touch $@

# Finds versions that fit all extras together, and then the part of each file. Versions stay where they still fit.
requirements: $(VENV)/.run
	$(INSTALL) requirements/lock.txt
	cat requirements/*.txt > $(VENV)/all.txt
	$(LOCK) pyproject.toml --all-extras --group=build --group=lock $(UPGRADE) --output-file=$(VENV)/all.txt
	$(LOCK) --constraint=$(VENV)/all.txt pyproject.toml --extra=cli --extra=fast --extra=grpc --group=build --output-file=requirements/run.txt
	$(LOCK) --constraint=$(VENV)/all.txt pyproject.toml --extra=dev --output-file=requirements/dev.txt
	$(LOCK) --constraint=$(VENV)/all.txt pyproject.toml --extra=bench --output-file=requirements/bench.txt
	$(LOCK) --constraint=$(VENV)/all.txt --group=lock --output-file=requirements/lock.txt

demo: $(VENV)/.run
	@$(BIN)/snakepit demo $(ARGS)

# Coverage is reported before pytest's own closing line, which is the last thing printed. Python 3.12 traces several
# times slower than its neighbours, and workers that take seconds to start are not what is tested.
COVERAGE = $(shell $(BIN)/python -c 'import sys; print("" if sys.version_info[:2] == (3, 12) else "--cov --cov-report=term")')
# Two at a time: a test waits for its workers to start as long as it computes. ARGS="-n 0" runs one at a time.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=worksteal
# Hypothesis' profile "ci" tries the same examples each time; `make fuzz` looks for new ones, 1,000 a round and more.
test: check
	$(PYTEST) $(COVERAGE) --hypothesis-profile=ci $(ARGS)

# One at a time: the tests share a cluster, and some of them kill its nodes.
test-cluster: $(VENV)/.dev
	$(BIN)/python -m pytest tests/cluster $(ARGS)

# What starts no process, with fewer examples; a test there that starts one fails and is told where it belongs.
quick: $(VENV)/.dev
	$(PYTEST) --quiet --hypothesis-profile=quick -m "not processes and not slow" tests/unit property_tests $(ARGS)

ROUNDS ?= 10
INPUTS ?= 1000000
fuzz: $(VENV)/.dev
	@$(BIN)/python -m property_tests.fuzz --inputs $(INPUTS)
	@for round in $$(seq $(ROUNDS)); do $(PYTEST) --quiet --timeout=3600 --hypothesis-profile=fuzz property_tests $(ARGS); done

# The benchmarks' peers are typed too, so their packages must be there.
check: $(VENV)/.dev $(VENV)/.bench
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	@# It takes 0.2 s for each file, on one core.
	git ls-files snakepit_trio bridge_py benchmarks docs | grep '[.]py$$' | grep -vE 'wire/messages|a_host|scenarios|host_faults' | xargs -n 40 -P $$(nproc) $(BIN)/flake8-async --disable=$(ASYNC_OFF)
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python proto/generate.py --check

messages: $(VENV)/.dev
	$(BIN)/python proto/generate.py

format: $(VENV)/.dev
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

# Warnings are errors. Nothing is fetched.
docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

links: $(VENV)/.dev
	$(BIN)/python -m sphinx -q -b linkcheck docs docs/_build/links

pictures: $(VENV)/.dev
	$(BIN)/python -m docs.drawing $(ARGS)

# The workers of `--figures foreign` need what makes Google's classes.
bench: $(VENV)/.bench $(VENV)/.dev
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: $(VENV)/.bench
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

mutants: $(VENV)/.dev
	@$(BIN)/python -m property_tests.mutants $(ARGS)

changelog: $(VENV)/.dev
	$(BIN)/towncrier build $(if $(VERSION),--yes --version=$(VERSION),--draft --version=next)

packages: $(VENV)/.run
	cd bridge_py && $(abspath $(BIN))/python -m hatchling build -d ../dist
	$(BIN)/python -m hatchling build -d dist

clean:
	rm -rf $(VENV) build dist docs/_build .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
