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
from simclr_mm.datasets.nested import transforms_of
from simclr_mm.datasets.unreadable import DROPPED, seeded_pipeline
from simclr_mm.errors import UserError
from simclr_mm.transforms import LoadBands, TwoViews, UnreadableImage
from simclr_mm.transforms.base import is_bgr

from .style import COLOURS, picture


@dataclass(frozen=True)
class Views:
    """One image and its views."""

    index: int  # its index in the dataset
    original: np.ndarray  # (H, W, 3) uint8 RGB, the input of TwoViews as it is shown
    views: np.ndarray  # (V, S, S, 3) uint8 RGB, as they are shown
    params: list[dict[str, Any]]  # drawn parameters of each view, as in ``view_params``
    note: str = ''  # how bands became RGB
    others: frozenset[int] = frozenset()  # views of other images of its group


def make_views(
    dataset: Any, index: int, seed: int, epoch: int = 0, bands: Sequence[int] | None = None
) -> Views:
    """The views that training with this seed makes of an image in this epoch, from 0.

    ``bands`` are shown as in :func:`as_colours`; None: colours as they are, or the first bands.

    Raises:
        UserError: The pipeline has no TwoViews, or there is no such image or band.
        UnreadableImage: The image cannot be read, or a transform dropped it.
    """
    transforms = transforms_of(dataset)
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
    address = SampleIndex(index, seed, epoch)
    with seeded_pipeline(dataset, address):
        results = getattr(dataset, 'entering', dataset.get_data_info)(address)
        results['sample_idx'] = address
        path = str(results.get('img_path', ''))
        results = Compose(transforms[: places[0]])(results)
        if results is not None:
            original = results['img']
            count = len(results.get('imgs') or ())
            others = frozenset(v for v in range(1, count) if dataset.mate(address, v) != index)
            results = two_views(results)
    if results is None:  # mmcv's mark of a dropped image
        raise UnreadableImage(f'image {index} {path}: {DROPPED}', path)
    views = results['img'].transpose(0, 2, 3, 1)  # (V, S, S, C)
    if bands is None and is_bgr(original):
        in_file_order = any(isinstance(step, LoadBands) for step in transforms)
        bands = (0, 1, 2) if in_file_order else (2, 1, 0)
        shown = original[..., bands], views[..., bands]
        return Views(index, *shown, results['view_params'], others=others)
    bands = bands or _first_bands(original)
    shown = as_colours(original, original, bands), as_colours(views, original, bands)
    note = f'band(s) {", ".join(map(str, bands))}, stretched'
    return Views(index, *shown, results['view_params'], note, others)


def as_colours(
    images: np.ndarray, original: np.ndarray, bands: Sequence[int] | None = None
) -> np.ndarray:
    """Bands as red, green and blue, stretched for looking only.

    Args:
        images: (..., C), of any type: an image or its views.
        original: (H, W, C). Its 1st percentile in each band becomes black and its 99th full colour,
            so that its views keep their brightness beside it.
        bands: Three bands, or one for grey. None: the first three, or the first of one or two.

    Returns:
        (..., 3) uint8 RGB.

    Raises:
        UserError: There are no such bands.
    """
    bands, count = bands or _first_bands(original), original.shape[-1]
    if len(bands) not in (1, 3) or not all(0 <= band < count for band in bands):
        raise UserError(
            f'bands {list(bands)} of an image with {count} band(s): name three, for red, green and '
            f'blue, or one for grey, from 0 to {count - 1}'
        )
    shown = np.broadcast_to(images[..., list(bands)], (*images.shape[:-1], 3)).astype(np.float64)
    low, high = np.percentile(original[..., list(bands)], (1, 99), axis=(0, 1))
    stretched = (shown - low) / np.where(high > low, high - low, 1)
    return np.round(255 * stretched.clip(0, 1)).astype(np.uint8)


def _first_bands(img: np.ndarray) -> tuple[int, ...]:
    return (0, 1, 2) if img.shape[-1] > 2 else (0,)


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
        values = [f'{key} {_shown(value)}' for key, value in drawn.items()]
        name = name.removeprefix('Random')
        if len(values) > 2:
            lines += [', '.join(values[k : k + 2]) for k in range(0, len(values), 2)]
        else:
            lines.append(f'{name} {", ".join(values)}'.strip())
    return lines if len(lines) > 1 else [*lines, 'nothing else']


def _shown(value: Any) -> str:
    if isinstance(value, list):  # of each band: the range tells enough
        return _shown(value[0]) if len(value) == 1 else f'{min(value):.4g} to {max(value):.4g}'
    return f'{value:.2f}' if isinstance(value, float) else f'{value}'


def _show_original(axes: Axes, sample: Views) -> None:
    axes.imshow(sample.original)
    for v, params in enumerate(sample.params):
        if v in sample.others:
            continue
        top, left, height, width = params['crop']
        colour, corner = COLOURS[v % len(COLOURS)], (left - 0.5, top - 0.5)
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, lw=2.5))
    height, width = sample.original.shape[:2]
    axes.set(title=f'image {sample.index}', xticks=[], yticks=[])
    axes.set_xlabel('\n'.join([f'{width} x {height} px', sample.note]).strip(), fontsize=9)


def _show_view(axes: Axes, sample: Views, v: int) -> None:
    axes.imshow(sample.views[v])
    of = ', of another image' if v in sample.others else ''
    axes.set_title(f'view {v + 1}{of}', color=COLOURS[v % len(COLOURS)], weight='bold')
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel('\n'.join(describe(sample.params[v])), fontsize=9)
    for spine in axes.spines.values():
        spine.set(edgecolor=COLOURS[v % len(COLOURS)], linewidth=2.5)
