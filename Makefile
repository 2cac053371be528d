# Every target makes .venv first and refreshes it when pyproject.toml or constraints.txt change.
PYTHON ?= $(shell for name in python3.11 python3 python3.12 python3.10; do $$name -c pass 2>/dev/null && echo $$name && break; done)
RUN := .venv/bin/python
WORKERS ?= 2
TESTS ?= not slow and not browser

.DEFAULT_GOAL := help
.PHONY: help install quickstart demo evidence docs test lint format clean

help:                ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 22

install: .venv/installed   ## make .venv with everything below

.venv/installed: pyproject.toml constraints.txt bootstrap.py
	@test -n "$(PYTHON)" || { echo "No Python found; install Python 3.11." >&2; exit 1; }
	@"$(PYTHON)" bootstrap.py

quickstart: .venv/installed   ## synthetic talking heads -> lips -> pre-training -> fine-tuning -> a table of word errors in noise
	$(RUN) -m demos.quickstart

demo: .venv/installed         ## the web page: your video, noise by a slider, three transcripts
	$(RUN) -m demos.noisy_speech

evidence: .venv/installed     ## small tests of what the papers claim, into docs/evidence.md; hours, resumed (SYSTEM=vatlm: one; SPEECH=, NOISE=: recordings)
	$(RUN) -m benchmarks.evidence $(SYSTEM) $(if $(SPEECH),--speech "$(SPEECH)") $(if $(NOISE),--noise "$(NOISE)") $(if $(SEEDS),--seeds $(SEEDS))

docs: .venv/installed         ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

# One thread per worker: the models in the tests are tiny, and more threads than cores make them slower.
test: .venv/installed         ## ruff, mypy and all tests but the slow ones (TESTS="slow" or TESTS="browser" runs those)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) -m "$(TESTS)"

lint: .venv/installed         ## ruff and mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: .venv/installed       ## let ruff rewrite the code
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:               ## remove build products and caches; .venv and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .gradio
	find . -name __pycache__ -not -path './.venv/*' -not -path './runs/*' -prune -exec rm -rf {} +
