"""Measure every image of some places, and go on after an interruption."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from torch.utils.data import DataLoader, Subset

from simclr_mm.commands.embed.images import ImageOrReason
from simclr_mm.datasets import ImageList
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.hashes import listing_hash
from simclr_mm.transforms.load_bands import require_one_depth

from .statistics import BandStatistics

_SAVE_EVERY = 10.0  # seconds of work that a kill may cost


def measure(
    places: list[str], loading: dict[str, Any], out: Path, workers: int = 0, restart: bool = False
) -> tuple[BandStatistics, list[str]]:
    """The statistics of all images of the places, and the reasons of unreadable ones.

    A state beside ``out`` lets a later call continue an interrupted one. It goes at the end.

    Args:
        loading: Settings of ``simclr_mm.LoadBands``.

    Raises:
        UserError: A place holds no readable image, a file has other bands than the first, or the
            state is that of other images or settings.
    """
    # ignore_empty would measure another image in place of an unreadable one.
    reading = dict(loading, type='simclr_mm.LoadBands', ignore_empty=False)
    images = ImageList(places, [reading])
    paths = [images.get_data_info(row)['img_path'] for row in range(len(images))]
    key = json.dumps([listing_hash('', paths), loading])
    state = out.with_name(f'.{out.name}.npz')
    statistics, unreadable, done, first, depth = _restored(state, key, restart)
    rest = Subset(ImageOrReason(images), range(done, len(images)))
    # With tuple nothing is converted to tensors.
    loader = DataLoader(rest, batch_size=None, num_workers=workers, collate_fn=tuple)
    saved = time.monotonic()
    for row, sample, reason in track(loader, 'measuring', len(images), done, transient=True):
        done += 1
        if sample is None:
            unreadable.append(reason)
        else:
            img = sample['img']
            if statistics is None:
                statistics = BandStatistics(img.shape[2])
                first, depth = paths[row], img.dtype.name
            if img.shape[2] != len(statistics.mean):
                raise UserError(
                    f'{paths[row]} has {img.shape[2]} band(s), but {first} has '
                    f'{len(statistics.mean)}: give files with the same bands'
                )
            # A worker sees only some of the files.
            require_one_depth((first, np.dtype(depth)), (paths[row], img.dtype))
            statistics.add(img)
        if time.monotonic() - saved > _SAVE_EVERY:
            progress = dict(unreadable=unreadable, done=done, first=first, depth=depth)
            _save(state, statistics, key=key, **progress)
            saved = time.monotonic()
    state.unlink(missing_ok=True)
    if statistics is None:
        raise UserError(f'none of {len(images)} images can be read; the last: {unreadable[-1]}')
    return statistics, unreadable


def _save(state: Path, statistics: BandStatistics | None, **progress: Any) -> None:
    with atomic_file(state) as file:
        arrays = vars(statistics) if statistics else {}
        np.savez_compressed(file, progress=np.array(json.dumps(progress)), **arrays)


def _restored(
    state: Path, key: str, restart: bool
) -> tuple[BandStatistics | None, list[str], int, str, str]:
    """Statistics, reasons, the number of images counted, and path and dtype of the first."""
    if restart or not state.is_file():
        return None, [], 0, '', ''
    try:
        with np.load(state, allow_pickle=False) as file:
            arrays = dict(file)
        progress = json.loads(str(arrays.pop('progress')))
        same, depth = progress['key'] == key, progress['depth']
    except Exception as error:  # a damaged file gives errors of many types
        raise UserError(f'{state} is damaged ({error}): begin again with --restart') from error
    if not same:
        raise UserError(
            f'{state} has {progress["done"]} images of an interrupted call with other images or '
            'settings: give another --out, or begin again with --restart'
        )
    statistics = None
    if arrays:
        statistics = BandStatistics(len(arrays['mean']))
        vars(statistics).update(arrays, count=int(arrays['count']))
    print(f'continuing behind {progress["done"]} images')
    return statistics, progress['unreadable'], progress['done'], progress['first'], depth
