"""Bars and lines stand where their numbers are."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from simclr_mm.visualization.study import plot_bars, plot_lines

LABELS = ['width', 'kNN [%]', 'head']


@pytest.fixture
def axes(monkeypatch, tmp_path):
    """The axes of figures that were drawn."""
    drawn = []
    monkeypatch.chdir(tmp_path)

    def save(figure, path, **_):
        figure.canvas.draw()
        drawn.append(figure.axes[0])

    monkeypatch.setattr(Figure, 'savefig', save)
    return drawn


def test_bars(axes):
    numbers = {'none': {None: 40.0}, 'linear': {8: 50.0, 16: 52.0}, 'mlp': {16: 60.0}}
    plot_bars('a.png', numbers, [8, 16], LABELS, 'title')
    bars = {
        round(bar.get_x() + bar.get_width() / 2, 3): bar.get_height() for bar in axes[0].patches
    }
    # One bar stands at its place, two beside each other around it.
    assert bars == {0.0: 50.0, 0.8: 52.0, 1.2: 60.0}
    (line,) = axes[0].get_lines()
    assert set(np.ravel(line.get_ydata())) == {40.0}
    names = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert sorted(names) == ['linear', 'mlp', 'none (40.0)']


def test_lines(axes):
    plot_lines('a.png', {'a': {8: 1.0, 32: 3.0}, 'b': {16: 2.0}}, [8, 16, 32], LABELS, 't')
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes[0].get_lines()]
    assert lines == [([0, 2], [1.0, 3.0]), ([1], [2.0])]
    assert [t.get_text() for t in axes[0].get_xticklabels()] == ['8', '16', '32']


def test_one_series_needs_no_legend(axes):
    plot_bars('a.png', {'': {'1/2': 3.0, '1': 4.0}}, ['1/2', '1'], LABELS, 'title')
    assert axes[0].get_legend() is None


def test_a_line_alone_is_named(axes):
    plot_bars('a.png', {'none': {None: 33.3}}, [8], LABELS, 'title')
    (name,) = axes[0].get_legend().get_texts()
    assert name.get_text() == 'none (33.3)'
    left, right = axes[0].get_xlim()
    assert left < -0.4 and right > 0.4  # the place is not on the border
