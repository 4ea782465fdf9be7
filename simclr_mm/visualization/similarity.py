"""Similarities of two views of one image, compared with views of different images.

n images, V views, d width of the features.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from sklearn.metrics import roc_auc_score

from simclr_mm.errors import UserError

from .scatter import unit_rows
from .style import COLOURS, picture


def pair_similarities(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of all pairs of views, each pair once, for features (n, V, d) with V >= 2.

    First the positives, (n V (V - 1) / 2) pairs of one image, then the negatives, all others.
    """
    n, views, width = features.shape
    flat = unit_rows(features.reshape(n * views, width).astype(np.float64))  # (nV, d)
    rows, columns = np.triu_indices(n * views, k=1)
    cosines = (flat @ flat.T)[rows, columns]
    same = rows // views == columns // views
    return cosines[same], cosines[~same]


def plot_similarities(
    path: str, panels: Sequence[tuple[str, np.ndarray, np.ndarray]], title: str
) -> None:
    """Write histograms, a panel for each (title, positives, negatives)."""
    if any(len(negatives) == 0 for _, _, negatives in panels):
        raise UserError('there is one image only: similarities of different images need two')
    with picture(path, 6.2 * len(panels), 4.8, title) as figure:
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
            _histogram(axes, *panel)


def separation(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Probability that a positive pair is more similar than a negative one, in [0, 1]."""
    truth = np.repeat([1, 0], [len(positives), len(negatives)])
    return float(roc_auc_score(truth, np.concatenate([positives, negatives])))


def _histogram(axes: Axes, name: str, positives: np.ndarray, negatives: np.ndarray) -> None:
    lowest = min(positives.min(), negatives.min())
    bins = np.linspace(lowest, max(1, positives.max()), 41)
    kinds = (
        ('negatives: views of different images', negatives, COLOURS[1]),
        ('positives: two views of one image', positives, COLOURS[0]),
    )
    for label, values, colour in kinds:
        mean = round(float(values.mean()), 2) + 0.0  # no "-0.00"
        label = f'{label}\n{len(values):,} pairs, mean {mean:.2f}'
        weights = np.full(len(values), 100 / len(values))
        axes.hist(values, bins.tolist(), weights=weights, color=colour, alpha=0.6, label=label)
        axes.axvline(mean, color=colour, linestyle='--', linewidth=2)
    share = 100 * separation(positives, negatives)
    axes.set_title(f'{name}: a positive beats a negative in {share:.1f} % of cases')
    axes.set_xlabel('cosine similarity (dashed: mean)')
    axes.set_ylabel('share of the pairs of each kind [%]')
    axes.legend(loc='upper left', framealpha=1)
    axes.margins(y=0.35)
