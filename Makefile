# make run: install and open the app.  make test: install, lint, type-check, run every test, the browser's too.
# make test-fast: for the daily loop, the tests of what everything else stands on.
# make bench: every benchmark, and at the end bench.html: each ratio beside that of the last release.
# make audit: known flaws in what is installed (asks the network), and secrets in any state of any file.
# make old-python: Python 3.8 with torch 1.10, in which the one-file recorder is tested too (fetches 900 MB).
# make fuzz MINUTES=10: hand made-up files and links to every door; without MINUTES until Ctrl-C.
PYTHON ?= python3
BIN := .venv/bin

MINUTES ?= 1000000

# Dozens of processes import the packages: they are compiled once, also where the environment says otherwise.
export PYTHONDONTWRITEBYTECODE =

.PHONY: run test test-fast lint bench fuzz audit old-python
run: .venv/installed
	$(BIN)/python -m dashboard.runtime.config
	$(BIN)/streamlit run dashboard/app.py

test: .venv/installed-test lint
	bash tests/system.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

FAST := $(addprefix tests/unit/,cli core figures metrics models teaching test_architecture.py test_catalogue.py)
test-fast: .venv/installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m "not slow" $(FAST)

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-test
	rm -f bench.jsonl
	for file in $(filter-out tests/bench/report.py,$(wildcard tests/bench/*.py)); do $(BIN)/python $$file || exit 1; done
	$(BIN)/python tests/bench/report.py

fuzz: .venv/installed-test
	$(BIN)/python tests/fuzz/fuzz.py --minutes $(MINUTES)

audit: .venv/installed-test
	test -x .venv/audit/bin/pip-audit || ($(PYTHON) -m venv .venv/audit && \
		.venv/audit/bin/pip install --quiet pip-audit detect-secrets)
	.venv/audit/bin/python tests/audit_history.py
	$(BIN)/pip freeze --exclude-editable >.venv/audit/resolved.txt
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement .venv/audit/resolved.txt

OLD := $(HOME)/.cache/routescope/python3.8
old-python:
	test -x $(OLD)/bin/python || $${PYTHON38:-python3.8} -m venv $(OLD)
	$(OLD)/bin/pip install --quiet --no-deps torch==1.10.0 typing_extensions 'numpy<1.25' pillow

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-test: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch .venv/installed $@
