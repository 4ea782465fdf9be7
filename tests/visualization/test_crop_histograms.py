"""A line for every crop, on the same axes."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from simclr_mm.visualization.study import HIGHEST, plot_crop_histograms


@pytest.mark.parametrize('highest, cut', [(0.2, False), (0.6, True)])
def test_panels(highest, cut, monkeypatch, tmp_path):
    figures = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *_, **__: figures.append(figure))
    histograms = np.full((2, 2, 3, 4), 0.1)
    histograms[1, 1, 2, 3] = highest
    plot_crop_histograms(
        'a.png', histograms, np.full((2, 2), 0.876), ['a', 'b'], ['without', 'with'], 'title'
    )
    axes = figures[0].axes
    assert [a.get_title() for a in axes] == [
        f'{image}, {kind}: two crops share 88 %' for image in 'ab' for kind in ('without', 'with')
    ]
    assert all(len(a.patches) == 3 for a in axes)
    assert max(axes[3].patches[2].get_data().values) == pytest.approx(100 * highest)
    limits = {a.get_ylim() for a in axes}
    assert len(limits) == 1
    assert (limits == {(0, HIGHEST)}) == cut
    assert (figures[0].get_supxlabel() != '') == cut
