"""Query images and what was found for them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from simclr_mm.transforms import LoadImageFromFile

from .style import COLOURS, picture, plain

_SIDE = 160  # pixels of a thumbnail
_NAME = 22  # characters that fit under one


def plot_gallery(
    path: str,
    queries: Sequence[str],
    names: Sequence[Sequence[str]],
    images: Sequence[Sequence[str | np.ndarray]],
    similarities: Sequence[Sequence[float]],
    title: str,
) -> None:
    """Write a row for each query: the query, then the images found for it.

    Args:
        queries: q image files.
        names: For each query the names of the k images, the nearest first.
        images: For each query their files, or (H, W, 3) uint8 RGB.
        similarities: For each query their cosine similarities.
    """
    rows, columns = len(queries), 1 + len(names[0])
    with picture(path, 1.75 * columns, 2.15 * rows + 0.9, plain(title)) as figure:
        figure.set_layout_engine('constrained', h_pad=0.1)  # inches between rows
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, query, *found in zip(grid, queries, names, images, similarities):
            _show(axes[0], query, 'query', query)
            _frame(axes[0])
            for rank, (place, name, file, value) in enumerate(zip(axes[1:], *found), start=1):
                _show(place, file, f'{rank}.  cos {value:.3f}', name)


def thumbnail(image: str | np.ndarray, side: int = _SIDE) -> np.ndarray:
    """An RGB picture of at most side x side pixels, its shape kept; small ones are not smoothed."""
    if isinstance(image, str):
        pixels = LoadImageFromFile()(dict(img_path=image))['img'][..., ::-1]
    else:
        pixels = image
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, how))


def _show(axes: Axes, file: str | np.ndarray, label: str, name: str) -> None:
    axes.imshow(thumbnail(file))
    axes.set_title(label, fontsize=11)
    axes.set_xlabel(_shortened(name), fontsize=8)
    axes.set(xticks=[], yticks=[])


def _frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set(edgecolor=COLOURS[5], linewidth=3)


def _shortened(name: str) -> str:
    """Folder and file, each on its line, cut in the middle where they are long."""
    parts = [plain(part) for part in Path(name).parts[-2:]]
    half = _NAME // 2 - 1
    return '\n'.join(
        part if len(part) <= _NAME else f'{part[:half]}...{part[-half:]}' for part in parts
    )
