# make demo    install, pretrain on digits, evaluate, draw a report (no download)
# make test    install, then the whole test suite
# make lint    flake8, isort and yapf; make format applies the last two
VENV ?= .venv
DISTRIBUTION ?= onedl
python := $(VENV)/bin/python
installed := $(VENV)/.simclr_mm-$(DISTRIBUTION)
sources := simclr_mm tools tests configs

.PHONY: demo test lint format

demo: $(installed)
	$(python) tools/demo.py

test: $(installed)
	$(python) -m pytest $(PYTEST_FLAGS)

lint: $(installed)
	$(python) -m flake8 $(sources)
	$(python) -m isort --check-only --diff $(sources)
	$(python) -m yapf --diff --recursive --parallel $(sources)

format: $(installed)
	$(python) -m isort $(sources)
	$(python) -m yapf --in-place --recursive --parallel $(sources)

$(installed): setup.cfg pyproject.toml
	test -x $(python) || python3 -m venv $(VENV)
	$(python) -m pip install -e '.[$(DISTRIBUTION),test,lint]'
	touch $@
