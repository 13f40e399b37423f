# Every target does its own set-up (scripts/setup.py), which takes no time once it is done.
#   FLAVOUR=cpu|gpu  which flavour to install (default: by what the machine has)
#   MODEL=...        the model of `make demo`      ARGS=...  arguments of `make test`, for pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo test chaos bench check lock clean

PY := .venv/bin/python
# What starts servers or measures has the machine to itself; the other tests run on two cores.
APART := tests/integration tests/chaos tests/e2e tests/gpu
export FLAVOUR
# Where this is set, each of a platform's many processes compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

help: ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

setup: ## make .venv and install Moorage into it
	@for python in .venv/bin/python python3.11 python3.12 python3; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1; then \
	    exec $$python scripts/setup.py; fi; done; \
	echo "Moorage needs Python 3.11 or 3.12 with its venv module (on Debian and Ubuntu: apt install python3-venv); none was found on the PATH." >&2; \
	exit 1

demo: setup ## start the platform, create an endpoint and ask it a question
	@$(PY) -m cluster.cli.main demo $(if $(MODEL),--model '$(MODEL)')

test: setup ## run the whole test suite
ifdef ARGS
	@$(PY) -m pytest $(ARGS)
else
	@failed=0; \
	$(PY) -m pytest --numprocesses 2 --dist loadfile $(APART:%=--ignore=%) || failed=$$?; \
	$(PY) -m pytest $(APART) || failed=$$?; \
	exit $$failed
endif

chaos: setup ## run every chaos case (tests/chaos), and write tests/chaos/out/results.json
	@$(PY) -m pytest tests/chaos -m "full or not full" $(ARGS)

bench: setup ## measure Moorage beside its floor, its ceiling and its peers (benchmarks/out)
	@$(PY) -m benchmarks $(ARGS)

check: setup ## ruff, mypy --strict, import-linter
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-logo

lock: setup ## write the installed versions to constraints.txt
	@$(PY) scripts/lock.py

clean: ## remove .venv and everything that tools have left here
	@rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
