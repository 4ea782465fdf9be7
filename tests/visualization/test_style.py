"""Names that others chose are shown as they are."""

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image

from simclr_mm.errors import UserError
from simclr_mm.visualization.gallery import plot_gallery
from simclr_mm.visualization.scatter import plot_scatter
from simclr_mm.visualization.style import picture, plain

NAMES = ['a $x_{ b', 'half $ price $', r'\frac{$1$', 'two\nlines', 'bell\a', '_hidden', 'bad\udcff']


def test_what_cannot_be_drawn_becomes_its_escape():
    assert [plain(name) for name in NAMES[3:]] == [
        r'two\nlines',
        r'bell\x07',
        ' _hidden',
        r'bad\udcff',
    ]
    assert plain('Möwe 鷗 $5') == 'Möwe 鷗 $5'


@pytest.mark.parametrize(
    'name, message', [('a.nosuch', r'\.nosuch is no picture format'), ('.', 'is a folder')]
)
def test_a_file_that_cannot_be_written(name, message, tmp_path):
    with pytest.raises(UserError, match=message), picture(tmp_path / name, 2, 2):
        raise AssertionError('nothing is drawn')


def test_the_format_is_that_of_the_name(tmp_path):
    for name, begin in (('plain', b'\x89PNG'), ('a.PDF', b'%PDF'), ('b.svg', b'<?xml')):
        with picture(tmp_path / 'new' / name, 2, 2):
            pass
        assert (tmp_path / 'new' / name).read_bytes().startswith(begin)


@pytest.fixture
def figures(monkeypatch):
    saved = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure, 'savefig', lambda self, *a, **k: (saved.append(self), savefig(self, *a, **k))
    )
    return saved


def test_a_legend_has_every_class(figures, tmp_path):
    labels = np.arange(len(NAMES)).repeat(2)
    points = np.random.default_rng(0).normal(size=(len(labels), 2))
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # such as a glyph that is missing
        plot_scatter(str(tmp_path / 'a.png'), points, labels, NAMES, 'pca', 'a $ folder $x_{')
    assert imread(tmp_path / 'a.png').size
    legend = figures[0].axes[0].get_legend().get_texts()
    assert [text.get_text() for text in legend] == [f'{plain(name)} (2)' for name in NAMES]
    assert not any(text.get_parse_math() for text in legend)


def test_a_gallery_has_every_name(figures, tmp_path):
    files = [str(tmp_path / f'$x_{{{k}$.png') for k in range(len(NAMES))]
    for file in files:
        Image.new('RGB', (8, 8)).save(file)
    title = 'The nearest in $x_{'
    plot_gallery(str(tmp_path / 'b.png'), files[:1], [NAMES], [files], [[0.5] * len(NAMES)], title)
    assert imread(tmp_path / 'b.png').size
    assert [axes.get_xlabel() for axes in figures[0].axes[1:]] == [plain(name) for name in NAMES]
