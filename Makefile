# `make demo` and `make test` need only Python 3.11+ and make; both create .venv when it is missing.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: install demo docs test coverage check lock clean

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tiltflow needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(INSTALLED)
	$(VENV)/bin/tiltflow demo

# Two processes, because most of a test is compilation, which takes one core.
test: $(INSTALLED)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

# The same, and which lines and branches no test runs.
coverage: $(INSTALLED)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 --cov=tiltflow --cov-report=term-missing

check: $(INSTALLED)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/basedpyright

# Runs the notebooks and builds the site into site/. The variable leaves out the theme's advertisement.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

# Resolves the ranges of pyproject.toml anew, in a fresh environment, into exact versions.
lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet '.[dev]'
	$(VENV)-lock/bin/python -m pip freeze --exclude tiltflow | grep -E '^[A-Za-z0-9._-]+==' > requirements.lock
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) build dist site
