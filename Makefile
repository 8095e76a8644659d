# Every target first makes .venv from requirements.lock: Python >= 3.11, make and pip are all that is needed.
# Those of developers add requirements-dev.lock to it; the demo's gateway has a folder of its own.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DEV_READY := $(VENV)/dev-ready
DEMO_VENV := .venv-demo
DEMO_READY := $(DEMO_VENV)/ready
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/ready
MUTANTS_VENV := .venv-mutants
MUTANTS_READY := $(MUTANTS_VENV)/ready
CLIENT_VENV := .venv-client
CLIENT_READY := $(CLIENT_VENV)/ready
CLIENT ?= var/client
UV ?= uv
TESTS ?= tests
JOBS ?= 4
FAR_JOBS ?= 3

.PHONY: help demo run production test test-far check check-types check-sources format migrate bench bench-quick bench-full sizes trace tracing chaos soak explore stateful failpoints mutants screens mails \
	lock lock-bench lock-mutants lock-client client openapi reference pin-images clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) $(DEMO_READY) ## play nine requests on real servers, prove how each ended, and exit
	@echo "lockbox: starting the demo ..."
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m demo

run: $(READY) ## keep the whole stack up: API, workers, Flower and embedded servers; Ctrl-C stops it (PORT=; VERBOSE=1 shows the logs)
	@echo "lockbox: starting everything ..."
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m devstack.run $(if $(PORT),--port $(PORT)) $(if $(filter-out 0,$(VERBOSE)),--verbose)

# Its lock is the part of requirements.lock that needs no embedded servers: neither they nor what starts them is installed.
production: requirements-production.lock ## make .venv for production: what runs, without the servers of the demo
	@sh deploy/venv $(VENV) requirements-production.lock

# Compiled files are kept even where the machine says otherwise: each process of the tests, and each that they start,
# would compile all modules anew, which takes longer than half of the tests.
test: $(DEV_READY) ## run all tests but the far ones on servers of their own, from nothing (five minutes)
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder \
		--durations 20 -m "not far" --ignore tests/far --ignore tests/check $(TESTS)

# The rest: whole walks that take long, calls of the API by its OpenAPI document, and properties with many examples.
test-far: $(DEV_READY) $(CLIENT_READY) ## run the tests that take long, and try each property with many examples (under half an hour)
	@PYTHONDONTWRITEBYTECODE= HYPOTHESIS_PROFILE=far PLAYS=40 $(BIN)/python -m pytest --numprocesses $(FAR_JOBS) --dist loadscope \
		--no-loadscope-reorder --durations 20 --timeout 1800 -m "far or hypothesis" tests

# Types take as long as all the rest, and a core of their own.
check: $(DEV_READY) ## lint, types, the arrow of imports, the API document, and what the sources are held to as a whole
	@$(MAKE) --no-print-directory --jobs 2 check-types check-sources

check-types: $(DEV_READY)
	@$(BIN)/mypy

check-sources: $(DEV_READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/openapi-spec-validator --validation-errors all api/openapi.json
	@sh tests/api_style/check
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q tests/check

format: $(DEV_READY) ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

migrate: $(READY) ## bring the schema of LOCKBOX_OWNER_DATABASE_URL up to date
	@$(BIN)/lockbox migrate

bench: $(READY) $(BENCH_READY) ## measure Lockbox beside a bare floor, Celery and dramatiq (ten minutes)
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m bench

bench-quick: $(READY) ## measure Lockbox beside a bare floor (under three minutes)
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m bench quick

bench-full: $(READY) $(BENCH_READY) ## measure with RedBeat, DBOS, a million pending and ten million closed (most of an hour)
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m bench full

sizes: $(DEV_READY) ## print how large the code, tests and docs are, and how many files name a field (COMMIT=, BEFORE=)
	@$(BIN)/python -m bench.sizes $(or $(COMMIT),HEAD) $(BEFORE)

trace: $(READY) ## print the files, statements and rows of each trip through Lockbox (TRACE="--files --statements")
	@$(BIN)/python -m bench.trace $(TRACE)

chaos: $(READY) ## strike the real stack under load by a seeded plan of faults (SEED=, SEEDS=, SECONDS=, PATIENCE=, BUG=), then check it
	@$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(PATIENCE),--patience $(PATIENCE)) $(if $(BUG),--bug $(BUG))

soak: $(READY) ## the same for an hour (SECONDS=)
	@$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) --seconds $(if $(SECONDS),$(SECONDS),3600)

explore: $(DEV_READY) ## go through the states of a request's life, further than the tests do; EXPLORE="--states N" says how far
	@$(BIN)/python -m tests.model $(EXPLORE)

