# cloudlab. `make lab` opens the lessons, `make test` runs every test; both install what they need (scripts/setup).

.DEFAULT_GOAL := help
.PHONY: help lab test check bench soak conformance lessons clean distclean
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV

BIN := .venv/bin
# The Chinese editions have the same code and outputs, by construction.
NOTEBOOKS := $(filter-out %.zh.ipynb,$(wildcard lessons/*/*.ipynb))
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with=tests/nbval.cfg \
         --nbval-cell-timeout=120 --nbval-kernel-startup-timeout=120

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

lab: ## open the lessons in JupyterLab (NO_BROWSER=1 only serves; PORT=8888 takes that port; PYTHON=python3.12)
	@scripts/setup lab
	@$(BIN)/cloudlab lab $(if $(NO_BROWSER),--no-browser) $(if $(PORT),--port $(PORT))

test: check ## run every test: check, then guests, faults, browser and lessons
	$(BIN)/cloudlab images build node
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests --ignore=tests/unit $(NOTEBOOKS) $(NBVAL) \
	  -m "not soak" --durations=5

check: ## run what needs no guest, in under a minute: lint, types, unit tests, lessons' texts
	@scripts/setup test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict
	$(BIN)/python -m pytest tests/unit -m "not soak"
	$(BIN)/python -m cloudlab.teaching check

bench: ## measure the speeds that README and the lessons promise
	@scripts/setup bench
	$(BIN)/python -m benchmarks

soak: ## run the long forms of tests that have a short one
	@scripts/setup test
	$(BIN)/python -m pytest tests -m soak --timeout=7200

conformance: ## have outside tools judge us: skopeo and umoci our images and registry, crun our runtime
	@scripts/setup test
	$(BIN)/python -m pytest tests/clients tests/guest/test_containers_conformance.py -m "not soak"

lessons: ## run all lessons, and write their notebooks in both languages
	@scripts/setup test
	$(BIN)/python -m cloudlab.teaching build

clean: ## remove dead labs, and caches in this folder (not .venv)
	@if [ -x $(BIN)/cloudlab ]; then $(BIN)/cloudlab clean; fi
	rm -rf .cache .mypy_cache .pytest_cache .ruff_cache build dist test-artifacts
	find src tests lessons benchmarks scripts \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean ## also remove .venv; images and saved states stay (cloudlab clean --cache)
	rm -rf .venv
