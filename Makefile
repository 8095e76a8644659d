# Every target first makes .venv from requirements.lock: Python >= 3.11, make and pip are all that is needed.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/ready
UV ?= uv
TESTS ?= tests
JOBS ?= 4

.PHONY: help demo run test check format migrate bench bench-quick bench-full chaos soak mails lock lock-bench openapi clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## play five requests on real servers, prove how each ended, and exit
	@$(BIN)/python -m cli.demo

run: $(READY) ## keep the whole stack up: API, workers, Flower and embedded servers; Ctrl-C stops it
	@$(BIN)/python -m cli.run

test: $(READY) ## run all tests on servers of their own, from nothing
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

check: $(READY) ## lint, types and the arrow of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(READY) ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

migrate: $(READY) ## bring the schema of LOCKBOX_OWNER_DATABASE_URL up to date
	@$(BIN)/lockbox migrate

bench: $(READY) $(BENCH_READY) ## measure Lockbox beside a bare floor, Celery and dramatiq (ten minutes)
	@$(BIN)/python -m bench

bench-quick: $(READY) ## measure Lockbox beside a bare floor (under three minutes)
	@$(BIN)/python -m bench quick

bench-full: $(READY) $(BENCH_READY) ## measure with RedBeat, DBOS and 1,000,000 pending too (most of an hour)
	@$(BIN)/python -m bench full

chaos: $(READY) ## strike the real stack under load by a seeded plan of faults (SEED=, SECONDS=), then check it
	@$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

soak: $(READY) ## the same for an hour (SECONDS=)
	@$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) --seconds $(if $(SECONDS),$(SECONDS),3600)

mails: $(READY) ## write every mail, as page, text and whole, into var/mails to look at
	@$(BIN)/python -m cli.mails

openapi: $(READY) ## write api/openapi.json anew
	@$(BIN)/python -m api.openapi

lock: ## resolve requirements.lock anew (needs uv)
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras --upgrade \
		--custom-compile-command "make lock" pyproject.toml --output-file requirements.lock

lock-bench: ## resolve requirements-bench.lock anew, at the versions of requirements.lock (needs uv)
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
		--constraint requirements.lock --custom-compile-command "make lock-bench" bench/requirements.in \
		--output-file requirements-bench.lock

clean: ## remove what was made here; data of embedded servers stays
	@rm -rf $(VENV) $(BENCH_VENV) var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(READY): requirements.lock deploy/venv
	@sh deploy/venv $(VENV)
	@touch $(READY)

$(BENCH_READY): requirements-bench.lock deploy/venv
	@sh deploy/venv $(BENCH_VENV) requirements-bench.lock
	@touch $(BENCH_READY)
