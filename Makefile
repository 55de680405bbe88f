# make run: install and open the app.  make test: install, lint, type-check, run every test, the browser's too.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint bench
run: .venv/installed
	$(BIN)/python -m dashboard.limits
	$(BIN)/streamlit run dashboard/app.py

test: .venv/installed-test lint
	bash tests/system.sh
	$(BIN)/python -m pytest

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-test
	for file in tests/bench/*.py; do $(BIN)/python $$file || exit 1; done

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[yolo]'
	touch $@

.venv/installed-test: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch .venv/installed $@
