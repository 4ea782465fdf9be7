"""An image, the views that training makes of it, and their drawn parameters.

V views, S side of a view in pixels.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from mmengine.dataset import Compose

from simclr_mm.datasets import SampleIndex
from simclr_mm.errors import UserError
from simclr_mm.transforms import TwoViews, UnreadableImage
from simclr_mm.transforms.base import is_bgr

from .style import COLOURS, picture


@dataclass(frozen=True)
class Views:
    """One image and its views."""

    index: int  # its index in the dataset
    original: np.ndarray  # (H, W, 3) uint8 RGB, the input of TwoViews
    views: np.ndarray  # (V, S, S, 3) uint8 RGB
    params: list[dict[str, Any]]  # drawn parameters of each view, as in ``view_params``
    note: str = ''  # how bands became RGB


def make_views(dataset: Any, index: int, seed: int, epoch: int = 0) -> Views:
    """The views that training with this seed makes of an image in this epoch, from 0.

    Raises:
        UserError: The pipeline has no TwoViews, or there is no such image.
        UnreadableImage: The image cannot be read, or a transform dropped it.
    """
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    places = [p for p, each in enumerate(transforms) if isinstance(each, TwoViews)]
    if not places:
        raise UserError(
            'train_dataloader.dataset.pipeline has no simclr_mm.TwoViews, '
            'so there are no views to show: take a pretraining config'
        )
    if not 0 <= index < len(dataset):
        raise UserError(
            f'there is no image {index}: the dataset has images 0 to {len(dataset) - 1}'
        )
    two_views = copy.copy(transforms[places[0]])
    two_views.on_device = False  # the same views, made here
    results = dataset.get_data_info(index)
    results['sample_idx'] = SampleIndex(index, seed, epoch)
    path = str(results.get('img_path', ''))
    results = Compose(transforms[: places[0]])(results)
    if results is not None:
        original = results['img']  # (H, W, C)
        results = two_views(results)
    if results is None:  # mmcv's mark of a dropped image
        raise UnreadableImage(f'image {index} {path}: a transform dropped it', path)
    views = results['img'].transpose(0, 2, 3, 1)  # (V, C, S, S) -> (V, S, S, C)
    if is_bgr(original):
        original, views, note = original[..., ::-1].copy(), views[..., ::-1], ''
    else:
        low, high = np.percentile(original, (1, 99), axis=(0, 1))  # (C,)
        original, views = (_stretched(each, low, high) for each in (original, views))
        note = 'the first bands, stretched'
    return Views(index, original, views, results['view_params'], note)


def _stretched(bands: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(..., C) as (..., 3) uint8: the first three bands, or the first one as grey."""
    shown = [0, 1, 2] if len(low) > 2 else [0, 0, 0]
    span = np.maximum(high - low, np.finfo(np.float32).tiny)
    levels = 255 * (bands[..., shown] - low[shown]) / span[shown]
    return levels.clip(0, 255).astype(np.uint8)


def plot_views(path: str, samples: Sequence[Views], title: str) -> None:
    """Write a row for each image: the original with the boxes of its crops, and its views."""
    columns = 1 + len(samples[0].views)
    lines = max(len(describe(params)) for sample in samples for params in sample.params)
    height = (2.75 + 0.17 * lines) * len(samples) + 0.7
    with picture(path, 2.6 * columns, height, title) as figure:
        grid = figure.subplots(len(samples), columns, squeeze=False)
        for row, sample in zip(grid, samples):
            _show_original(row[0], sample)
            for v, axes in enumerate(row[1:]):
                _show_view(axes, sample, v)


def describe(params: dict[str, Any]) -> list[str]:
    """The drawn parameters of a view, a line for each applied transform."""
    top, left, height, width = params['crop']
    lines = [
        f'crop {width} x {height} px at ({left}, {top})' + (', flipped' if params['flip'] else '')
    ]
    for name, drawn in params.items():
        if name in ('crop', 'flip') or drawn is None:
            continue
        values = [
            f'{key} {value:.2f}' if isinstance(value, float) else f'{key} {value}'
            for key, value in drawn.items()
        ]
        name = name.removeprefix('Random')
        if len(values) > 2:
            lines += [', '.join(values[k : k + 2]) for k in range(0, len(values), 2)]
        else:
            lines.append(f'{name} {", ".join(values)}'.strip())
    return lines if len(lines) > 1 else [*lines, 'nothing else']


def _show_original(axes: Axes, sample: Views) -> None:
    axes.imshow(sample.original)
    for v, params in enumerate(sample.params):
        top, left, height, width = params['crop']
        colour, corner = COLOURS[v % len(COLOURS)], (left - 0.5, top - 0.5)
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, lw=2.5))
    height, width = sample.original.shape[:2]
    axes.set(title=f'image {sample.index}', xticks=[], yticks=[])
    axes.set_xlabel('\n'.join([f'{width} x {height} px', sample.note]).strip(), fontsize=9)


def _show_view(axes: Axes, sample: Views, v: int) -> None:
    axes.imshow(sample.views[v])
    axes.set_title(f'view {v + 1}', color=COLOURS[v % len(COLOURS)], weight='bold')
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel('\n'.join(describe(sample.params[v])), fontsize=9)
    for spine in axes.spines.values():
        spine.set(edgecolor=COLOURS[v % len(COLOURS)], linewidth=2.5)
