# Every target installs what it needs into .venv; nothing has to be set up first.
#   make test ARGS="-k yamux -x"     passes arguments on to pytest
#   make test PYTHON=python3.12      chooses the interpreter .venv is made with

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check
ARGS ?=
# One process of tests for each processor; PARALLEL= runs them in this one, for a debugger.
PARALLEL ?= -n auto --dist loadfile
PYTHON ?=

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export NO_MKDOCS_2_WARNING := 1

say = @echo "== $(1)"

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- environments -----------------------------------------------------------------------------------------------------

# One environment; each target adds the extras it needs. A stamp is as old as the pins it was installed with.
.PHONY: venv
venv:
	@if [ -x $(PY) ] && ! $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "$(VENV) does not hold a working Python 3.11 or newer; making it anew"; rm -rf $(VENV); \
	fi; \
	if [ ! -x $(PY) ]; then \
		found=; \
		for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3 python; do \
			if command -v "$$candidate" >/dev/null 2>&1 && \
			   "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
				found=$$candidate; break; \
			fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "No Python 3.11 or newer was found. Install one, or say where it is: make PYTHON=/path/to/python" >&2; exit 1; \
		fi; \
		echo "making $(VENV) with $$("$$found" --version)"; \
		if ! "$$found" -m venv $(VENV); then \
			rm -rf $(VENV); \
			echo "$$found cannot make environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
		fi; \
	fi

# $(call install,extra): installs the extra unless a stamp says that it, or dev which holds them all, is there.
# multiaddr asks for trio-typing and does not use it; its stubs, of an old trio, would hide trio's own types from mypy.
define install
	@for stamp in $(VENV)/.installed-$(1) $(VENV)/.installed-dev; do \
		if [ $$stamp -nt pyproject.toml ] && [ $$stamp -nt constraints.txt ]; then exit 0; fi; \
	done; \
	echo "installing libp2p-trio[$(1)] into $(VENV)"; \
	$(PIP) install -c constraints.txt -e '.[$(1)]'; \
	$(PIP) uninstall --yes trio-typing 2>/dev/null || true; \
	touch $(VENV)/.installed-$(1)
endef

.PHONY: env-test env-demo env-docs env-dev
env-test: venv
	$(call install,test)
env-demo: venv
	$(call install,cli)
env-docs: venv
	$(call install,docs)
env-dev: venv
	$(call install,dev)

# --- for everybody ----------------------------------------------------------------------------------------------------

.PHONY: demo
demo: env-demo ## four nodes find each other and chat in your terminal
	@$(PY) examples/demo.py $(ARGS)

.PHONY: test
test: env-test ## the unit and integration tests, on all processors
	@$(PY) -m pytest $(PARALLEL) $(ARGS)

.PHONY: check
check: check-lint check-types check-coverage check-proto check-docs ## all gates: lint, types, coverage, generated code, docs
	@echo "all gates passed"

.PHONY: interop
interop: env-test ## talk to go, js and rust nodes on this machine
	@$(PY) -m interop $(ARGS)

.PHONY: bench
bench: env-test ## measure us, go, js, rust and py-libp2p in one run
	@$(PY) -m bench $(ARGS)

.PHONY: bench-smoke
bench-smoke: env-test ## a minute of measuring: fails when something became slower
	@$(PY) -m bench --smoke $(ARGS)

.PHONY: docs
docs: env-docs ## build the documentation into site/
	@$(PY) -m mkdocs build --strict --quiet
	@echo "open site/index.html"

.PHONY: docs-serve
docs-serve: env-docs ## serve the documentation and rebuild it while you write
	@$(PY) -m mkdocs serve

.PHONY: proto
proto: venv ## write libp2p/pb anew from proto/
	@$(PY) proto/generate.py

.PHONY: format
format: env-dev ## let ruff format and sort
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format

.PHONY: clean
clean: ## remove caches and build results; environments stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* coverage.json htmlcov site build dist *.egg-info
	@find libp2p tests examples bench interop proto -name __pycache__ -not -path '*/.build/*' -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: distclean
distclean: clean ## remove the environments too
	@rm -rf .venv .venv-proto

# --- the gates --------------------------------------------------------------------------------------------------------

.PHONY: check-lint
check-lint: env-dev
	$(call say,ruff)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet || { echo "run 'make format'"; exit 1; }

.PHONY: check-types
check-types: env-dev
	$(call say,mypy)
	@$(BIN)/mypy
	$(call say,pyright)
	@$(BIN)/pyright
	$(call say,pyright --verifytypes)
	@$(PY) tests/architecture/types_gate.py

.PHONY: check-coverage
check-coverage: env-dev
	$(call say,tests under coverage)
	@rm -f .coverage .coverage.* coverage.json
	@# Without what only runs other programs, or takes long and covers nothing of its own; `make test` has it all.
	@$(BIN)/coverage run -m pytest $(PARALLEL) -q --ignore tests/examples --ignore tests/docs --ignore tests/architecture \
		--ignore tests/hostile/test_cancel.py --ignore tests/hostile/test_faults.py --ignore tests/hostile/test_sockets.py \
		--ignore tests/hostile/test_transport.py --ignore tests/hostile/test_muxers.py $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage json --quiet -o coverage.json
	@$(PY) tests/architecture/coverage_gate.py coverage.json

.PHONY: check-proto
check-proto: venv
	$(call say,generated protobuf modules)
	@$(PY) proto/generate.py --check

.PHONY: check-docs
check-docs: env-docs
	$(call say,docs)
	@$(PY) -m mkdocs build --strict --quiet
