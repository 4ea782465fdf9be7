"""Decode image files into one array.

N images, S side in pixels.
"""

import os
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from rich.progress import track

from simclr_mm.cores import core_count
from simclr_mm.errors import UserError
from simclr_mm.transforms import LoadImageFromFile, UnreadableImage
from simclr_mm.transforms.crop import resized_crop


def read_images(paths: Sequence[str], size: int | None = None) -> np.ndarray:
    """Decode N files into one array, (N, H, W, 3) uint8 BGR, or (N, S, S, 3) with a size.

    With a size S, images are resized, antialiased, to this short side, and cropped at the
    centre. Without it, all images must have one size already.

    Raises:
        UserError: Images cannot be read, differ in size, or exceed the free memory.
    """
    shape = (size, size, 3) if size else _shape_of_first(paths)
    _check_memory(len(paths), shape)
    images = np.empty((len(paths), *shape), np.uint8)

    def enter(row: int) -> str:
        try:
            image = _read(paths[row], size)
        except UnreadableImage as error:
            return str(error)
        if image.shape != shape:
            return (
                f'{paths[row]} is {image.shape[1]} x {image.shape[0]} pixels, the '
                f'first image {shape[1]} x {shape[0]}.'
            )
        images[row] = image
        return ''

    with ThreadPool(core_count()) as threads:
        results = threads.imap(enter, range(len(paths)), chunksize=64)
        shown = track(results, f'reading {os.path.dirname(paths[0])}', len(paths), transient=True)
        problems = [problem for problem in shown if problem]
    if problems:
        more = f' ... and {len(problems) - 5} more.' if len(problems) > 5 else ''
        raise UserError(
            f'{len(problems)} of {len(paths)} images cannot be held in one array: '
            f'{" ".join(problems[:5])}{more} Remove or repair them; for images of mixed '
            "sizes use type='simclr_mm.InMemoryFolder' with size=, or "
            "type='simclr_mm.ImageFolder', which reads them while it trains."
        )
    return images


_loading = LoadImageFromFile()


def _read(path: str, size: int | None) -> np.ndarray:
    image = _loading(dict(img_path=path))['img']
    if size is None:
        return image
    height, width = image.shape[:2]
    side = min(height, width)
    box = (height - side) // 2, (width - side) // 2, side, side
    return resized_crop(image, box, size)


def _shape_of_first(paths: Sequence[str]) -> tuple[int, ...]:
    """(H, W, 3) of the first readable image."""
    for path in paths:
        try:
            return _read(path, None).shape
        except UnreadableImage as error:
            reason = error
    raise UserError(f'none of {len(paths)} images can be read; the last: {reason}')


def _check_memory(number: int, shape: tuple[int, ...]) -> None:
    needed, free = number * int(np.prod(shape)), free_memory()
    if free is not None and needed > free:
        raise UserError(
            f'{number} images of {shape[1]} x {shape[0]} pixels take {needed / 2**30:.2f} GiB, but '
            f"{free / 2**30:.2f} GiB of memory are free: use type='simclr_mm.ImageFolder', which "
            'reads files while it trains, or a smaller size=.'
        )


def free_memory() -> int | None:
    """Bytes available without swapping. None if the system does not say."""
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
    except OSError:  # not Linux
        return None
    sizes = dict(line.split(':') for line in lines)
    return int(sizes['MemAvailable'].split()[0]) * 1024  # from KiB
