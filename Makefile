# `make demo` is the first thing to type. Everything is installed into .venv, and nothing outside this folder is touched.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
EXTRAS := [dev,cmaes]

# Console scripts hold absolute paths: an environment that was moved or copied is made anew.
ifneq ($(shell cat $(VENV)/.made-in 2>/dev/null),$(CURDIR))
ELSEWHERE := elsewhere
endif

.NOTPARALLEL:
.PHONY: help demo test test-long images-test nodes-test browser-test docs lint check format wheel clean elsewhere

help:
	@echo "make demo    a whole search on embedded data, every trial in MLflow (installs itself into .venv first)"
	@echo "make test    the tests; ARGS is handed to pytest: make test ARGS='-k ledger'"
	@echo "make test-long  the tests of sweeps that take minutes, which \`make test\` leaves out"
	@echo "make images-test  build the container images and run a cluster of them (root, Debian; 5 to 10 minutes)"
	@echo "make nodes-test  clusters of several machines, as namespaces of this one (root; 10 minutes)"
	@echo "make browser-test  MLflow's prepared pages in headless Chromium"
	@echo "make docs    build the documentation as a site into dist/docs; warnings are errors"
	@echo "make check   what CI runs: ruff, mypy --strict, the layers, the tests"
	@echo "make lint    the same without the tests"
	@echo "make format  put the code into shape"
	@echo "make wheel   build a wheel into dist/"
	@echo "make clean   remove the environment, builds and caches; sweeps in lmoe_runs/ stay"
	@echo "PYTHON=...   which Python (3.11 or newer) to make the environment with"

demo: $(READY)
	@$(BIN)/lmoe-tune search digits
	@echo "(lmoe-tune is $(BIN)/lmoe-tune here; source $(BIN)/activate to have it by its name)"

# What starts Ray runs one after the other: each of these sweeps has both cores.
test: $(READY_DEV)
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup \
		-m "not ray and not long and not nodes and not images and not browser"
	@$(BIN)/python -m pytest -q -m "ray and not long and not nodes"
endif

test-long: $(READY_DEV)
	@$(BIN)/python -m pytest -q -m "long and not browser" $(ARGS)

# Builds the images and runs compose.yaml with them: root, Debian, Python 3.11; installs the engine where it is missing.
images-test: $(READY_DEV)
	@LMOE_TUNE_IMAGES_TEST=1 $(BIN)/python -m pytest -q -m images tests/docker $(ARGS)

# Looks at MLflow's pages in headless Chromium; skipped where there is none.
browser-test: $(READY_DEV)
	@$(BIN)/python -m pytest -q -m browser $(ARGS)

# Clusters of several machines, as namespaces of this one: root.
nodes-test: $(READY_DEV)
	@$(BIN)/python -m pytest -q -m nodes $(ARGS)

docs: $(READY_DEV)
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs dist/docs
	@echo "dist/docs/index.html"

lint: $(READY_DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python docs/make_records.py --check
	@$(BIN)/python docs/make_messages.py --check
	@$(BIN)/python .ci/style.py

check: lint test

format: $(READY_DEV)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

wheel: $(READY)
	@$(BIN)/python -m pip wheel -qq --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find lmoe_tune trainables tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(READY): pyproject.toml constraints.txt $(ELSEWHERE)
	@$(call install,.)
	@touch $@

$(READY_DEV): pyproject.toml constraints.txt $(ELSEWHERE)
	@$(call install,.$(EXTRAS))
	@touch $@ $(READY)

# install(what): the environment, made where there is none that works, and the project in it.
define install
set -e; \
if [ "$$(cat $(VENV)/.made-in 2>/dev/null)" != "$(CURDIR)" ] || ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
	for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python) ""; do \
		if [ -z "$$python" ]; then \
			echo "No Python 3.11 or newer with the venv module was found$(if $(PYTHON), at PYTHON=$(PYTHON))." >&2; \
			echo "Install one (Debian, Ubuntu: apt install python3 python3-venv) or name it: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.11" >&2; \
			exit 1; \
		fi; \
		if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	done; \
	echo "Setting up $(VENV) with $$("$$python" --version): takes about 3 minutes and 6 GB ..."; \
	rm -rf $(VENV); \
	"$$python" -m venv $(VENV); \
else \
	echo "Bringing $(VENV) up to date ..."; \
fi; \
started=$$(date +%s); \
$(BIN)/python -m pip install -qq --disable-pip-version-check --progress-bar off --log $(VENV)/install.log -c constraints.txt -e '$(1)' \
	|| { echo "The installation failed; all that pip said is in $(VENV)/install.log" >&2; exit 1; }; \
printf '%s' "$(CURDIR)" > $(VENV)/.made-in; \
echo "... ready after $$(($$(date +%s) - started)) s"
endef
