# make report | full-report | lab | test | coverage | others | bench | tidy | mutants | lock | setup
# Each target first sets up .venv if necessary.
PYTHON ?= python3
BIN := .venv/bin

# Set for another Python, it would break the one in .venv.
unexport PYTHONHOME

.PHONY: report full-report test coverage others lab bench tidy mutants lock setup

report: setup
	$(BIN)/labrnn report params/quick/*.yaml

full-report: setup
	$(BIN)/labrnn report params/full/*.yaml

# One thread per process: several OpenMP teams on the same cores slow each other down.
test: export OMP_NUM_THREADS = 1
test: EXTRAS = test
test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 4 $(PYTEST)

# `coverage` runs the tests of labrnn/trials with branch coverage; `others` runs all other tests.
TRACED := $(patsubst %,tests/test_%.py,cli_trials cluster content estimate gc interrupted running \
    store trial_tables)

coverage:
	$(MAKE) test PYTEST="$(TRACED) --cov --cov-report=term $(PYTEST)"

others:
	$(MAKE) test PYTEST="$(TRACED:%=--ignore=%) $(PYTEST)"

# Jupyter requires its token and listens on this machine only; for root it needs an option.
lab: setup
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks \
	    $(if $(filter 0,$(shell id -u)),--allow-root)

# Keras with TensorFlow and JAX, for comparison, has a separate environment.
bench: setup .venv-bench/ready
	$(BIN)/python benchmarks/bench.py $(BENCH)

.venv-bench/ready: benchmarks/requirements.txt | setup
	$(BIN)/python -m venv --without-pip .venv-bench
	$(BIN)/python -m pip --python .venv-bench/bin/python install --quiet -r $<
	touch $@

tidy: EXTRAS = test
tidy: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/nbstripout notebooks/*.ipynb
	$(BIN)/labrnn schema

# Mutation testing of the store, of file writing and of the statistics, with two to six seconds per
# mutant; an interrupted run continues.
mutants: export OMP_NUM_THREADS = 1
mutants: EXTRAS = test
mutants: setup
	$(BIN)/python -m pip install --quiet mutmut==3.8.1
	for group in files statistics store; do nice -n 19 $(BIN)/python tools/mutants.py $$group $(MUTANTS); done
	$(BIN)/python tools/mutants.py

# Keeps the versions in the lock and adds new packages; UPGRADE=--upgrade updates them.
lock: setup
	$(BIN)/python -m pip install --quiet uv
	UV_PYTHON_DOWNLOADS=never $(BIN)/python tools/lock.py $(UPGRADE)

setup:
	@command -v $(PYTHON) >/dev/null || { echo "labrnn needs Python 3.10 or newer; on Debian and \
	Ubuntu: apt install python3"; exit 1; }
	@$(PYTHON) tools/bootstrap.py $(EXTRAS)
	@$(MAKE) --silent --no-print-directory .venv/used

.venv/used: tools/first_use.py labrnn/network/kernels.py labrnn/network/products.py
	@$(BIN)/python tools/first_use.py
	@touch $@