stateful: $(DEV_READY) ## play 200 times 50 steps of people, clock, hints, Redis, mail and audit log over a real database
	@HYPOTHESIS_PROFILE=far $(BIN)/python -m pytest --timeout 0 tests/database/test_stateful.py

failpoints: $(DEV_READY) ## end a process at every failpoint in turn, and see that nothing is lost, doubled or open
	@$(BIN)/python -m tests.whole.failpoints $(POINTS)

mutants: $(MUTANTS_READY) ## change the rules and the audit's code line by line, and count which changes the unit tests see
	@$(MUTANTS_VENV)/bin/python -m tests.mutants $(MUTANTS)

tracing: $(READY) ## add OpenTelemetry to .venv, which LOCKBOX_OTLP_ENDPOINT needs
	@$(BIN)/python deploy/compose/lock.py tracing requirements-dev.lock > $(VENV)/tracing.lock
	@sh deploy/venv --add $(VENV) $(VENV)/tracing.lock

screens: $(DEV_READY) ## write pictures of the pages and of a mail, from a browser, into docs/screens
	@mkdir -p docs/screens && SCREENS=docs/screens $(BIN)/python -m pytest -q tests/whole/test_screens.py tests/whole/test_play.py

mails: $(READY) ## write the mails of the gallery, as page, text and whole, and an index into var/mails to look at
	@$(BIN)/python -m devstack.mails

openapi: $(READY) ## write api/openapi.json anew
	@$(BIN)/python -m api.openapi

client: $(CLIENT_READY) ## write a typed Python client of the API into var/client (CLIENT=), generated from api/openapi.json
	@$(CLIENT_VENV)/bin/openapi-python-client generate --path api/openapi.json --config api/client.yaml --meta setup \
		--output-path $(CLIENT) --overwrite --fail-on-warning

reference: $(READY) ## write the pages of docs/reference anew: settings, command line, events, metrics, problems
	@$(BIN)/python -m reference

lock: ## resolve requirements.lock (to run), -dev.lock (to develop) and -demo.lock (the demo's gateway) anew (needs uv)
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra embedded --extra build --upgrade \
		--custom-compile-command "make lock" pyproject.toml --output-file requirements.lock
	@python3 deploy/compose/lock.py production > requirements-production.lock
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras --upgrade \
		--constraint requirements.lock --custom-compile-command "make lock" pyproject.toml \
		--output-file requirements-dev.lock
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
		--constraint requirements-dev.lock --custom-compile-command "make lock" demo/requirements.in \
		--output-file requirements-demo.lock

lock-bench: ## resolve requirements-bench.lock anew, at the versions of requirements.lock (needs uv)
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
		--constraint requirements.lock --custom-compile-command "make lock-bench" bench/requirements.in \
		--output-file requirements-bench.lock

lock-mutants: ## resolve requirements-mutants.lock anew, at the versions of requirements-dev.lock (needs uv)
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras --upgrade \
		--constraint requirements-dev.lock --custom-compile-command "make lock-mutants" pyproject.toml \
		requirements-mutants.in --output-file requirements-mutants.lock

lock-client: ## resolve requirements-client.lock anew (needs uv)
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
		--custom-compile-command "make lock-client" requirements-client.in --output-file requirements-client.lock

pin-images: $(READY) ## write the digests of the images beside their tags, as their registries have them now (at a release)
	@$(BIN)/python deploy/pin_images.py

clean: ## remove what was made here and say what stays; ALL=1 removes the data of embedded servers too
	@sh deploy/clean $(if $(filter-out 0,$(ALL)),--all)

$(READY): requirements.lock deploy/venv
	@sh deploy/venv $(VENV) requirements.lock
	@touch $(READY)

$(DEV_READY): $(READY) requirements-dev.lock
	@sh deploy/venv --add $(VENV) requirements-dev.lock
	@touch $(DEV_READY)

$(DEMO_READY): requirements-demo.lock deploy/venv
	@sh deploy/venv $(DEMO_VENV) requirements-demo.lock
	@touch $(DEMO_READY)

$(BENCH_READY): requirements-bench.lock deploy/venv
	@sh deploy/venv $(BENCH_VENV) requirements-bench.lock
	@touch $(BENCH_READY)

$(MUTANTS_READY): requirements-mutants.lock deploy/venv
	@sh deploy/venv $(MUTANTS_VENV) requirements-mutants.lock
	@touch $(MUTANTS_READY)

$(CLIENT_READY): requirements-client.lock deploy/venv
	@sh deploy/venv $(CLIENT_VENV) requirements-client.lock
	@touch $(CLIENT_READY)
