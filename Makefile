# Everything on a machine that has python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
STAMP := $(VENV)/installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Without byte code of its own every process would compile HydraCore anew, for a third of a second.
unexport PYTHONDONTWRITEBYTECODE

# So many processes run the tests, each with a mongod of its own.
TESTERS ?= 2

.PHONY: serve test faults check bench native docs install clean

serve: install
	@exec $(BIN)/hydracore serve

test: install
	$(BIN)/python -m pytest --numprocesses $(TESTERS) --dist loadgroup

faults: install
	$(BIN)/python -m pytest tests/faults -m faults

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

# What HydraCore is compared with has an environment of its own.
bench: $(BENCH)/installed
	$(BENCH)/bin/python -m compileall -q hydracore plugins schemas # As pip leaves what it installs.
	$(BENCH)/bin/python bench/listeners.py
	$(BENCH)/bin/python bench/overload.py
	$(BENCH)/bin/python bench/compare.py
	$(BENCH)/bin/python bench/scale.py
	$(BENCH)/bin/python bench/soak.py

$(BENCH)/installed: setup.py .ci/constraints.txt bench/requirements.txt
	@$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --constraint .ci/constraints.txt --editable '.[embedded,fast]'
	$(BENCH)/bin/pip install --quiet --requirement bench/requirements.txt
	@touch $@

# argon2 built for this very machine, which must have a C compiler: not for a machine of another kind.
native: install
	CFLAGS='-O3 -march=native' $(BIN)/pip install --quiet --force-reinstall --no-deps --no-cache-dir \
		--no-binary argon2-cffi-bindings --constraint .ci/constraints.txt argon2-cffi-bindings
	@$(BIN)/hydracore bench hash

docs: install
	$(BIN)/python docs/generate.py

install: $(STAMP)

$(STAMP): setup.py .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "HydraCore needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "The virtual environment could not be made. On Debian: apt install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --editable '.[embedded,fast,memory,metrics,motor,redis,resend,strength,test,tracing]'
	@touch $@

clean:
	rm -rf $(VENV) $(BENCH) build dist *.egg-info
