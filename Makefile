# Needs python3 (>= 3.11) and make, nothing else. AIRFLOW=3.1 works on another Airflow line,
# PYTHON=python3.12 on another interpreter, SETUP_WITH_PIP=1 installs without uv.

AIRFLOW ?= 3.3
PYTHON ?= python3
WORLDS ?= 20000
FAULTS ?= 2
MINUTES ?= 10
VENV := .venv$(if $(filter-out 3.3,$(AIRFLOW)),-$(AIRFLOW))
CONSTRAINTS := constraints/airflow-$(AIRFLOW).txt
PY := $(VENV)/bin/python
STAMP := $(VENV)/.complete

# Airflow starts twice as slowly without compiled modules; some images switch them off.
unexport PYTHONDONTWRITEBYTECODE
# Airflow's settings are the test's to choose; LocalAirflow drops whatever else is inherited.
unexport AIRFLOW
export PYTHON SETUP_WITH_PIP

.DEFAULT_GOAL := help
.PHONY: help setup check demo test test-browser matrix lint ui bench simulate explore mutants chaos cluster-test dist docs constraints clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make the virtual environment (once; 15 s)

$(STAMP): pyproject.toml $(CONSTRAINTS) dev/setup.sh
	@dev/setup.sh $(VENV) $(CONSTRAINTS)
	@touch $@

# Each recipe that starts programs is one `exec`: otherwise a TERM sent to make ends the shell
# and never reaches the program that has to stop the others.

demo: $(STAMP) ## withdraw once in a real Airflow, against the sandbox; one line of JSON at the end
	@exec $(PY) -m dev.demo

ui: $(STAMP) ## sandbox and Airflow with its web page, until Ctrl-C
	@exec $(PY) -m dev.ui

test: $(STAMP) ## the whole suite, with branch coverage (ARGS='-k word' for a part)
	@exec $(PY) -m pytest --cov --cov-branch $(if $(ARGS),$(ARGS),--cov-fail-under=95 -n 2)

check: $(STAMP) ## lint, unit tests, properties and 200 worlds: for the minute between two edits
	@PY=$(PY) dev/lint.sh
	@$(PY) -m pytest -q -n 4 tests/properties tests/unit
	@exec $(PY) -m dev.simulate --worlds 200

test-browser: $(STAMP) ## Airflow's pages in a real Chromium, with a picture of each for the docs (installs it, as root)
	@dev/browser.sh $(PY)
	@exec $(PY) -m pytest tests/lab/browser

matrix: $(STAMP) ## the wheel on every Airflow line, one table (LINES="3.1.3 3.4" for some)
	@exec $(PY) -m dev.matrix $(LINES)

lint: $(STAMP) ## ruff, mypy --strict, docstring coverage, pre-commit's hooks
	@PY=$(PY) exec dev/lint.sh

bench: $(STAMP) ## every figure beside a peer's -> bench/results.json, docs/performance.md (ARGS='--only signing')
	@exec $(PY) -m dev.bench $(ARGS)

simulate: $(STAMP) ## the protocol in WORLDS seeded worlds of faults
	@exec $(PY) -m dev.simulate --worlds $(WORLDS)

explore: $(STAMP) ## every schedule of one withdrawal with at most FAULTS faults
	@exec $(PY) -m dev.explore --faults $(FAULTS) $(ARGS)

mutants: $(STAMP) ## break the protocol on purpose: a check must notice each (half an hour)
	@exec $(PY) -m dev.mutants $(ARGS)

chaos: $(STAMP) ## a real Airflow under random kills and faults for MINUTES, then the ledger
	@exec $(PY) -m dev.chaos --minutes $(MINUTES) $(ARGS)

cluster-test: ## the same on a cluster: CeleryExecutor, Redis, two of everything (sets up .venv-celery; Redis by apt, as root)
	@dev/celery.sh .venv-celery
	@exec .venv-celery/bin/python -m dev.chaos --executor celery --minutes $(MINUTES) $(ARGS)

dist: $(STAMP) ## sdist and wheel of the last commit in dist/, built twice, checked, installed elsewhere and tried
	@exec $(PY) -m dev.dist

docs: .venv-docs/.complete ## the pages as a site in build/docs (warnings are errors; an environment of its own)
	@exec .venv-docs/bin/python -m sphinx --quiet --fresh-env --fail-on-warning -d build/doctrees -c docs/site . build/docs

.venv-docs/.complete: pyproject.toml constraints/docs.txt dev/setup.sh
	@dev/setup.sh .venv-docs constraints/docs.txt
	@touch $@

constraints: $(STAMP) ## compile constraints/ anew (UPGRADE=1: to the newest versions)
	@for line in $(patsubst constraints/airflow-%.txt,%,$(wildcard constraints/airflow-*.txt)) dist docs; do \
		dev/constraints.sh $(VENV)/bin/uv $$line $(if $(UPGRADE),--upgrade) || exit 1; done

clean: ## remove every environment, cache and report
	@rm -rf .venv .venv-* build dist *.egg-info .coverage .coverage.* htmlcov \
		.hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
