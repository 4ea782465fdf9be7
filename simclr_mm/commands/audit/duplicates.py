"""Find images that show the same picture: resized, re-encoded, cropped or mirrored copies.

Neighbours by features and by tiny thumbnails are candidates; their pixels decide.
N images, C feature width, T side of a thumbnail in pixels.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from simclr_mm.commands.embed.retrieval import nearest_others

SIDE = 48  # T, of the thumbnails that are compared
_COARSE = 16  # pixels; a first look that drops most candidates
_TINY = 8  # pixels; whole images as vectors
_SMALLEST = 0.5  # side of a crop, as a part of the side of the whole image
# Correlations in [-1, 1]. See docs/your_own_images.md for what they let through.
_COARSE_LIKE, _LIKE, _DETAIL = 0.8, 0.9, 0.75
_FAINT = 6.0  # levels of 256: weaker details do not survive compression


class Pair(NamedTuple):
    """Two rows that show the same picture."""

    first: int
    second: int  # the larger row
    likeness: float  # correlation of the aligned pixels, up to 1
    kind: str  # 'the same pixels', 'resized or re-encoded', 'cropped', 'mirrored' ...


class _Match(NamedTuple):
    """The best place of a part of one image in the other."""

    likeness: float
    flipped: bool
    swapped: bool  # the first image is a part of the second
    part: int  # longer side of the part, in pixels of the thumbnail it was found in


def candidates(features: np.ndarray, thumbnails: np.ndarray, k: int) -> np.ndarray:
    """Pairs of rows (M, 2), each smaller row first, that may show the same picture.

    They are the k nearest by features. Beside them are the nearest by 8 x 8 pixels, also mirrored,
    if these correlate: no encoder needs to know that a mirrored or darker copy is one.

    Args:
        features: (N, C) finite.
        thumbnails: (N, T, T, 3) uint8.
    """
    tiny = torch.from_numpy(np.stack([_resized(each, _TINY, _TINY) for each in thumbnails])).float()
    plain, mirrored = (
        _unit(each.flatten(1) - each.flatten(1).mean(dim=1, keepdim=True))
        for each in (tiny, tiny.flip(2))
    )
    embedded = _unit(torch.from_numpy(features))
    found = [
        _nearest(embedded, embedded, k, -1.0),
        *(_nearest(queries, plain, k, _LIKE) for queries in (plain, mirrored)),
    ]
    return np.unique(torch.cat(found).sort(dim=1).values.numpy(), axis=0)


def _nearest(queries: Tensor, gallery: Tensor, k: int, least: float) -> Tensor:
    """Pairs (M, 2) of a row and each of its k nearest other rows, if they are similar enough."""
    cosines, others = nearest_others(queries, gallery, min(k, len(gallery) - 1))
    rows, places = torch.nonzero(cosines >= least, as_tuple=True)
    return torch.stack([rows, others[rows, places]], dim=1)


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows.float(), dim=1)


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def same_pictures(
    pairs: Iterable[tuple[int, int]], thumbnails: np.ndarray, aspects: np.ndarray
) -> Iterator[Pair | None]:
    """Compare candidates by their pixels; None for a pair that shows two pictures.

    A part of one image, of any size from half of its side up, is looked for in the other, also
    mirrored. The aligned parts must correlate, and in every ninth so must the details, without
    which smooth pictures, or those with one frame, would be alike.

    Args:
        pairs: Rows.
        thumbnails: (N, T, T, 3) uint8, the whole images, whatever their shape.
        aspects: (N,) width / height of the images.
    """
    small = [
        cv2.resize(each, (_COARSE, _COARSE), None, 0, 0, cv2.INTER_AREA) for each in thumbnails
    ]
    ways = [(flipped, swapped) for flipped in (False, True) for swapped in (False, True)]
    for first, second in pairs:
        aspect = aspects[second] / aspects[first]
        rough = _best(small[first], small[second], aspect, ways, range(_COARSE // 2, _COARSE + 1))
        if rough.likeness < _COARSE_LIKE:
            yield None
            continue
        middle, step = rough.part * SIDE // _COARSE, SIDE // _COARSE
        parts = range(max(round(_SMALLEST * SIDE), middle - step), min(SIDE, middle + step) + 1)
        images = thumbnails[first], thumbnails[second]
        match = _best(*images, aspect, [(rough.flipped, rough.swapped)], parts)
        alike = match.likeness >= _LIKE and _details(*images, aspect, match) >= _DETAIL
        kind = _kind(match, np.array_equal(*images) and aspect == 1)
        yield Pair(first, second, match.likeness, kind) if alike else None


def _best(
    first: np.ndarray,
    second: np.ndarray,
    aspect: float,
    ways: Iterable[tuple[bool, bool]],
    parts: Iterable[int],
) -> _Match:
    """The likest place among these ways and sizes of a part."""
    found = []
    for flipped, swapped in ways:
        for part in parts:
            whole, cut = _whole_and_part(first, second, aspect, flipped, swapped, part)
            if cut.shape[:2] == whole.shape[:2] and swapped:
                continue  # the same as the other way round
            likeness = float(cv2.matchTemplate(whole, cut, cv2.TM_CCOEFF_NORMED).max())
            found.append(
                _Match(likeness if np.isfinite(likeness) else -1.0, flipped, swapped, part)
            )
    return max(found) if found else _Match(-1.0, False, False, 0)


def _whole_and_part(
    first: np.ndarray, second: np.ndarray, aspect: float, flipped: bool, swapped: bool, part: int
) -> tuple[np.ndarray, np.ndarray]:
    """One image, and the other at the size that it has in it; the longer side is ``part``."""
    whole, cut, relative = (second, first, 1 / aspect) if swapped else (first, second, aspect)
    side = len(whole)
    # Thumbnails are square, so in the whole one a part of another shape is not.
    if part == side:
        width = height = side
    else:
        width = round(part * min(1.0, relative))
        height = round(part * min(1.0, 1 / relative))
    cut = _resized(cut, max(2, width), max(2, height))
    return whole, np.ascontiguousarray(cut[:, ::-1]) if flipped else cut


def _details(first: np.ndarray, second: np.ndarray, aspect: float, match: _Match) -> float:
    """The lowest correlation of details, of the ninths of the aligned parts that have any."""
    whole, cut = _whole_and_part(first, second, aspect, match.flipped, match.swapped, match.part)
    place = cv2.matchTemplate(whole, cut, cv2.TM_CCOEFF_NORMED)
    y, x = np.unravel_index(place.argmax(), place.shape)
    other = whole[y : y + cut.shape[0], x : x + cut.shape[1]]
    lowest = 1.0
    for mine, theirs in zip(_ninths(cut), _ninths(other)):
        strengths = np.sqrt(np.square(mine).mean()), np.sqrt(np.square(theirs).mean())
        if max(strengths) >= _FAINT:
            product = (mine * theirs).mean() / max(1e-6, strengths[0] * strengths[1])
            lowest = min(lowest, float(product))
    return lowest


def _ninths(image: np.ndarray) -> Iterator[np.ndarray]:
    """The ninths of what a narrow blur keeps and a wide one takes away."""
    values = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.8)
    fine = values - cv2.GaussianBlur(values, (0, 0), 3)
    for row in np.array_split(fine, 3, axis=0):
        yield from np.array_split(row, 3, axis=1)


def _kind(match: _Match, same: bool) -> str:
    if same and not match.flipped:
        return 'the same pixels'
    kinds = ['cropped'] * (match.part < SIDE) + ['mirrored'] * match.flipped
    return ' and '.join(kinds) or 'resized or re-encoded'
