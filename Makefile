# faqwire: everything a newcomer needs is `make demo`; everything a contributor needs is `make check`.

PYTHON ?= python3
VENV ?= .venv
FAQWIRE = $(VENV)/bin/faqwire
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
# Pinned versions; `make pins` renews them.
PINS = constraints.txt
HOST ?= 127.0.0.1
PORT ?= 8765

# Linters of deployment files that PyPI has, apart from faqwire's own environment.
LINTERS = .cache/linters

.PHONY: help demo test check lint format types arrows asyncapi asyncapi-parser clients deploy-check deploy-linters pins clean

help:
	@echo "make demo    set up, export the models, build the sample FAQ's index, and serve it on port $(PORT)"
	@echo "make test    set up what tests need, and pass them"
	@echo "make check   lint, types, import arrows, then test"
	@echo "make asyncapi  install AsyncAPI's parser (npm), and ask it about docs/asyncapi.json"
	@echo "make deploy-check  ask the linters that are installed about deploy/ (those on PyPI are installed for it)"
	@echo "make clients  install websocket clients and a browser (npm), for tests to speak to the server with"
	@echo "make format  let ruff format the code"
	@echo "make clean   remove everything that was made, the virtual environment included"

demo: $(VENV)/.demo
	@$(FAQWIRE) export
	@$(FAQWIRE) export faqwire/confirmer -o var/cross-encoder
	@$(FAQWIRE) build intents/samples/shop.yaml --cross-encoder var/cross-encoder
	@exec $(FAQWIRE) serve --cross-encoder var/cross-encoder --host $(HOST) --port $(PORT)

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest

check: lint types arrows test

lint: $(VENV)/.check
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

format: $(VENV)/.check
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

types: $(VENV)/.check
	$(VENV)/bin/mypy

arrows: $(VENV)/.check
	$(VENV)/bin/lint-imports

asyncapi-parser:
	npm install --silent --no-audit --no-fund --prefix .cache/asyncapi @asyncapi/parser@3.6.3

# What AsyncAPI's own parser says of docs/asyncapi.json.
asyncapi: asyncapi-parser
	node tests/server/asyncapi.mjs .cache/asyncapi docs/asyncapi.json

deploy-linters: $(LINTERS)/.installed

$(LINTERS)/.installed: deploy/linters.txt | $(VENV)/.python
	$(VENV)/bin/python -m venv $(LINTERS)
	$(LINTERS)/bin/python -m pip --disable-pip-version-check install -q -r deploy/linters.txt
	@touch $@

# Which linter checked which deployment file, and what it found. Those that are not installed are named.
deploy-check: $(VENV)/.test
	@$(MAKE) --no-print-directory deploy-linters || echo "linters on PyPI cannot be had here"
	$(VENV)/bin/python deploy/check.py

# Clients that are not ours. The browser is 60 MB, and for Linux on x86-64; elsewhere tests take one that is installed.
clients:
	npm install --silent --no-audit --no-fund --prefix .cache/clients ws@8.23.0 undici@7.16.0 ajv@8.20.0
	if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  npm install --silent --no-audit --no-fund --prefix .cache/clients @sparticuz/chromium@143.0.4 && \
	  mkdir -p .cache/clients/browser && \
	  TMPDIR="$$PWD/.cache/clients/browser" node tests/server/clients/unpack.mjs .cache/clients; \
	fi

# What is pinned is what this environment holds, less local version labels. The file's comments stay, and so do the
# lines before the first blank one: packages of other platforms, which are not here.
pins: $(VENV)/.check
	sed '/^$$/q' $(PINS) > $(PINS).new
	$(PIP) freeze --exclude-editable --exclude faqwire | sed -E 's/\+[a-z0-9.]+$$//' >> $(PINS).new
	mv $(PINS).new $(PINS)

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "faqwire needs Python 3.11 or newer; \
	name one with PYTHON=..., for example: make demo PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c $(PINS) pip
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml $(PINS)
	@echo "installing into $(VENV): the first time this takes minutes (torch is large: docs/install.md has a smaller one)"
	$(PIP) install -q -c $(PINS) -e '.[build,export]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) install -q -c $(PINS) --group test
	@touch $@

$(VENV)/.check: $(VENV)/.test
	$(PIP) install -q -c $(PINS) --group check
	@touch $@

clean:
	rm -rf $(VENV) .cache var dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
