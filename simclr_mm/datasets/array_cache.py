"""A cache of decoded images beside the data, so that they are decoded once.

Two files hold a dataset: the images, which all processes map into shared memory, and the labels.
"""

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from mmengine.logging import print_log

from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file, remove_stale
from simclr_mm.files.hashes import bytes_hash, listing_hash
from simclr_mm.files.walk import CACHE_FOLDER
from simclr_mm.transforms.to_rgb import READING_RULE


class Arrays(NamedTuple):
    """Images of one size with their labels.

    Args:
        images: (N, H, W, 3) uint8 BGR.
        labels: (N,) integers, -1 for none.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]


def files_key(root: str | Path, paths: Iterable[str]) -> str:
    """A key of decoded files: from their names, sizes, modification times and the reading rule.

    Args:
        root: The folder that the names are relative to, so a moved dataset keeps its key.
        paths: Files below it.
    """
    below = len(os.path.join(root, ''))
    listing = listing_hash(root, (path[below:] for path in paths))
    return bytes_hash([f'{READING_RULE} {listing}'.encode()])[:16]


def cached_arrays(
    data_root: Path, name: str, key: Callable[[], str], make: Callable[[], Arrays]
) -> Arrays:
    """The result of ``make``, from the cache in ``data_root`` if it is current.

    One process makes it while others wait. If nothing can be written, every process keeps
    its own copy in memory, and the log says so. ``name`` names dataset and split. ``key``
    names the content of the data; it is called again after ``make``, which may have fetched
    the data.
    """
    folder = data_root / CACHE_FOLDER
    found = _open(folder / f'{name}-{key()}')
    if found is not None:
        return found
    lock = FileLock(folder / f'{name}.lock')
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        acquired = lock.acquire()
    except OSError as error:
        return _kept_in_memory(make(), name, folder, error)
    with acquired:
        found = _open(folder / f'{name}-{key()}')  # made while this process waited
        if found is not None:
            return found
        try:
            remove_stale(folder)  # of killed processes
            arrays = make()
        except UserError:  # such as a failed download: leave nothing behind
            with contextlib.suppress(OSError):
                Path(lock.lock_file).unlink()
                for each in missing:
                    each.rmdir()
            raise
        stem = folder / f'{name}-{key()}'
        try:
            _save(arrays, stem)
        except OSError as error:  # such as a full disk
            return _kept_in_memory(arrays, name, folder, error)
        for path in folder.glob(f'{name}-{"[0-9a-f]" * 16}.np[yz]'):
            if path not in _files(stem):  # of an earlier state of the data
                path.unlink(missing_ok=True)
        return _open(stem) or arrays


def _kept_in_memory(arrays: Arrays, name: str, folder: Path, error: OSError) -> Arrays:
    print_log(
        f'{name}: decoded images stay in the memory of each process, and are decoded '
        f'again by the next run, because {folder} cannot be written: {error}',
        logger='current',
    )
    return arrays


def _files(stem: Path) -> tuple[Path, Path]:
    """Paths of images and labels."""
    return Path(f'{stem}.npy'), Path(f'{stem}.npz')


def _open(stem: Path) -> Arrays | None:
    images_file, labels_file = _files(stem)
    if not images_file.exists():
        return None
    try:
        images = np.load(images_file, mmap_mode='r')
        with np.load(labels_file) as stored:
            labels, classes = stored['labels'], stored['classes'].tolist()
        if images.dtype != np.uint8 or images.shape[:1] != labels.shape:
            raise UserError(f'{len(images)} images, {len(labels)} labels')
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        print_log(f'{images_file} is damaged and will be made again: {error}', logger='current')
        return None
    return Arrays(np.asarray(images), labels, classes)


def _save(arrays: Arrays, stem: Path) -> None:
    images_file, labels_file = _files(stem)
    with atomic_file(labels_file) as file:
        np.savez(file, labels=np.asarray(arrays.labels), classes=np.array(arrays.classes))
    with atomic_file(images_file) as file:  # last, so that both exist if it does
        np.save(file, np.ascontiguousarray(arrays.images))
