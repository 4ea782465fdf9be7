"""One picture of a run: its loss, its views and a map of its features."""

from collections.abc import Sequence

import numpy as np

from .loss import plot_loss
from .scatter import plot_map, project
from .style import picture


def plot_report(
    path: str,
    scalars: Sequence[dict],
    views: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    title: str,
    shown: str,
) -> None:
    """Write the loss curve, pairs of views and a 2-D map of features as one PNG.

    ``scalars`` are from :func:`~simclr_mm.visualization.loss.read_scalars`; ``views`` are
    (m, V, S, S, 3) uint8 RGB, ``features`` (n, C), and ``labels`` (n,) indices of ``classes``,
    ``shown`` what these features are.
    """
    with picture(path, 15, 5.2, title) as figure:
        loss, pairs, embedding = figure.subplots(1, 3, width_ratios=[1, 0.4, 1.2])
        plot_loss(loss, scalars)
        loss.set_title('training loss')
        padded = np.pad(views, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
        pairs.imshow(np.concatenate([np.concatenate(list(row), axis=1) for row in padded]))
        pairs.set(title='views,\none image a row', xticks=[], yticks=[])
        plot_map(embedding, project(features, 'tsne'), labels, classes, 'tsne')
        embedding.set_title(f'{shown}, by class' if len(classes) > 1 else shown)
