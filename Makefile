# Each target sets up what it needs. `make` alone lists the targets.
PYTHON ?= python3
PRESET ?= mini
SEEDS ?=
DATA ?=
BIN := .venv/bin

export COLT_STORE ?= $(CURDIR)/runs
export COLT_OUT ?= $(CURDIR)/runs/out

# Many containers ask Python to keep no bytecode: each process would then compile PyTorch anew, three seconds and more.
unexport PYTHONDONTWRITEBYTECODE

# The kernel of a page that was closed ends after five minutes, and with it a run that it had started: its rounds are kept.
CULL := --MappingKernelManager.cull_idle_timeout=300 --MappingKernelManager.cull_interval=60

.DEFAULT_GOAL := help
.PHONY: help run test lab app site texts figures bench chaos lint clean

help: ## list the targets
	@echo "make TARGET [PRESET=mini|small|paper] [SEEDS=0,1,2] [DATA=cifar100]"
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  \1\t/' | expand -t 12

run: .venv/.run ## run notebooks 01-06 headless; everything they write goes to runs/out/PRESET/
	@$(BIN)/python -m colt_core.workbook --preset "$(PRESET)" --seeds "$(SEEDS)" --data "$(DATA)"

test: .venv/.test ## run all tests, each notebook once among them
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --nbval-lax notebooks tests

lab: .venv/.run ## open JupyterLab on the notebooks
	@$(BIN)/jupyter lab --notebook-dir=notebooks

app: .venv/.app ## serve all interactive views on one page (Voila)
	@$(BIN)/voila notebooks/app.ipynb $(CULL)

site: .venv/.site ## build the workbook as a site, build/site/html; nothing is run, no net is needed
	@$(BIN)/python site/build.py

texts: .venv/.run ## install the language model and the texts of notebook 10 (122 MB, hashes checked)
	@sh tools/texts.sh

figures: .venv/.run ## renew the committed figures and notebook outputs
	@$(BIN)/python -m colt_core.workbook --renew figures

bench: .venv/.run ## measure speed against the usual way (half an hour); writes results/bench.md and .csv
	@$(BIN)/python benchmarks/bench.py

chaos: .venv/.test ## kill runs and damage files at random, 1,000 and 30,000 times (an hour)
	@COLT_CHAOS_KILLS=1000 COLT_CHAOS_FILES=10000 COLT_CHAOS_CASES=20000 $(BIN)/python -m pytest -v -s -m chaos tests/chaos

lint: .venv/.test ## check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean: ## remove the virtual environment and caches, not the results in runs/
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

# The set-ups; a stamp is written only when the installation has ended well.
.venv/.run: pyproject.toml
	@sh tools/setup.sh "$(PYTHON)" "." && touch $@

.venv/.app: pyproject.toml
	@sh tools/setup.sh "$(PYTHON)" ".[app]" && touch $@ .venv/.run

.venv/.site: pyproject.toml
	@sh tools/setup.sh "$(PYTHON)" ".[site]" && touch $@ .venv/.run

.venv/.test: pyproject.toml
	@sh tools/setup.sh "$(PYTHON)" ".[test]" && touch $@ .venv/.run .venv/.app
