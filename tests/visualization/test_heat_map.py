"""Heat maps hold every number that is there."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from simclr_mm.visualization.study import plot_heat_map


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved."""
    saved = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure, 'savefig', lambda self, *a, **k: (saved.append(self), savefig(self, *a, **k))
    )
    return saved


def test_numbers_mean_and_frame(figures, tmp_path):
    values = np.array([[10.0, np.nan, 30.0], [np.nan, np.nan, np.nan]])
    plot_heat_map(
        str(tmp_path / 'a.png'),
        values,
        ['a', 'b'],
        ['x', 'y', 'z'],
        ['row', 'column', 'kNN [%]'],
        'title',
        with_mean=True,
    )
    axes = figures[0].axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): '10.0', (2, 0): '30.0', (3, 0): '20.0'}
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ['x', 'y', 'z', 'mean']
    (frame,) = axes.patches
    assert frame.get_xy() == pytest.approx((1.54, -0.46))  # around the 30
    assert imread(tmp_path / 'a.png').size
