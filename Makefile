# make demo    install what it needs, pretrain on digits, evaluate, draw a report (no download)
# make test    install, then the whole test suite
# make quick   the tests that take less than a minute in all
# make dist    wheel and sdist in dist/, checked
# make docs    the documentation as a site in build/site, to open in a browser
# make lint    ruff, import-linter and mypy; make format applies the first
VENV ?= .venv
DISTRIBUTION ?= onedl
comma := ,
# developed: with what tests and lint need, which the demo does not.
# DISTRIBUTION: onedl, openmmlab, or empty to use the OpenMMLab that is there.
other := $(if $(DISTRIBUTION),$(if $(filter onedl,$(DISTRIBUTION)),mmengine,onedl-mmengine))
python := $(VENV)/bin/python
installed := $(VENV)/.simclr_mm-$(DISTRIBUTION)
developed := $(installed)-dev
sources := simclr_mm simclr_mm_console tools tests configs docs hubconf.py

.PHONY: demo test quick lint format docs dist

demo: $(installed)
	$(python) tools/demo.py

test: $(developed)
	$(python) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

quick: $(developed)
	$(python) -m pytest -n auto --dist loadfile tests/losses tests/transforms tests/evaluation tests/files

lint: $(developed)
	$(python) -m ruff check $(sources)
	$(python) -m ruff format --check $(sources)
	$(VENV)/bin/lint-imports
	$(python) -m mypy

format: $(developed)
	$(python) -m ruff check --fix $(sources)
	$(python) -m ruff format $(sources)

# Every warning is an error: a broken link, a page that no menu names.
docs: $(installed)
	$(python) -m pip install --quiet -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build --quiet --strict

# The sdist first, and the wheel from it: so it holds everything.
dist: $(developed)
	rm -rf dist
	$(python) -m pip install --quiet -e '.[release]'
	$(python) -m build --no-isolation
	$(python) -m twine check --strict dist/*

# Never two OpenMMLab distributions in one environment: they own the same files.
$(installed): setup.cfg pyproject.toml
	test -x $(python) || python3 -m venv $(VENV)
	@if [ -n "$(other)" ] && $(python) -m pip show -q $(other) 2>/dev/null; then \
	  echo "$(VENV) holds the other OpenMMLab ($(other)): use it with DISTRIBUTION=" \
	    "(empty), or name another environment with VENV=" >&2; exit 2; fi
	$(python) -m pip install -e '.$(if $(DISTRIBUTION),[$(DISTRIBUTION)])'
	touch $@

$(developed): $(installed)
	$(python) -m pip install -e '.[$(DISTRIBUTION)$(if $(DISTRIBUTION),$(comma))test,lint]'
	@# MMEngine imports yapf, which writes its grammar when it is first imported: two of pytest's
	@# processes at once would find half of it.
	$(python) -c 'import yapf'
	touch $@
