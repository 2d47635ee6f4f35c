.DEFAULT_GOAL := help
.PHONY: help demo ui test lint bench clean
ENV := .venv/ready
PY := .venv/bin/python
TYPED := connectome_dagster benchmarks demo example_project/src/earthquakes example_project/tests
export UI_PORT SERVER_PORT PYTHON

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS="	" read -r name text; do printf '  make %-7s%s\n' "$$name" "$$text"; done

demo: $(ENV) ## run the example on a week of real data, twice, and show that nothing is duplicated
	@$(PY) -m demo

ui: $(ENV) ## local server and Dagster's web page, both with what they kept (UI_PORT=3000 SERVER_PORT=8787)
	@$(PY) -m demo.ui

test: $(ENV) ## the tests of the package and of the example
	@$(PY) -m pytest -q -n auto --dist loadfile tests example_project/tests

lint: $(ENV) ## ruff and mypy --strict
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@MYPYPATH=example_project/src $(PY) -m mypy --strict $(TYPED)

bench: $(ENV) ## the package against what one would write by hand
	@$(PY) -m pip install --quiet --disable-pip-version-check mongomock montydb || echo "make: no mongomock or montydb: their columns stay empty"
	@sh benchmarks/install_dlt.sh $(PY) artefacts/dlt || echo "make: no dlt: its row stays empty"
	@$(PY) -m benchmarks

clean: ## remove the environment and what the commands above kept
	rm -rf .venv .dagster_home .demo

$(ENV): pyproject.toml example_project/pyproject.toml constraints.txt demo/bootstrap.sh
	@sh demo/bootstrap.sh
