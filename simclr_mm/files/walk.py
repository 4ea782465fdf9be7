"""Find the image files below a folder: one list of endings and one walk."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

from simclr_mm.errors import MissingFileError, UserError

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.ppm', '.pgm', '.tif', '.tiff')
# What simclr_mm.LoadBands reads besides. Only its folders list them.
BAND_EXTENSIONS = (*EXTENSIONS, '.npy', '.npz', '.dcm')
CACHE_FOLDER = '.simclr_mm_cache'  # caches of this package beside images

BROKEN = 'broken link(s)'
_LISTED = 'link(s) to a folder that is listed already'
_UNREADABLE = 'folder(s) that cannot be read'
_SPECIAL = 'neither file nor folder'
_NAMED = (BROKEN, _LISTED, _UNREADABLE, _SPECIAL)  # shown by name; others are counted


class Walk(NamedTuple):
    """The files below a folder."""

    paths: list[str]  # the image files, sorted; each begins with the folder as given
    # All other files and the folders that were not entered, by ending or description.
    passed_over: dict[str, list[str]]

    def others(self) -> str:
        """The number of files passed over by reason, such as ``30 .heic, 2 .txt``."""
        by_count = sorted(self.passed_over.items(), key=lambda item: (-len(item[1]), item[0]))
        parts = []
        for reason, names in by_count:
            shown = ', '.join(map(printable, sorted(names)[:3]))
            more = ', ...' if len(names) > 3 else ''
            parts.append(f'{len(names)} {reason}' + f' ({shown}{more})' * (reason in _NAMED))
        return ', '.join(parts)


def printable(path: str) -> str:
    """A path that every terminal and log can show, whatever bytes it has."""
    return os.fsencode(path).decode(errors='backslashreplace')


def image_paths(folder: str | Path, extensions: Sequence[str] = EXTENSIONS) -> list[str]:
    """The paths of :func:`images_below`."""
    return images_below(folder, extensions).paths


def require_folder(folder: str | Path) -> None:
    """Raise a MissingFileError if a folder of images does not exist."""
    if not os.path.isdir(folder):
        shown = os.path.abspath(folder) if folder else 'of no name'
        problem, advice = f'there is no folder {shown}', ''
        if os.path.isfile(folder):
            problem, advice = f'{shown} is a file', '; unpack an archive first'
        raise MissingFileError(
            f'{problem}: give the folder of your images (to a command: as FOLDER or --data DIR; in '
            f'a config: data_root of the dataset){advice}.'
        )


def images_below(folder: str | Path, extensions: Sequence[str] = EXTENSIONS) -> Walk:
    """List the images below a folder with :func:`walk_images`, and log the other files.

    Raises:
        MissingFileError: There is no such folder.
        UserError: It cannot be read, or holds no image.
    """
    require_folder(folder)
    walk = walk_images(folder, extensions)
    others = walk.others() or 'nothing else is there'
    if not walk.paths:
        raise UserError(
            f'{os.path.abspath(folder)} holds no image, at any depth: looked for '
            f'{" ".join(extensions)}, passed over: {others}. Give another folder (as '
            "FOLDER or --data DIR), or your endings as extensions of the config's dataset."
        )
    if walk.passed_over:
        print_log(
            f'{printable(str(folder))}: {len(walk.paths)} images; passed over: {others}',
            logger='current',
            level=logging.WARNING if walk.passed_over.keys() & set(_NAMED) else logging.INFO,
        )
    return walk


def walk_images(folder: str | Path, extensions: Sequence[str] = EXTENSIONS) -> Walk:
    """List the images below a folder, at any depth.

    Links to files and folders are followed. A folder is entered once, by its own name rather than a
    link if it lies below ``folder``, so loops end. Names that begin with a dot are passed over.

    Args:
        extensions: The endings of images, in lower case. Files may have them in capitals.

    Raises:
        UserError: The folder itself cannot be read.
    """
    root, endings = os.fspath(folder), tuple(extensions)
    walk = Walk([], {})
    entered: set[tuple[int, int]] = set()
    folders, linked = [root], list[str]()
    while folders or linked:
        if not folders:
            linked.sort(reverse=True)
        parent = folders.pop() if folders else linked.pop()
        try:
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in entered:
                walk.passed_over.setdefault(_LISTED, []).append(parent)
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(parent) as entries:
                for entry in entries:
                    reason = _reason(entry, endings)
                    if reason is None:
                        walk.paths.append(entry.path)
                    elif reason == 'folder':
                        (linked if entry.is_symlink() else folders).append(entry.path)
                    elif entry.name != CACHE_FOLDER:
                        walk.passed_over.setdefault(reason, []).append(entry.path)
        except OSError as error:
            if parent == root:
                raise UserError(f'the folder {root} cannot be read: {error.strerror}') from error
            walk.passed_over.setdefault(_UNREADABLE, []).append(parent)
    walk.paths.sort()
    return walk


def _reason(entry: os.DirEntry, endings: tuple[str, ...]) -> str | None:
    """None for an image, 'folder' for a folder to enter, else why it is passed over."""
    if entry.name.startswith('.'):
        return 'hidden'
    if entry.is_symlink() and not os.path.exists(entry.path):
        return BROKEN  # its target is missing, unreadable or the link itself
    if entry.is_dir():
        return 'folder'
    if not entry.name.lower().endswith(endings):
        return os.path.splitext(entry.name)[1].lower() or 'without an ending'
    return None if entry.is_file() else _SPECIAL
