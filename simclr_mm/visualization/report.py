"""One picture of a run: its loss, its views and a map of its features."""
import json
from pathlib import Path
from typing import List, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.manifold import TSNE


def read_scalars(log_dir: str) -> List[dict]:
    """The training entries of a run's ``vis_data/scalars.json``, oldest first."""
    lines = (Path(log_dir) / 'vis_data' / 'scalars.json').read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if 'loss' in entry]


def plot_report(path: str, scalars: Sequence[dict], views: np.ndarray,
                features: np.ndarray, labels: np.ndarray, classes: Sequence[str],
                title: str) -> None:
    """Write the loss curve, pairs of views and a 2-D map of features as one PNG.

    Args:
        path: The file to write.
        scalars: Log entries with ``step``, ``loss`` and ``chance``, as
            :func:`read_scalars` gives them.
        views: (m, V, S, S, 3) uint8 RGB, the V views of m images.
        features: (n, C) features.
        labels: (n,) classes of the features.
        classes: Class names.
        title: Title of the picture.
    """
    figure = Figure(figsize=(15, 5), layout='constrained')
    figure.suptitle(title)
    loss, pairs, embedding = figure.subplots(1, 3, width_ratios=[1, 0.7, 1.1])
    _plot_loss(loss, scalars)
    _plot_views(pairs, views)
    _plot_map(embedding, features, labels, classes)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _plot_loss(axes: Axes, scalars: Sequence[dict]) -> None:
    steps = [entry['step'] for entry in scalars]
    axes.plot(steps, [entry['loss'] for entry in scalars], label='training loss')
    axes.plot(
        steps, [entry['chance'] for entry in scalars],
        '--',
        color='grey',
        label='chance, ln(VN - 1)')
    axes.set(title='NT-Xent', xlabel='iteration', ylabel='loss [nats]', ylim=(0, None))
    axes.legend()


def _plot_views(axes: Axes, views: np.ndarray) -> None:
    padded = np.pad(
        views, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in padded])
    axes.imshow(grid)
    axes.set(title='augmented views, one image a row', xticks=[], yticks=[])


def _plot_map(axes: Axes, features: np.ndarray, labels: np.ndarray,
              classes: Sequence[str]) -> None:
    points = TSNE(init='pca', random_state=0).fit_transform(features)  # (n, 2)
    colours = matplotlib.colormaps['tab10' if len(classes) <= 10 else 'tab20']
    for label, name in enumerate(classes):
        mine = points[labels == label]
        axes.scatter(*mine.T, s=10, color=colours(label % colours.N), label=name)
    axes.set(title='test embeddings (t-SNE), by class', xticks=[], yticks=[])
    axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), markerscale=2)
