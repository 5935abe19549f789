# Everything is made from a fresh clone by one of these; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
STUDY ?= $(if $(MEDISWIFT_DATA),studies/real.yaml,studies/demo.yaml)
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help env book picture study test slow faults audit lint lab clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 8

env: $(READY) ## make the environment (TORCH_INDEX=ADDRESS for another build of torch)
ifdef TORCH_INDEX
	$(BIN)/python -m pip install -qq --index-url "$(TORCH_INDEX)" --force-reinstall --no-deps torch==2.13.0
	$(BIN)/python -m pip install -qq --index-url "$(TORCH_INDEX)" torch==2.13.0
endif

$(READY): requirements.txt pyproject.toml
	@echo "environment: installing into $(VENV), a few minutes ..."
	@began=$$(date +%s) && \
	$(PYTHON) -m venv $(VENV) && \
	$(BIN)/python -m pip install -qq --upgrade pip && \
	$(BIN)/python -m pip install -qq -r requirements.txt && \
	$(BIN)/python -m pip install -qq --no-deps -e . && \
	touch $(READY) && \
	echo "environment: $(VENV), ready after $$(( $$(date +%s) - began )) s"

book: $(READY) ## execute the notebooks and render the book (MEDISWIFT_DATA=FOLDER for real data)
	$(BIN)/python -m mediswift book $(STUDY)

picture: $(READY) ## redraw the README's picture from the demo run
	$(BIN)/python -m mediswift book studies/demo.yaml --picture book/_static/demo.png

study: $(READY) ## execute a study: make study STUDY=studies/NAME.yaml
	$(BIN)/python -m mediswift study $(STUDY)

test: $(READY) ## all tests but the slow ones, under ten minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadscope

slow: $(READY) ## the slow tests
	$(BIN)/python -m pytest -m slow

faults: $(READY) ## kill runs, break things, feed nonsense, and write what came of it into results/ (half an hour)
	$(BIN)/python tests/faults.py results

audit: $(READY) ## look up every pinned dependency in the index's list of known vulnerabilities
	@test -x $(VENV)/audit/bin/pip-audit || { \
	$(PYTHON) -m venv $(VENV)/audit && \
	$(VENV)/audit/bin/python -m pip install -qq pip-audit==2.10.1; }
	@sed 's/ *;.*//' requirements.txt > $(VENV)/audit/pinned.txt
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r $(VENV)/audit/pinned.txt

lint: $(READY) ## style, imports, docstrings
	$(BIN)/ruff check . && $(BIN)/ruff format --check mediswift tests

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

clean: ## remove the rendered book; runs and environment stay
	rm -rf book/_build book/notebooks
