# Every target that needs the environment makes it first; `make setup` does nothing when all is fresh.
# Paths are relative, so that a clone may lie in a folder whose name contains spaces.

BIN := .venv/bin
LOCK := $(BIN)/uv pip compile --quiet --python-version 3.13 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(LOCK_ARGS)

# A test that has not ended after that long never will: where it stands is shown, and the run ends.
ENDS_WHEN_STUCK := -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true

.DEFAULT_GOAL := help
.PHONY: help setup system-packages demo up test check lock proto reference goldens pictures fuzz bench races crash explore schemathesis mutants clean

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

setup: ## make .venv from the locked requirements (fast when nothing changed)
	@scripts/bootstrap

system-packages: ## install or name the system programs that tests use as real clients
	@scripts/system-packages

demo: setup ## show one allowed request, one refused, and a quarantine
	@$(BIN)/palyra-egress demo

up: setup ## run fleet and proxy together until interrupted
	@$(BIN)/palyra-egress up

test: setup system-packages ## run the whole test suite; ends with what was not run and why
	$(BIN)/pytest $(ENDS_WHEN_STUCK) $(TEST_ARGS)

check: setup ## lint, format, types and direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: setup ## write requirements/*.lock anew (LOCK_ARGS=--upgrade takes newer versions)
	$(LOCK) pyproject.toml --output-file requirements/runtime.lock
	$(LOCK) pyproject.toml --extra opentelemetry --output-file requirements/opentelemetry.lock
	$(LOCK) pyproject.toml requirements/dev.in --extra opentelemetry --output-file requirements/dev.lock

proto: setup ## write palyra_fleet/wire/protobuf/ anew from proto/
	$(BIN)/python scripts/make_protos.py

reference: setup ## write docs/reference/ anew from the code
	$(BIN)/python -m scripts.make_reference
	$(BIN)/python -m scripts.make_dashboard

goldens: setup ## write tests/golden/expected/ anew: what every command says; look at the diff
	PALYRA_RENEW_GOLDENS=1 $(BIN)/pytest -q tests/golden tests/project/test_golden_*.py tests/project/test_reference.py

pictures: setup system-packages ## take the pictures of the console that the documents show
	$(BIN)/python -m scripts.take_pictures

fuzz: setup ## fuzz every target for FUZZ_SECONDS each (default 60)
	@set -e; for target in $$($(BIN)/python -c 'from tests.fuzz.targets import TARGETS; print(*TARGETS)'); do \
		echo "== $$target"; $(BIN)/python -m tests.fuzz.fuzz_policy $$target \
			-max_total_time=$(or $(FUZZ_SECONDS),60); done

races: setup ## 64 at once for one nonce, join token, approval, run, release: RACE_ROUNDS rounds (default 200)
	PALYRA_RACE_ROUNDS=$(or $(RACE_ROUNDS),200) $(BIN)/pytest -q tests/fleet/test_races.py

crash: setup ## kill the fleet at failpoints and at random, CRASH_ROUNDS rounds (default 300)
	PALYRA_CRASH_ROUNDS=$(or $(CRASH_ROUNDS),300) $(BIN)/pytest -q tests/fleet/crash/test_failpoints.py \
		tests/fleet/crash/test_kill_nine.py

explore: setup ## every sequence of ledger commands in small fleets, EXPLORE_SECONDS each (default 300)
	@set -e; for scope in "1 99" "2 99" "1 99 trust" "2 99 trust"; do set -- $$scope; \
		$(BIN)/python -m tests.fleet.ledger.small_scope $$1 $$2 $(or $(EXPLORE_SECONDS),300) $$3; done

schemathesis: setup ## every OpenAPI document against the real fleet, SCHEMATHESIS_EXAMPLES of each call (default 50)
	PALYRA_SCHEMATHESIS_EXAMPLES=$(or $(SCHEMATHESIS_EXAMPLES),50) $(BIN)/pytest -q -rP \
		tests/fleet/cli/test_as_described.py tests/fleet/cli/test_console_as_described.py \
		tests/fleet/api/test_as_described_with_proofs.py

mutants: setup ## change each guard of the ledger in turn; list what no test notices (MUTANT_ARGS="[--quick] modules")
	$(BIN)/python -m tests.fleet.mutation $(MUTANT_ARGS)

bench: setup ## run every benchmark; numbers go to stdout
	@set -e; found=no; for file in benchmarks/bench_*.py; do \
		[ -e "$$file" ] || continue; found=yes; echo "== $$file"; $(BIN)/python "$$file"; done; \
	[ $$found = yes ] || echo "there are no benchmarks yet"

clean: ## remove caches and build output (keeps .venv and var/)
	@rm -rf build dist out *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
