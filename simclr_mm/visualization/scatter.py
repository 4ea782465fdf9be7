"""Features as points in the plane, coloured by class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import normalize

from simclr_mm.errors import MissingPackageError, UserError

from .style import mark, picture, plain

METHODS = ('tsne', 'umap', 'pca')
_ALIKE = 1e-5  # features of length 1 with smaller differences differ only by rounding
NAMES = dict(tsne='t-SNE', umap='UMAP', pca='PCA')
_LEGEND = 24  # classes that fit into a legend
_IN_LEGEND = 60  # size of a marker in the legend, in square points


def project(features: np.ndarray, method: str, seed: int = 0) -> np.ndarray:
    """Features (n, C) of length 1 in the plane, (n, 2), their neighbourhoods kept.

    Args:
        features: n >= 4, finite and not all alike.
        method: 'tsne', 'umap' (needs umap-learn) or 'pca'.
        seed: Of t-SNE and UMAP.
    """
    if method not in METHODS:
        raise UserError(f'method is {method!r}: choose one of {", ".join(METHODS)}')
    if len(features) < 4:
        raise UserError(f'a map needs at least 4 images, got {len(features)}')
    features = unit_rows(features)
    if method == 'pca':
        return PCA(2, random_state=seed).fit_transform(features)
    if method == 'tsne':
        perplexity = min(30, (len(features) - 1) / 3)
        return TSNE(init='pca', perplexity=perplexity, random_state=seed).fit_transform(features)
    try:
        from umap import UMAP
    except ImportError as error:
        raise MissingPackageError(
            "UMAP needs umap-learn: pip install 'simclr_mm[plots]', or take t-SNE"
        ) from error
    neighbours = min(15, len(features) - 1)
    # One job, because UMAP with a seed warns about more.
    return UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(features)


def plot_scatter(
    path: str,
    points: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    method: str,
    title: str,
) -> None:
    """Write a map of :func:`project` with a legend of classes and their counts.

    ``labels`` are indices of ``classes``. With one name, or none, there is no legend.
    """
    with picture(path, 9.5, 7) as figure:
        axes = figure.subplots()
        plot_map(axes, points, labels, classes, method)
        axes.set_title(plain(title))


def plot_map(
    axes: Axes, points: np.ndarray, labels: np.ndarray, classes: Sequence[str], method: str
) -> None:
    """Draw the map of :func:`plot_scatter`."""
    counts = np.bincount(labels, minlength=max(1, len(classes)))
    largest = np.argsort(-counts, kind='stable')[:_LEGEND]
    rest = ~np.isin(labels, largest)
    if rest.any():
        more = f'{len(np.unique(labels[rest]))} more classes ({rest.sum()})'
        _points(axes, points[rest], '#DDDDDD', 'o', more)
    for place, label in enumerate(sorted(largest)):
        name = plain(classes[label]) if len(classes) > 1 else 'images'
        if counts[label]:
            _points(axes, points[labels == label], *mark(place), f'{name} ({counts[label]})')
    name = NAMES[method]
    axes.set(xlabel=f'{name} 1 (no unit)', ylabel=f'{name} 2 (no unit)', xticks=[], yticks=[])
    if len(classes) > 1:
        legend = axes.legend(title='class (images)', loc='center left', bbox_to_anchor=(1, 0.5))
        for handle in legend.legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([_IN_LEGEND])


def _points(axes: Axes, points: np.ndarray, colour: str, marker: str, label: str) -> None:
    size = float(np.clip(20000 / max(1, len(points)), 9, 36))
    look: dict[str, Any] = dict(alpha=0.85, edgecolors='#444444', linewidths=0.3)
    x, y = points.T
    axes.scatter(x, y, s=size, color=colour, marker=marker, label=label, **look)


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, (n, C). Zero rows stay zero. Rows that cannot be drawn are a UserError."""
    broken = int((~np.isfinite(features).all(axis=1)).sum())
    if broken:
        raise UserError(
            f'{broken} of {len(features)} features are not finite: take an earlier checkpoint'
        )
    rows = normalize(features)
    if np.ptp(rows, axis=0).max() < _ALIKE:
        raise UserError(
            f'the {len(features)} features are all alike, so there is nothing to draw: the '
            'encoder has collapsed, or all images are the same'
        )
    return rows
