"""Small pictures on sheets, each sheet one JPEG."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from simclr_mm.errors import UnreadableImage
from simclr_mm.visualization.gallery import seen, thumbnail
from simclr_mm.visualization.page import jpeg_address

_ON_A_SHEET = 625  # pictures: a browser decodes a sheet in some 20 ms
_LARGEST = ((1000, 112), (4000, 72), (math.inf, 48))  # side in pixels up to this many pictures
_QUALITY = 80  # of a JPEG
_PAPER, _MISSING = 250, 215  # greys: around a picture, and instead of one


class Sheets(NamedTuple):
    """Pictures in row-major order, ``columns`` a row and columns x columns on a sheet."""

    side: int  # of a picture's place, in pixels
    columns: int
    images: list[str]  # data URIs
    unreadable: list[int]  # rows without a picture


def sheets(pictures: Iterable[str | np.ndarray], count: int) -> Sheets:
    """Draw ``count`` pictures, files or (H, W, 3) uint8 RGB, as small as their number asks.

    A picture that cannot be read leaves its place grey.
    """
    side = next(side for most, side in _LARGEST if count <= most)
    small: list[np.ndarray | None] = []
    for picture in pictures:
        try:
            small.append(_small(picture, side))
        except (OSError, UnreadableImage):
            small.append(None)
    side = max((max(each.shape[:2]) for each in small if each is not None), default=side)
    columns = min(math.ceil(math.sqrt(count)), math.isqrt(_ON_A_SHEET))
    unreadable = [row for row, each in enumerate(small) if each is None]
    return Sheets(side, columns, list(_drawn(small, side, columns)), unreadable)


def _small(picture: str | np.ndarray, side: int) -> np.ndarray:
    pixels = seen(picture)
    return thumbnail(pixels, min(side, max(pixels.shape[:2])))


def _drawn(small: Sequence[np.ndarray | None], side: int, columns: int) -> Iterator[str]:
    for start in range(0, len(small), columns**2):
        some = small[start : start + columns**2]
        lines = math.ceil(len(some) / columns)
        sheet = np.full((lines * side, columns * side, 3), _PAPER, np.uint8)
        for place, picture in enumerate(some):
            if picture is None:
                picture = np.full((side, side, 3), _MISSING, np.uint8)
            height, width = picture.shape[:2]
            top = place // columns * side + (side - height) // 2
            left = place % columns * side + (side - width) // 2
            sheet[top : top + height, left : left + width] = picture
        yield jpeg_address(sheet, _QUALITY)
