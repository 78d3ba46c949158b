# Everything on a machine that has python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: serve test faults check bench docs install clean

serve: install
	@exec $(BIN)/hydracore serve

test: install
	$(BIN)/python -m pytest

faults: install
	$(BIN)/python -m pytest tests/faults -m faults

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

bench: install
	$(BIN)/python bench/listeners.py
	$(BIN)/python bench/overload.py

docs: install
	$(BIN)/python docs/generate.py

install: $(STAMP)

$(STAMP): setup.py .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "HydraCore needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "The virtual environment could not be made. On Debian: apt install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --editable '.[embedded,memory,motor,redis,resend,strength,test]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
