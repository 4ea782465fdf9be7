"""The site that ``make docs`` builds: its menu, its reference, and the notebook."""

import importlib
import json
import re

import matplotlib.pyplot as plt
import pytest
import yaml
from helpers import ROOT

import simclr_mm.losses
from simclr_mm_console import COMMANDS
from simclr_mm_console.completion import words_of

DOCS = ROOT / 'docs'
NAMES = [name for names in COMMANDS.values() for name in names]


@pytest.fixture(scope='module')
def reference():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS / 'site'))
        yield importlib.import_module('reference')


@pytest.fixture(scope='module')
def pages(reference):
    return reference.pages()


def test_the_menu_names_every_page():
    nav = yaml.load((ROOT / 'mkdocs.yml').read_text(), yaml.BaseLoader)['nav']
    named = re.findall(r'(\w+)\.md', json.dumps(nav))
    assert len(named) == len(set(named))
    files = [*DOCS.glob('*.md'), *DOCS.glob('*.ipynb')]
    assert {path.stem for path in files} - {'README'} <= set(named)


@pytest.mark.parametrize('name', NAMES)
def test_a_command_has_a_page_with_every_flag_and_its_help(name, reference, pages):
    page = pages[f'commands/{name}.md']
    flags = {word for word in words_of(name) if word.startswith('--')} - {'--help'}
    assert not [flag for flag in flags if not re.search(rf'[` ]{flag}\b', page)]
    assert not [each.dest for each in reference.parser_of(name)._actions if not each.help]


def test_python_and_types(reference, pages):
    page = pages['python/losses.md']
    assert all(f'.{name}\n' in f'{page}\n' for name in simclr_mm.losses.__all__)
    shown = re.findall('^::: (.+)$', '\n'.join(pages.values()), re.MULTILINE)
    assert 'simclr_mm.errors.UserError' in shown and len(shown) == len(set(shown))
    assert not [place for place in shown if not place.startswith('simclr_mm.')]
    rows = re.findall(r'^\| (.+?) \|', pages['types.md'], re.MULTILINE)
    assert '[`LARS`][simclr_mm.engine.lars.LARS]' in rows
    assert not [row for row in rows if row.startswith('`')]  # each has a place to lead to


def test_docstrings_and_helps_as_markdown(reference):
    text = 'As :func:`~simclr_mm.losses.nt_xent` of :meth:`TwoViews.batch`, :class:`_Private`.'
    assert reference.with_links(text) == (
        'As [`nt_xent`][simclr_mm.losses.nt_xent.nt_xent] of '
        '[`TwoViews.batch`][simclr_mm.transforms.views.TwoViews], `_Private`.'
    )
    assert reference._plain('read DIR/<a class>/, *.jpg (see --out).') == (
        'read `DIR/<a class>/`, `*.jpg` (see `--out`).'
    )


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, 'show', plt.close)
    cells = json.loads((DOCS / 'first_encoder.ipynb').read_text())['cells']
    code = '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'code')
    for all_of_it, some in {
        "_epochs': 10": "_epochs': 4",
        '1297:]': '300:500]',
        '1297': '300',
    }.items():
        code = code.replace(all_of_it, some)
    namespace = {}
    exec(code, namespace)
    assert namespace['of_features'] > 0.5  # of ten digits
    assert not [*tmp_path.iterdir()]
