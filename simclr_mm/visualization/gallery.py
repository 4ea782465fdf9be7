"""Query images and the images found for them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from simclr_mm.errors import UserError
from simclr_mm.transforms import LoadBands, LoadImageFromFile, UnreadableImage
from simclr_mm.transforms.base import is_bgr
from simclr_mm.transforms.to_rgb import bits_of

from .style import COLOURS, picture, plain
from .views import as_colours

_SIDE = 160  # pixels of a thumbnail
_PHOTOMETRIC, _BLACK_IS_ZERO, _RGB = 262, 1, 2  # of TIFF 6.0; others are no plain levels
_NAME = 22  # characters that fit under a thumbnail


def plot_gallery(
    path: str,
    queries: Sequence[str],
    names: Sequence[Sequence[str]],
    images: Sequence[Sequence[str | np.ndarray]],
    similarities: Sequence[Sequence[float]],
    title: str,
) -> None:
    """Write a row for each query: its file, then the k images found for it, the nearest first.

    An image is a file, or (H, W, 3) uint8 RGB; a similarity is a cosine.
    """
    rows, columns = len(queries), 1 + len(names[0])
    with picture(path, 1.75 * columns, 2.15 * rows + 0.9, plain(title)) as figure:
        figure.set_layout_engine('constrained', h_pad=0.1)  # inches between rows
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, query, *found in zip(grid, queries, names, images, similarities):
            _show(axes[0], query, 'query', query)
            for spine in axes[0].spines.values():
                spine.set(edgecolor=COLOURS[5], linewidth=3)
            for rank, (place, name, file, value) in enumerate(zip(axes[1:], *found), start=1):
                _show(place, file, f'{rank}.  cos {value:.3f}', name)


def seen(image: str | np.ndarray) -> np.ndarray:
    """A file, or (H, W, 3) uint8 RGB, as (H, W, 3) uint8 RGB.

    A file of other than 8-bit colours is read as bands, which are stretched for looking only.
    """
    if not isinstance(image, str):
        return image
    try:
        colours = LoadImageFromFile()(dict(img_path=image))['img'][..., ::-1]
    except UnreadableImage:
        return _stretched(image)
    try:
        return _stretched(image) if _is_deep(image) else colours
    except Exception:  # of Pillow, which reads less than OpenCV, or for want of tifffile
        return colours


def _is_deep(image: str) -> bool:
    """Whether a file has more than 8 bits, of which few may be used: 12 of 16 would be black."""
    with Image.open(image) as opened:
        kind = getattr(opened, 'tag_v2', {}).get(_PHOTOMETRIC, _BLACK_IS_ZERO)
        return bits_of(opened, image) > 8 and kind in (_BLACK_IS_ZERO, _RGB)


def _stretched(image: str) -> np.ndarray:
    try:
        img = LoadBands(nan=0.0)(dict(img_path=image))['img']
    except UnreadableImage:
        raise
    except UserError:  # either axis of an array may have the bands
        img = LoadBands(nan=0.0, layout='CHW')(dict(img_path=image))['img']
    return img if is_bgr(img) else as_colours(img, img)


def thumbnail(image: str | np.ndarray, side: int = _SIDE) -> np.ndarray:
    """:func:`seen`, at most side x side pixels. Small images are enlarged without smoothing."""
    pixels = seen(image)
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


def _shortened(name: str) -> str:
    """Folder and file, one a line. Long names are cut in the middle."""
    parts = [plain(part) for part in Path(name).parts[-2:]]
    half = _NAME // 2 - 1
    return '\n'.join(
        part if len(part) <= _NAME else f'{part[:half]}...{part[-half:]}' for part in parts
    )
