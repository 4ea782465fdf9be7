import json

import numpy as np
from matplotlib.figure import Figure

from simclr_mm.visualization.loss import plot_loss, read_scalars


def test_only_training_entries_are_read(tmp_path):
    entries = [dict(step=1, loss=2.0, chance=3.0), {'knn/top1': 50.0, 'step': 1}]
    text = '\n'.join(map(json.dumps, entries)) + '\n{"step": 2, "loss": 1'  # killed
    (tmp_path / 'scalars.json').write_text(text)
    assert read_scalars(tmp_path / 'scalars.json') == entries[:1]


def test_chance_is_drawn_where_the_log_has_it():
    entries = [dict(step=i, loss=5.0 - i, chance=4.5) for i in range(3)]
    axes = Figure().subplots()
    plot_loss(axes, entries)
    assert [line.get_ydata().tolist() for line in axes.lines] == [[5, 4, 3], [4.5] * 3]
    axes = Figure().subplots()
    plot_loss(axes, [dict(step=7, loss=1.0)])  # a classifier's log
    (line,) = axes.lines
    assert np.array_equal(line.get_xydata(), [[7, 1]])
