# Every word sets up what it needs; a second call installs nothing.
PYTHON ?= python3.11
VENV := .venv
AUDIT := .venv-audit
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := cardionets_core client server strategies simulation

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1

.PHONY: setup demo test test-slow check fix bench bench-deployment fuzz audit system clean

setup: $(STAMP)

# torch comes first and by its exact version: an unpinned one pulls gigabytes of GPU libraries.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
# timm is the reference of one test and asks for torchvision, which brings another torch: without its dependencies.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps timm==1.0.31
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/cardionets-sim run demo --out runs/demo --replace

# One process a core, each with one thread: most tests are small tensors and files.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

system: $(STAMP)
	$(BIN)/python -m pytest -m system

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every benchmark in its short form, compared with docs/benchmarks.json and written there; most of an hour.
bench: $(STAMP)
	$(BIN)/python -m simulation.benchmarks --data $(or $(DATA),../shared/data) $(ARGS)

# The whole table beside bare Flower; 25 minutes to an hour.
bench-deployment: $(STAMP)
	$(BIN)/python -m simulation.benchmarks.deployment --full

fuzz: $(STAMP)
	$(BIN)/python tests/data/fuzz_readers.py $(or $(DATA),../shared/data) --count $(or $(COUNT),5000) --first $(or $(FIRST),0)
	$(BIN)/python tests/hostile/fuzz_wire.py --count $(or $(COUNT),5000) --first $(or $(FIRST),0)

# Asks a vulnerability service over the network. What it does not know makes it fail: without --strict it would
# skip every package that it cannot look up, and end well.
audit: $(AUDIT)/.installed
	$(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt $(SERVICE)

$(AUDIT)/.installed:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	@touch $@

clean:
	rm -rf $(VENV) $(AUDIT) runs build
