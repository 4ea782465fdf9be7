# make demo    install, pretrain on digits, evaluate, draw a report (no download)
# make test    install, then the whole test suite
# make lint    flake8, isort and yapf; make format applies the last two
VENV ?= .venv
DISTRIBUTION ?= onedl
comma := ,
# DISTRIBUTION: onedl, openmmlab, or empty to use the OpenMMLab that is there.
other := $(if $(DISTRIBUTION),$(if $(filter onedl,$(DISTRIBUTION)),mmengine,onedl-mmengine))
python := $(VENV)/bin/python
installed := $(VENV)/.simclr_mm-$(DISTRIBUTION)
sources := simclr_mm tools tests configs docs hubconf.py

.PHONY: demo test lint format

demo: $(installed)
	$(python) tools/demo.py

test: $(installed)
	$(python) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

lint: $(installed)
	$(python) -m flake8 $(sources)
	$(python) -m isort --check-only --diff $(sources)
	$(python) -m yapf --diff --recursive --parallel $(sources)

format: $(installed)
	$(python) -m isort $(sources)
	$(python) -m yapf --in-place --recursive --parallel $(sources)

# Never two OpenMMLab distributions in one environment: they own the same files.
$(installed): setup.cfg pyproject.toml
	test -x $(python) || python3 -m venv $(VENV)
	@if [ -n "$(other)" ] && $(python) -m pip show -q $(other) 2>/dev/null; then \
	  echo "$(VENV) holds the other OpenMMLab ($(other)): use it with DISTRIBUTION=" \
	    "(empty), or name another environment with VENV=" >&2; exit 2; fi
	$(python) -m pip install -e '.[$(DISTRIBUTION)$(if $(DISTRIBUTION),$(comma))test,lint]'
	@# MMEngine imports yapf, which writes its grammar when it is first imported: two of pytest's
	@# processes at once would find half of it.
	$(python) -c 'import yapf'
	touch $@
