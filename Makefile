# Run "make" for the list of targets. Needs Python 3.11 or 3.12 with venv, and make;
# everything else is installed into .venv. Every path here is relative, so that the
# repository may lie in a folder whose name has spaces.

PYTHON ?=
JOBS ?= 2
CASES ?= 100000
run := .venv/bin/python
install := PYTHON="$(PYTHON)" sh requirements/install.sh

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo web test test-slow fuzz lint docs bench clean

help: ## list the targets
	@echo 'usage: make [PYTHON=/path/to/python3.12] TARGET'
	@sed -n 's/^\([a-z-]*\): ## /  \1	/p' Makefile

demo: ## train and compare zero-shot methods on Shapes; writes work_dirs/demo/report.md
	@$(install) mm
	@echo '==> running the demo (the report will be work_dirs/demo/report.md)'
	@$(run) tools/demo.py

web: ## serve the page to try words on pictures, at http://127.0.0.1:7860
	@$(install) mm,web
	@$(run) tools/web.py

# One thread per process: more only get in the way. Tests of one file share fixtures.
tests := OMP_NUM_THREADS=1 $(run) -m pytest -q -n $(JOBS) --dist loadfile

test: ## run the tests but for slow ones on two cores (JOBS=n for more)
	@$(install) mm,test,masks,export
	@echo '==> running the tests in $(JOBS) processes'
	@$(tests) -m 'not slow'

test-slow: ## run the slow tests: end-to-end runs, kills, the notebook, the web page
	@$(install) mm,test,test-slow,masks,export,web
	@sh requirements/browser.sh
	@echo '==> running the slow tests in $(JOBS) processes'
	@$(tests) -m slow

fuzz: ## damage 100,000 files and read them (CASES=n for more)
	@$(install) mm,test
	@echo '==> fuzzing the readers'
	@OMP_NUM_THREADS=1 PYTHONPATH=. $(run) tests/fuzz/fuzz.py --cases $(CASES)

lint: ## check style and types
	@$(install) mm,lint
	@echo '==> ruff check'
	@$(run) -m ruff check .
	@echo '==> ruff format --check'
	@$(run) -m ruff format --check .
	@echo '==> mypy'
	@$(run) -m mypy

docs: ## build the documentation into docs/_build/html
	@$(install) mm,docs
	@echo '==> building the documentation'
	@$(run) -m sphinx -q -E -W --keep-going -b html docs docs/_build/html
	@echo '==> done: docs/_build/html/index.html'

bench: ## run every benchmark; they write below work_dirs/bench
	@$(install) mm
	@set -e; for file in benchmarks/[!_]*.py; do \
		echo "==> $$file"; $(run) "$$file"; \
	done

clean: ## remove caches and builds; keeps .venv, data and work_dirs
	@echo '==> removing caches and builds (kept: .venv, data, work_dirs)'
	@rm -rf build dist docs/_build *.egg-info
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find zs3_mmseg configs tools benchmarks projects tests docs -name __pycache__ \
		-type d -prune -exec rm -rf {} +
