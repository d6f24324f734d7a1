# make app    everything a fresh machine needs, then the reading room on http://127.0.0.1:7860
# make test   everything a fresh machine needs, then the whole suite
# make check  the suite, lint and types
# make bench-quality, make bench-speed    how good and how fast, beside the peers, with plots;
#                                         -short: a part of each, in minutes
# make bench-reading                      what reading adds, and what it costs
# make bench-followups, make bench-load   completing questions; fifty people at once
# make bench-passwords                    are user names told by time; does guessing delay others
# make bench-scale-out                    a library on one, two, three Ray nodes (as root)
# make screenshots                        every state of the page, to docs/screenshots

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
PEERS := .venv-peers

.PHONY: app test check lint browser peers bench-quality bench-quality-short bench-speed bench-speed-short \
  bench-reading bench-followups bench-load bench-passwords bench-scale-out screenshots

app: $(VENV)/ready
	$(BIN)/python app.py

test: $(VENV)/ready-dev browser
	$(BIN)/python -m pytest

check: lint test

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench-quality: $(VENV)/ready-bench peers
	$(BIN)/python benchmarks/quality.py

bench-quality-short: $(VENV)/ready-bench
	$(BIN)/python benchmarks/quality.py --short

bench-reading: $(VENV)/ready-bench
	$(BIN)/python benchmarks/reading.py

bench-followups: $(VENV)/ready-bench
	$(BIN)/python benchmarks/followups.py

bench-load: $(VENV)/ready-bench
	$(BIN)/python benchmarks/load.py

bench-passwords: $(VENV)/ready-dev
	$(BIN)/python benchmarks/passwords.py

bench-scale-out: $(VENV)/ready-bench
	$(BIN)/python benchmarks/scale_out.py

screenshots: $(VENV)/ready-dev browser
	$(BIN)/python tests/screenshots.py

bench-speed: $(VENV)/ready-bench peers
	$(BIN)/python benchmarks/speed.py

bench-speed-short: $(VENV)/ready-bench
	$(BIN)/python benchmarks/speed.py --short

# LangChain, LlamaIndex, txtai and Haystack, pinned, apart from our own environment.
peers: $(PEERS)/ready

$(PEERS)/ready: benchmarks/peers/requirements.txt benchmarks/peers/constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/bin/python -m pip install --quiet $(TORCH)
	$(PEERS)/bin/python -m pip install --quiet --constraint benchmarks/peers/constraints.txt \
	  --requirement benchmarks/peers/requirements.txt
	touch $@

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

$(VENV)/ready-bench: $(VENV)/ready-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,benchmark]'
	touch $@

# The browser flows need Chromium. Without rights to install it they are skipped, and say why.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || echo "no Chromium, and no right to install it: browser flows will be skipped"
