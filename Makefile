# make app    everything a fresh machine needs, then the reading room on http://127.0.0.1:7860
# make test   everything a fresh machine needs, then the whole suite
# make check  the suite, lint and types: what CI runs

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0

.PHONY: app test check lint browser

app: $(VENV)/ready
	$(BIN)/python app.py

test: $(VENV)/ready-dev browser
	$(BIN)/python -m pytest

check: lint test

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch first: left to itself pip takes a build with gigabytes of CUDA.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/ready-dev: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# The browser flows need Chromium. Without rights to install it they are skipped, and say why.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || echo "no Chromium, and no right to install it: browser flows will be skipped"
